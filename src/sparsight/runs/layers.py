"""The sparsity of a network: counts and PQ indices per layer and overall."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsight.measure.pq import PowerSums, group_sums
from sparsight.model.names import named
from sparsight.records.record import Layer
from sparsight.types import Masks


def layers_and_indices(
    model: nn.Module, masks: Masks, pairs: Sequence[tuple[float, float]]
) -> tuple[tuple[Layer, ...], tuple[float, ...]]:
    """The layers, and the PQ index of all alive weights for every (p, q) of `pairs`, in one pass.

    The index of a layer without alive weights is 0. Raises: ValueError for NaN or infinity in an alive weight.
    """
    parameters = named(model)
    exponents = tuple(sorted({e for pair in pairs for e in pair}))
    groups = group_sums({name: parameters[name] for name in masks}, masks, exponents, "layer")
    layers = tuple(
        Layer(name, tuple(masks[name].shape), sums.count, masks[name].numel(), _indices(sums, pairs))
        for name, sums in groups
    )
    return layers, _indices(PowerSums.merge([sums for _, sums in groups]), pairs)


def _indices(sums: PowerSums, pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(sums.index(p, q) for p, q in pairs)
