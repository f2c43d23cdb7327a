"""Gradients between backward and step: masking, averaging over the run, clipping."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from sparsight.measure.flow import GradientAverage, gf_ema
from sparsight.measure.flow.running_average import averaged
from sparsight.model.hold import Bound, Norms
from sparsight.train.training import Training
from sparsight.types import Masks


def clip_(parameters: Sequence[nn.Parameter], limit: float, norm: float | None = None) -> None:
    """Scale all gradients by min(1, limit / (norm + 1e-6)), with the norm of all gradients as one vector.

    A known `norm` saves computing it; otherwise this is `torch.nn.utils.clip_grad_norm_`. Skips parameters without a
    gradient; a NaN makes all gradients NaN.
    """
    if norm is None:
        clip_grad_norm_(parameters, limit)
        return
    factor = limit / (norm + 1e-6)
    if not factor >= 1:  # also for NaN
        with torch.no_grad():
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)


def mask_and_clip_(training: Training, bound: Bound) -> None:
    """Clear the gradients of pruned weights, update the average of the others, and clip them."""
    limit = training.plan.clip
    norms = bound.mask_and_measure_grads_() if limit is not None or training.averaging else None
    if norms is None:
        bound.mask_grads_()
    if training.averaging:
        training.average = _average(training, bound, norms)
    if limit is not None:
        clip_(bound.parameters, limit, None if norms is None else norms.total)


def _average(training: Training, bound: Bound, norms: Norms | None) -> GradientAverage:
    """The average of gradient norms, updated with this step's, which masking may have computed."""
    if norms is None:
        return gf_ema(_of_held(bound, training.masks), training.average)
    return averaged(tuple(training.masks), norms.of_held(), training.average)


def _of_held(bound: Bound, masks: Masks) -> dict[str, Tensor | None]:
    """The masked gradients of the prunable tensors."""
    return {name: hold.weight.grad for name, hold in zip(masks, bound.holds, strict=True)}
