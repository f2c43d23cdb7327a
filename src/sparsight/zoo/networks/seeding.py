"""Initial weights from a seed, without changing the global random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def drawn_from(seed: int | None) -> Iterator[None]:
    """Seed PyTorch for a block, and restore its random state afterwards; with None, use the global state."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def published(make: Callable[[], nn.Module], seed: int | None) -> nn.Module:
    """A network in the paper's initial state: convolutions Kaiming normal (fan out), biases 0, batch norms 1 and 0.

    Linear weights stay as PyTorch draws them (uniform). Source: reference code of the PQ Index paper.
    """
    with drawn_from(seed):
        model = make()
        _initialise_(model)
    return model


def _initialise_(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)


def image_shape(input_shape: Sequence[int], at_least: int, name: str) -> tuple[int, int, int]:
    """(channels, height, width). Raises: ValueError unless the shape has three sizes and sides of `at_least`."""
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"{name} needs images of shape (channels, height, width), got {tuple(input_shape)}")
    channels, height, width = input_shape
    if min(height, width) < at_least:
        raise ValueError(f"{name} needs images of at least {at_least}×{at_least}, got {height}×{width}")
    return channels, height, width
