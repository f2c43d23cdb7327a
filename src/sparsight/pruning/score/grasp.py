"""GraSP: keep the weights that preserve the gradient flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.model.batch import own_loss, scores_of
from sparsight.model.functional import Pure
from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import check
from sparsight.model.weights import laid_out
from sparsight.numerics.checks import check_known, check_positive
from sparsight.pruning.score.gradient import (
    BatchNorm,
    finite,
    give_back,
    gradient,
    mean,
    mean_gradient,
    mean_loss,
    scoring,
    shares,
)
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class GraSP:
    """score = w (Hg), signed, in (-inf, inf): higher = keep. g, H: gradient and Hessian of the mean loss. Needs data.

    Removing w lowers ||g||^2 by 2 w (Hg), to first order. The paper's score is S = -w (Hg) and removes the largest;
    this is -S. g and Hg are over all samples of all batches, weighted by batch length (one forward pass for a single
    batch, two per batch for several). Only prunable weights enter g and H, and only alive ones enter g.

    `loss` gets the outputs divided by `temperature`, which changes the ranking; the published code uses 200.
    `batch_norm` as in SNIP. Dropout is off.

    Raises: ValueError without batches, for an empty batch, temperature <= 0, or scores of alive weights that are NaN or
    infinite.

    Source: Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020,
    equation 8.
    """

    loss: Loss = task_loss
    temperature: float = 1.0
    batch_norm: BatchNorm = "train"

    def __post_init__(self) -> None:
        check_known(BatchNorm, batch_norm=self.batch_norm)
        check_positive(temperature=self.temperature)

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scores:
        check(model, masks)
        parts = shares(batches, "GraSP")
        with scoring(model, masks, self.batch_norm, twice=True) as (call, weights):
            flow = None if len(parts) == 1 else mean_gradient(call, weights, self._cooled, parts)
            total = mean(lambda batch: self._product(call, weights, masks, batch, flow), parts)
        scores = {name: hg.mul_(call.params[name]) for name, hg in zip(weights, total, strict=True)}
        return laid_out(model, finite(scores, masks, "GraSP"))

    def _product(
        self, call: Pure, weights: dict[str, Tensor], masks: Masks, batch: Batch, flow: list[Tensor] | None
    ) -> list[Tensor]:
        """The Hessian of a batch times `flow`, by default its own gradient."""
        by = list(weights.values())
        grads = gradient(mean_loss(call, weights, self._cooled, batch), by, again=True)
        flow = [g.detach() for g in grads] if flow is None else flow
        dots = [_alive_dot(g, v.to(g.dtype), m) for g, v, m in zip(grads, flow, masks.values(), strict=True)]
        value = torch.stack(dots).sum()
        if value.device.type == "cpu":
            give_back()  # the second pass needs as much memory as the first
        return gradient(value, by)

    def _cooled(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.loss(model if self.temperature == 1 else _Cooled(model, self.temperature), batch)


def _alive_dot(gradient: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
    return (gradient * (vector if bool(mask.all()) else vector.masked_fill(~mask.to(vector.device), 0))).sum()


class _Cooled(nn.Module):
    """A model with its outputs divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self._orig_mod, self.temperature = model, temperature

    def forward(self, *args: Any, **keywords: Any) -> Tensor:
        out = self._orig_mod(*args, **keywords)
        scores = scores_of(out)
        if scores is None or (own_loss(out) is not None and scores.dim() != 2):
            raise TypeError(
                f"temperature needs a model that returns class scores, got {type(out).__name__}: use temperature=1"
            )
        return scores / self.temperature
