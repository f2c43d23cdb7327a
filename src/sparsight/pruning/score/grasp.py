"""GraSP: keep the weights that carry the flow of gradients."""

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
    add,
    differentiable,
    finite,
    give_back,
    gradient,
    leaves,
    mean_gradient,
    mean_loss,
    scoring,
    shares,
)
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class GraSP:
    """score = w (Hg), signed, in (-inf, inf): higher = keep. g, H: gradient and Hessian of the mean loss. Needs data.

    2 w (Hg) is by how much ||g||^2 falls, to first order, if w went. The paper's own score is S = -w (Hg), of which
    it *removes* the largest; this is -S. One Hessian-vector product, by differentiating twice; g and Hg are both over
    all samples of all batches, each batch weighted by its length (one batch: one forward pass, several: two each).
    Only prunable weights enter g and H, and only alive ones enter g.

    `loss` sees the outputs divided by `temperature`: 200 in the published code, which changes the ranking. `batch_norm`
    as for SNIP. Dropout is off; attention runs on torch's plain kernel, the one that can be differentiated twice.
    Errors: no batches, an empty one; temperature <= 0; scores of alive weights that are NaN or infinite, by name.

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
        with scoring(model, self.batch_norm, twice=True):
            call = differentiable(model)
            weights = leaves(call, masks)
            flow = None if len(parts) == 1 else mean_gradient(call, weights, self._cooled, batches, parts)
            total: list[Tensor] | None = None
            for batch, part in zip(batches, parts, strict=True):
                total = add(total, self._product(call, weights, masks, batch, flow), part)
        assert total is not None
        scores = {name: hg.mul_(call.params[name]) for name, hg in zip(weights, total, strict=True)}
        return laid_out(model, finite(scores, masks, "GraSP"))

    def _product(
        self, call: Pure, weights: dict[str, Tensor], masks: Masks, batch: Batch, flow: list[Tensor] | None
    ) -> list[Tensor]:
        """The batch's Hessian times `flow`, or times its own gradient."""
        by = list(weights.values())
        grads = gradient(mean_loss(call, weights, self._cooled, batch), by, again=True)
        flow = [g.detach() for g in grads] if flow is None else flow
        dots = [_alive_dot(g, v.to(g.dtype), m) for g, v, m in zip(grads, flow, masks.values(), strict=True)]
        value = torch.stack(dots).sum()
        if value.device.type == "cpu":
            give_back()  # the second pass takes as much again as the first
        return gradient(value, by)

    def _cooled(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.loss(model if self.temperature == 1 else _Cooled(model, self.temperature), batch)


def _alive_dot(gradient: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
    return (gradient * (vector if bool(mask.all()) else vector.masked_fill(~mask.to(vector.device), 0))).sum()


class _Cooled(nn.Module):
    """A model whose outputs are divided by a temperature."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self._orig_mod, self.temperature = model, temperature

    def forward(self, *args: Any, **keywords: Any) -> Tensor:
        out = self._orig_mod(*args, **keywords)
        scores = scores_of(out)
        if scores is None or (own_loss(out) is not None and scores.dim() != 2):
            raise TypeError(
                f"a temperature needs a model that returns class scores of samples, got {type(out).__name__}: take "
                "temperature=1"
            )
        return scores / self.temperature
