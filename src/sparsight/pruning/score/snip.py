"""SNIP: keep the weights whose removal would change the loss most, to first order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import check
from sparsight.model.weights import laid_out
from sparsight.numerics.checks import check_known
from sparsight.pruning.score.gradient import BatchNorm, finite, mean_gradient, scoring, shares
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class SNIP:
    """score = |w dL/dw|, in [0, inf): the first-order change of the loss if w is removed. Needs data.

    L is the mean of `loss` over all samples of all batches, weighted by batch length; the modulus is taken last. The
    gradient is taken in the masked network. The score of a pruned weight is its own value times its gradient, which
    ranks pruned weights too (FORCE). Not normalised, because that does not change the ranking.

    `batch_norm`: "train" uses the statistics of each batch (an untrained network has no others), "eval" the stored
    ones; only then do results not depend on how the data are batched. Dropout is off. Scores have the weight's dtype,
    at least float32.

    Raises: ValueError without batches, for an empty batch, or scores of alive weights that are NaN or infinite. Warns
    if every score is 0.

    Source: Lee, Ajanthan and Torr, "SNIP", ICLR 2019, equation 5; SBP in Hayou et al., ICLR 2021.
    """

    loss: Loss = task_loss
    batch_norm: BatchNorm = "train"

    def __post_init__(self) -> None:
        check_known(BatchNorm, batch_norm=self.batch_norm)

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scores:
        check(model, masks)
        parts = shares(batches, "SNIP")
        with scoring(model, masks, self.batch_norm) as (call, weights):
            grads = mean_gradient(call, weights, self.loss, parts)
        scores = {name: g.mul_(call.params[name]).abs_() for name, g in zip(weights, grads, strict=True)}
        return laid_out(model, finite(scores, masks, "SNIP"))
