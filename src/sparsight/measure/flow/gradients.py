"""Gradient flow: the size of the loss gradient in each weight tensor, on samples or averaged over training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from sparsight.measure.flow.activations import Site
from sparsight.measure.flow.information import SHORTCUTS, Collector, InformationFlow, Pair, Reduction
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
    return _measured(model, masks, batches, statistic, loss, lambda run, batch: run(batch))


def both_flows(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Batch],
    *,
    reduction: Reduction = "rms",
    site: Site = "pre",
    pairs: Sequence[Pair] | None = None,
    skip: Sequence[str] = SHORTCUTS,
    statistic: Statistic = "norm",
    loss: Loss = task_loss,
) -> tuple[InformationFlow, GradientFlow]:
    """`information_flow` and `gradient_flow` from one pass: one forward and one backward pass a batch.

    The loss runs the forward pass, so activations come from the masked weights m * w. Two calls give the same numbers
    if pruned weights are 0 and the loss runs the model once, on the batch's inputs. Arguments and errors are as for the
    two functions.
    """
    collector = Collector(model, reduction, site, pairs, skip)

    def around(run: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        values: list[Tensor] = []
        collector.take(lambda b: values.append(run(b)), batch)
        return values[0]

    gradients = _measured(model, masks, batches, statistic, loss, around)
    return collector.flow(), gradients


Around = Callable[[Callable[[Batch], Tensor], Batch], Tensor]
"""Calls the loss of a batch, which runs the forward pass, and returns its value, to observe the pass."""


def _measured(
    model: nn.Module, masks: Masks, batches: Iterable[Batch], statistic: Statistic, loss: Loss, around: Around
) -> GradientFlow:
    check_known(Statistic, statistic=statistic)
    check(model, masks)
    model = getattr(model, "_orig_mod", model)
    with evaluating(model), seeded(0), torch.enable_grad():
        mean, grads, samples = _mean_gradient(pure(model), masks, loss, batches, around)
    alive = {name: int(mask.sum()) for name, mask in masks.items()}
    names = tuple(masks)
    if statistic == "norm":
        values = [torch.linalg.vector_norm(g) for g in grads]
    elif statistic == "total":
        names, values = ("total",), [torch.stack([g.square().sum() for g in grads]).sum()]
    else:
        entries = alive.values() if statistic == "mean_abs_live" else (g.numel() for g in grads)
        values = [g.abs().sum() / max(n, 1) for g, n in zip(grads, entries, strict=True)]
    return GradientFlow(names, torch.stack(values).cpu(), statistic, samples, mean, alive)


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


# -- at no cost: the gradients that training computes ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GradientAverage:
    """The exponential average of gradient norms over `steps` training steps, one number per tensor."""

    names: tuple[str, ...]
    total: Float64[Tensor, " tensors"]  # (1 - decay) sum_t decay^(T - t) norm_t, where the gradients are
    steps: int
    decay: float

    @property
    def values(self) -> Float64[Tensor, " tensors"]:
        """The average, total / (1 - decay^steps), on the CPU: its weights sum to 1 from the first step on."""
        return self.total.cpu() / (1.0 - self.decay**self.steps)

    @property
    def by_name(self) -> dict[str, float]:
        """The average of each tensor."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def state(self) -> dict[str, Tensor]:
        """The state to store for a resume: GradientAverage(names, state["total"], int(state["steps"]), decay)."""
        return {"total": self.total.clone(), "steps": torch.tensor(self.steps)}


def gf_ema(
    grads: Mapping[str, Tensor | None], previous: GradientAverage | None = None, *, decay: float = 0.98
) -> GradientAverage:
    """The average after another training step: total = decay total + (1 - decay) ||g||_F, for each tensor.

    `grads` are the gradients of the step by name, after masking and before clipping. None counts as 0. Nothing is read
    back from the device. Noisier and larger than `gradient_flow`: these are gradients of batches in train mode, while
    the weights change. Averages over about 1 / (1 - decay) steps.
    Raises: ValueError for decay outside [0, 1), for other names than before, or without gradients.
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    names = tuple(grads)
    given = {name: g.detach() for name, g in grads.items() if g is not None}
    if not given:
        raise ValueError(f"gf_ema needs at least one gradient, got none of {len(names)}")
    norms = torch._foreach_norm(list(given.values()))
    if len(given) < len(names):
        found = dict(zip(given, norms, strict=True))
        norms = [found.get(name, norms[0].new_zeros(())) for name in names]
    return averaged(names, exact(torch.stack(list(norms))), previous, decay)


def averaged(
    names: tuple[str, ...], norms: Float64[Tensor, " tensors"], previous: GradientAverage | None, decay: float = 0.98
) -> GradientAverage:
    """`gf_ema` for known norms."""
    if previous is None:
        return GradientAverage(names, norms * (1.0 - decay), 1, decay)
    if (previous.names, previous.decay) != (names, decay):
        raise ValueError(
            f"an average of {previous.names} with decay {previous.decay} cannot continue with {names} and {decay}"
        )
    return GradientAverage(names, previous.total.to(norms.device).lerp(norms, 1.0 - decay), previous.steps + 1, decay)
