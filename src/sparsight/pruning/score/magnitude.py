"""Magnitude: keep the large weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sparsight.model.masks import check
from sparsight.model.names import named
from sparsight.model.weights import laid_out
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class Magnitude:
    """score = |w|, in [0, inf), in the weight's dtype; needs no data.

    The selection breaks ties (lower index pruned first), and refuses the NaN score of a NaN weight.
    """

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        parameters = named(model)
        return laid_out(model, {name: parameters[name].detach().abs() for name in masks})
