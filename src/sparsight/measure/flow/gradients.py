"""Gradient flow: the size of the loss gradient in each weight tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from sparsight.model.batch import batch_size
from sparsight.model.functional import Pure, evaluating, pure
from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import check
from sparsight.numerics.checks import check_known
from sparsight.numerics.exact import exact
from sparsight.numerics.seeds import seeded
from sparsight.types import Batch, Masks

Statistic = Literal["norm", "mean_abs", "mean_abs_live", "total"]


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """One number per prunable tensor, and the loss."""

    names: tuple[str, ...]
    values: Float64[Tensor, " tensors"]  # on the CPU; NaN or inf where a gradient was not finite
    statistic: Statistic
    samples: int
    loss: float
    alive: Mapping[str, int]  # kept weights by tensor

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.values).all())


def gradient_flow(
    model: nn.Module, masks: Masks, batches: Iterable[Batch], *, statistic: Statistic = "norm", loss: Loss = task_loss
) -> GradientFlow:
    """Size of the masked gradient of the mean loss over the samples of all batches, in each prunable tensor.

    g = m * d/dw (1/N) sum_n loss_n, at the masked weights m * w, one backward pass a batch, each weighted by its
    samples. "norm" is ||g||_F, "mean_abs" sum |g| / entries of the tensor, "mean_abs_live" sum |g| / kept weights
    (0 without kept weights), all in [0, inf) and one for each tensor of `masks`, in its order. "total" is one number,
    named "total": the sum of all squared entries, the rate at which the loss falls under gradient flow.

    In eval mode: batch norms use their stored statistics, dropout is off. The model's own gradients are neither read
    nor changed. Non-finite gradients are returned. Raises: ValueError without batches or if masks do not fit.

    Source: Gharatappeh and Sekeh, "Information Consistent Pruning", 2025, as intended: the published code takes the
    gradient left by the last training step, times n / (n - 1) for n batches.
    """
    return measured(model, masks, batches, statistic, loss)


Around = Callable[[Callable[[Batch], Tensor], Batch], Tensor]
"""Calls the loss of a batch, which runs the forward pass, and returns its value, to observe the pass."""


def measured(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Batch],
    statistic: Statistic,
    loss: Loss,
    around: Around = lambda run, batch: run(batch),
) -> GradientFlow:
    """`gradient_flow`, with `around` every forward pass."""
    check_known(Statistic, statistic=statistic)
    check(model, masks)
    model = getattr(model, "_orig_mod", model)
    with evaluating(model), seeded(0), torch.enable_grad():
        mean, grads, samples = _mean_gradient(pure(model), masks, loss, batches, around)
    alive = {name: int(mask.sum()) for name, mask in masks.items()}
    values = [_size(g, statistic, alive[name]) for name, g in zip(masks, grads, strict=True)]
    if statistic == "total":
        return GradientFlow(("total",), torch.stack(values).sum().cpu()[None], statistic, samples, mean, alive)
    return GradientFlow(tuple(masks), torch.stack(values).cpu(), statistic, samples, mean, alive)


def _mean_gradient(
    call: Pure, masks: Masks, loss: Loss, batches: Iterable[Batch], around: Around
) -> tuple[float, list[Tensor], int]:
    """Mean loss, its masked gradient in float64, and the samples."""
    kept = {name: mask.to(call.params[name].device) for name, mask in masks.items()}
    weights = {n: call.params[n].masked_fill(~mask, 0).requires_grad_() for n, mask in kept.items()}
    sums = [torch.zeros_like(exact(w.detach())) for w in weights.values()]

    total, samples = 0.0, 0

    def over_all(net: nn.Module, _: Batch) -> Any:
        nonlocal total, samples
        for batch in batches:
            size, value = batch_size(batch), around(lambda b: loss(net, b), batch)
            if not value.requires_grad:
                raise ValueError("the loss does not depend on any prunable weight: compute it from the model's output")
            grads = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
            for into, g in zip(sums, grads, strict=True):
                into.add_(g.to(into.device), alpha=size)
            total, samples = total + float(value.detach()) * size, samples + size

    call.loss(weights, over_all, batches)  # one functional call, since each costs as much as a small batch
    if not samples:
        raise ValueError("gradient_flow needs at least one batch, got none")
    masked = [g.div_(samples).masked_fill_(~m.to(g.device), 0) for g, m in zip(sums, kept.values(), strict=True)]
    return total / samples, masked, samples


def _size(g: Tensor, statistic: Statistic, alive: int) -> Tensor:
    if statistic == "norm":
        return torch.linalg.vector_norm(g)
    if statistic == "total":
        return g.square().sum()
    return g.abs().sum() / max(alive if statistic == "mean_abs_live" else g.numel(), 1)
