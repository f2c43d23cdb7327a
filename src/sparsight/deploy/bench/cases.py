"""Cases to time: a torch module with zeros in its weights, an input, and for a single layer the runtime's graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsight.deploy.comparing import copied
from sparsight.deploy.runtime.graph import Graph
from sparsight.deploy.runtime.trace import single
from sparsight.numerics.checks import check_fraction, check_seed, check_whole

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, eq=False)
class Case:
    """A float32 module in evaluation mode, and an input.

    For a single layer, which has a graph, the operation alone is timed too; a network runs in `sparse_runtime`.
    """

    name: str
    module: nn.Module
    x: Tensor
    graph: Graph | None = None

    @property
    def layer(self) -> bool:
        return self.graph is not None

    @property
    def density(self) -> float:
        """The share of nonzero weights in convolutions and linear layers."""
        weights = [m.weight for m in self.module.modules() if isinstance(m, LAYERS)]
        return sum(int(w.count_nonzero()) for w in weights) / max(1, sum(w.numel() for w in weights))


def conv(
    channels: tuple[int, int],
    size: int,
    kernel: int = 3,
    stride: int = 1,
    density: float = 0.1,
    batch: int = 1,
    seed: int = 0,
) -> Case:
    """A convolution of square images, padded by half its kernel, with a bias and random weights at a density.

    Raises: ValueError for a size or count below 1, or a density outside [0, 1].
    """
    for number in channels:
        check_whole(1, channels=number)
    check_whole(1, size=size, kernel=kernel, stride=stride)
    x = _input((batch, channels[0], size, size), density, seed)
    layer = nn.Conv2d(*channels, kernel, stride, kernel // 2)
    prune_at_random_(layer, density, seed)
    times = f"{channels[0]}→{channels[1]}" if channels[0] != channels[1] else f"{channels[0]}"
    name = f"{kernel}×{kernel} {times} @ {size}" + (f", stride {stride}" if stride > 1 else "")
    return Case(f"{name}, batch {batch}", layer.eval(), x, single(layer, tuple(x.shape)))


def linear(features: tuple[int, int], density: float = 0.1, batch: int = 1, seed: int = 0) -> Case:
    """A linear layer with a bias and random weights at a density. Raises: as `conv`."""
    for number in features:
        check_whole(1, features=number)
    x = _input((batch, features[0]), density, seed)
    layer = nn.Linear(*features)
    prune_at_random_(layer, density, seed)
    name = f"linear {features[0]}→{features[1]}, batch {batch}"
    return Case(name, layer.eval(), x, single(layer, tuple(x.shape)))


def network(name: str, module: nn.Module, shape: tuple[int, ...], batch: int = 1, seed: int = 0) -> Case:
    """A network in evaluation mode, on random inputs of a shape without the batch. Raises: ValueError for batch < 1."""
    return Case(f"{name}, batch {batch}", copied(module).eval(), _input((batch, *shape), 1.0, seed))


def prune_at_random_(module: nn.Module, density: float, seed: int, leave: Collection[str] = ()) -> None:
    """Redraw the weights of convolutions and linear layers, with round(density x size) nonzero ones in each.

    Kept weights are normal, with the variance at which ReLU networks of that density keep the scale of their signals.
    Layers named in `leave` do not change.
    """
    check_fraction(density=density)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, LAYERS) and name not in leave:
                weight = layer.weight
                kept = torch.randperm(weight.numel(), generator=generator)[: round(density * weight.numel())]
                fresh = torch.zeros(weight.numel())
                scale = (2 * weight.shape[0] / max(1, len(kept))) ** 0.5
                fresh[kept] = scale * torch.randn(len(kept), generator=generator)
                weight.copy_(fresh.view_as(weight))


def _input(shape: tuple[int, ...], density: float, seed: int) -> Tensor:
    check_whole(1, batch=shape[0])
    check_fraction(density=density)
    check_seed(seed)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
