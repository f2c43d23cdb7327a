"""Recomputes BatchNorm statistics after pruning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sparsight.model.batch import on_tensors, predict
from sparsight.types import Batch

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recalibrate_(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Set the running statistics of every BatchNorm to plain averages over `batches`; returns the number of batches.

    Pruning changes the outputs of layers, so the old statistics no longer fit. Weights, momentum and training modes do
    not change; dropout is off. Batches, `(x, y)` or `x`, have equal weights and are moved to the model's device.

    Raises:
        ValueError: no BatchNorm with running statistics, no batches, or a model that fails on one; the statistics are
            then restored.
    """
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no BatchNorm that keeps statistics: nothing to recalibrate")
    before = [{name: getattr(norm, name).clone() for name in _STATISTICS} for norm in norms]
    device, seen = before[0]["running_mean"].device, 0
    try:
        with _only_norms_train(model, norms), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
            for batch in batches:
                try:
                    predict(model, on_tensors(lambda x: x.to(device), batch))
                except Exception as error:
                    raise ValueError(f"the model fails on batch {seen} to recalibrate on: {error}") from error
                seen += 1
        if not seen:
            raise ValueError("recalibrate_ needs at least one batch, got none")
    except BaseException:  # Ctrl-C too
        for norm, values in zip(norms, before, strict=True):
            for name, value in values.items():
                getattr(norm, name).copy_(value)
        raise
    return seen


@contextmanager
def _only_norms_train(model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """A block in which these norms keep a cumulative average, and everything else is in evaluation mode."""
    modes, momenta = {module: module.training for module in model.modules()}, [norm.momentum for norm in norms]
    try:
        for module in modes:
            module.training = module in norms
        for norm in norms:
            norm.momentum = None
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
