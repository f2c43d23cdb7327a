"""Keep ratios over all parameters, as in the published code, and the matching densities over prunable weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparsight.model.masks import check
from sparsight.model.names import named
from sparsight.numerics.checks import check_fraction
from sparsight.types import Masks


@dataclass(frozen=True)
class KeepBudget:
    """The number of prunable weights that a keep ratio leaves, and the counts it follows from."""

    keep_ratio: float  # requested: kept parameters / `size`
    size: int  # nonzero parameters of the original network, including biases and normalisation
    uncompressible: int  # nonzero parameters that are not prunable weights
    compressible: int  # nonzero prunable weights
    count: int  # prunable weights to keep
    density: float  # count / prunable weights, as everywhere else


def keep_budget(model: nn.Module, masks: Masks, keep_ratio: float, *, size: int | None = None) -> KeepBudget:
    """count = clip(int(keep_ratio x size) - uncompressible, 0, compressible).

    Counts nonzero parameters: neither zero biases nor masked weights. `size` counts those of the original network,
    by default this model. Parameters that are not prunable are all kept, which limits the ratio to at least
    uncompressible / size. A tied parameter counts once.

    Raises: ValueError for a ratio outside [0, 1] or size < 1. Source: section 1.9 of the derivation, and the published
    code.
    """
    check_fraction(keep_ratio=keep_ratio)
    compressible, uncompressible = _nonzero(model, masks)
    size = compressible + uncompressible if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    count = min(max(int(keep_ratio * size) - uncompressible, 0), compressible)
    prunable = sum(mask.numel() for mask in masks.values())
    return KeepBudget(keep_ratio, size, uncompressible, compressible, count, count / prunable)


def keep_ratio(model: nn.Module, masks: Masks, *, size: int | None = None) -> float:
    """Nonzero parameters under the masks / `size`, by default the nonzero parameters without masks."""
    kept = sum(_nonzero(model, masks))
    if size is None:
        size = sum(int((p.detach() != 0).sum()) for p in named(model).values())
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
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
