"""MBP: magnitude without the scale of each layer's initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparsight.model.functional import evaluating
from sparsight.model.masks import check
from sparsight.model.weights import laid_out, weights
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class MBP:
    """score = sqrt(fan_in) |w|, in [0, inf), in the weight's dtype; needs no data.

    fan_in = channels / groups x kernel size, the number of weights per output unit; 1 for a vector. Weights drawn from
    N(0, sigma_w^2 / fan_in) then compete equally in every layer, while |w| alone would empty wide layers. Ties and NaN
    as for `Magnitude`.

    Source: magnitude-based pruning in Hayou et al., ICLR 2021; the factor is ours.
    """

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        known = weights(model)
        scores = {}
        with evaluating(model), torch.no_grad():
            for name in masks:
                fan_in = math.prod(known[name].layout.rows(known[name].parameter).shape[1:])
                scores[name] = known[name].value.abs() * math.sqrt(fan_in)
        return laid_out(model, scores)
