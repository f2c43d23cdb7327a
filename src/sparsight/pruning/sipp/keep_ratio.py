"""Keep ratios as the published code counts them, over all parameters, beside densities over prunable weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparsight.model.masks import check
from sparsight.model.names import named
from sparsight.numerics.checks import check_fraction
from sparsight.types import Masks


@dataclass(frozen=True)
class KeepBudget:
    """How many prunable weights a keep ratio leaves, and what it was counted from."""

    keep_ratio: float  # asked for: parameters kept / `size`
    size: int  # nonzero parameters of the original network, biases and normalisation included
    uncompressible: int  # nonzero parameters that are not prunable weights
    compressible: int  # nonzero prunable weights
    count: int  # prunable weights to keep
    density: float  # count / prunable weights, the measure used everywhere else here


def keep_budget(model: nn.Module, masks: Masks, keep_ratio: float, *, size: int | None = None) -> KeepBudget:
    """count = clip(int(keep_ratio x size) - uncompressible, 0, compressible).

    Sizes count nonzero parameters, so that biases initialised to zero do not count; pruned weights of the masks are
    zero. `size` is that of the original network where `model` is already pruned, by default this model's. Weights that
    are not prunable are kept whole, so the least reachable ratio is uncompressible / size. A tied parameter counts
    once. ValueError: a ratio outside [0, 1]; size < 1. Source: section 1.9 of the derivation, after the published code.
    """
    check_fraction(keep_ratio=keep_ratio)
    compressible, uncompressible = _nonzero(model, masks)
    size = compressible + uncompressible if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1: got {size}")
    count = min(max(int(keep_ratio * size) - uncompressible, 0), compressible)
    prunable = sum(mask.numel() for mask in masks.values())
    return KeepBudget(keep_ratio, size, uncompressible, compressible, count, count / prunable)


def keep_ratio(model: nn.Module, masks: Masks, *, size: int | None = None) -> float:
    """Nonzero parameters under the masks / `size`; without `size`, the model's own without masks."""
    kept = sum(_nonzero(model, masks))
    if size is None:
        size = sum(int((p.detach() != 0).sum()) for p in named(model).values())
    if size < 1:
        raise ValueError(f"size must be at least 1: got {size}")
    return kept / size


def _nonzero(model: nn.Module, masks: Masks) -> tuple[int, int]:
    """Nonzero parameters: (prunable weights under the masks, all others)."""
    check(model, masks)
    inside = outside = 0
    for name, parameter in named(model).items():
        nonzero = parameter.detach() != 0
        if name in masks:
            inside += int((nonzero & masks[name].to(nonzero.device)).sum())
        else:
            outside += int(nonzero.sum())
    return inside, outside
