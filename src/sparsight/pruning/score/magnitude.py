"""Magnitude: keep the large weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparsight.model.functional import evaluating
from sparsight.model.masks import check
from sparsight.model.weights import laid_out, weights
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class Magnitude:
    """score = |w|, in [0, inf), in the weight's dtype; needs no data.

    Under weight norm or spectral norm, w is the normed weight that the layer computes with.
    The selection breaks ties (lower index pruned first), and refuses the NaN score of a NaN weight.
    """

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        known = weights(model)
        with evaluating(model), torch.no_grad():  # in train mode, reading a spectral norm changes it
            return laid_out(model, {name: known[name].value.abs() for name in masks})
