"""Holding masks through training: gradients cleared before clipping, weights after the optimiser step.

Two operations do it: `mask_grads_` before clipping, so that pruned weights do not count in the norm and momentum stays
clean, and `apply_` after the optimiser step, so that a pruned weight *is* +0.0. Both clear bits instead of
multiplying: NaN, infinity and -0.0 become +0.0 too, at the price of a multiplication or less. The module itself is
never altered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from sparsight.kernels.clear import Job, clear, clear_where_needed, run, sums_of_squares
from sparsight.masks import BITS, check, named
from sparsight.types import Masks

_MEASURED = (torch.float32, torch.float64)  # types of gradients whose norm is taken as they are masked


@dataclass(eq=False)
class _Hold:
    """One weight and its mask, in the form that clears it fastest."""

    weight: nn.Parameter
    mask: Tensor
    flat: np.ndarray | None  # on the CPU: the mask's bytes in the weight's memory order
    address: int = 0  # where the weight lay when `bits` was made
    bits: np.ndarray | None = None

    def weight_job(self) -> Job | None:
        """The kernel's work on the weight, made again only where its memory has moved."""
        if self.bits is None or self.flat is None or self.weight.data_ptr() != self.address:
            job = self.job(self.weight.detach())
            self.address, self.bits = self.weight.data_ptr(), None if job is None else job[0]
            return job
        return self.bits, self.flat

    def along(self, x: Tensor) -> Tensor | None:
        """`x` (the weight or its gradient) as one run of memory in the mask's order; None where it lies otherwise."""
        if self.flat is None:
            return None
        if x.is_contiguous() and self.weight.is_contiguous():
            return x.view(-1)
        return x.as_strided((x.numel(),), (1,), x.storage_offset()) if _same_order(x, self.weight) else None

    def job(self, x: Tensor) -> Job | None:
        """The kernel's work on `x`; None if it was done here, by other means."""
        integer, run = BITS[x.element_size()], self.along(x)
        if run is not None and self.flat is not None:
            return run.view(integer).numpy(), self.flat
        x.view(integer).bitwise_and_(self.mask.to(integer).neg_())
        return None


@dataclass(frozen=True)
class Norms:
    """Norms of masked gradients."""

    total: float  # of all parameters as one vector
    held: tuple[float | None, ...]  # of each weight with a mask, in their order; None of one without a gradient

    def of_held(self) -> Tensor:
        """Those of the weights with a mask, in float64; 0 where there is no gradient."""
        return torch.tensor([norm or 0.0 for norm in self.held], dtype=torch.float64)


@dataclass(frozen=True)
class Bound:
    """Masks bound to the parameters of one model: the fast form for a loop.

    Valid as long as the parameters are the same objects; writing their values in place, as optimisers and
    `load_state_dict` do, is fine.
    """

    holds: tuple[_Hold, ...]
    parameters: tuple[nn.Parameter, ...]  # all of the model, in its order

    @cached_property
    def free(self) -> tuple[nn.Parameter, ...]:
        """Those without a mask."""
        mine = {id(hold.weight) for hold in self.holds}
        return tuple(parameter for parameter in self.parameters if id(parameter) not in mine)

    def apply_(self) -> None:
        """Set every pruned weight to +0.0."""
        run(clear_where_needed, [job for hold in self.holds if (job := hold.weight_job())])

    def mask_grads_(self) -> None:
        """Set the gradient of every pruned weight to +0.0. Weights without a gradient are passed over."""
        grads = [(hold, hold.weight.grad) for hold in self.holds]
        run(clear, [job for hold, grad in grads if grad is not None and (job := hold.job(grad))])

    def mask_and_measure_grads_(self) -> Norms | None:
        """The same, and the norms of the gradients, in one pass over memory.

        Squares are summed in float64. None, and nothing is done, unless all gradients are dense float32 or all
        float64, on the CPU, and lie in memory as the masks do.
        """
        kinds, places, held = set(), [], []
        for hold in self.holds:
            grad = hold.weight.grad
            held.append(None if grad is None else len(places))
            if grad is None:
                continue
            if hold.flat is None or not _plain(grad) or not _same_order(grad, hold.mask):
                return None
            kinds.add(grad.dtype)
            places.append((grad.data_ptr(), hold.mask.data_ptr(), grad.numel()))
        for parameter in self.free:
            grad = parameter.grad
            if grad is None:
                continue
            if not _plain(grad) or not grad.is_contiguous():
                return None
            kinds.add(grad.dtype)
            places.append((grad.data_ptr(), 0, grad.numel()))
        if len(kinds) > 1:
            return None
        squares = sums_of_squares(places, kinds.pop().itemsize if kinds else 4)
        own = tuple(None if at is None else math.sqrt(squares[at]) for at in held)
        return Norms(math.sqrt(sum(squares)), own)


def _plain(grad: Tensor) -> bool:
    """Whether it is memory of this process, of a type whose squares are summed here."""
    strided = type(grad) is Tensor and grad.layout is torch.strided
    return strided and grad.device.type == "cpu" and grad.dtype in _MEASURED


def bind(model: nn.Module, masks: Masks) -> Bound:
    """Check the masks and lay them out like the weights."""
    check(model, masks)
    parameters = named(model)
    holds = tuple(_hold(parameters[name], mask) for name, mask in masks.items())
    return Bound(holds, tuple(parameters.values()))


def _hold(weight: nn.Parameter, mask: Tensor) -> _Hold:
    mask = torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(mask)
    flat = None
    if weight.device.type == "cpu" and _same_order(weight, mask) and weight.numel():
        flat = mask.as_strided((mask.numel(),), (1,), mask.storage_offset()).view(torch.uint8).numpy()
    return _Hold(weight, mask, flat)


def _same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory alike. (The stride of a dimension of size 1 says nothing.)"""
    here, there = a.stride(), b.stride()
    return here == there or all(n == 1 or s == t for n, s, t in zip(a.shape, here, there, strict=True))


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set every pruned weight of the model to exactly +0.0, whatever it was. In a loop, use `bind` or `held`."""
    bind(model, masks).apply_()


def mask_grads_(model: nn.Module, masks: Masks) -> None:
    """Set the gradient of every pruned weight to +0.0; call it before clipping. In a loop, use `bind` or `held`."""
    bind(model, masks).mask_grads_()


@contextmanager
def held(
    model: nn.Module,
    masks: Masks,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    copies: Sequence[nn.Module] = (),
    on_gradients: Callable[[nn.Module], None] | None = None,
) -> Iterator[None]:
    """Hold the masks in a training loop that is not ours; hooks do the work and are gone at the end.

    Gradients are masked as they are accumulated, so a clip in the loop sees masked ones, and again before every
    step; weights, and those of `copies` (an EMA of the model, say), are +0.0 at entry, after every step and at
    the end. What the optimiser remembers of pruned weights is cleared at entry. Works with any optimiser, closures
    (LBFGS) and gradient scalers included.

    `on_gradients(model)` is called before each step with the dense gradients in `.grad`; they are then masked
    only after it, so that a clip before the step sees dense ones.
    """
    bound = [bind(each, masks) for each in (model, *copies)]
    steppers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)

    def before(*_: object) -> None:
        if on_gradients is not None:
            on_gradients(model)
        bound[0].mask_grads_()

    def after(*_: object) -> None:
        for each in bound:
            each.apply_()

    handles = []
    after()
    for stepper in steppers:
        clear_state_(model, masks, stepper)
    try:
        if on_gradients is None:
            handles += [_masks_on_accumulation(hold) for hold in bound[0].holds]
        for stepper in map(_unwrapped, steppers):
            handles.append(stepper.register_step_pre_hook(before))
            handles.append(stepper.register_step_post_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()
        after()


# Optimisers of torch that move each weight by a product with its own gradient, momentum and moments alone.
_ELEMENTWISE = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.RMSprop,
    optim.Adagrad,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
)


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether a step leaves at +0.0 every weight that is +0.0 with gradient and optimiser state +0.0.

    Then, once `clear_state_` and `mask_grads_` have done their work, `apply_` has nothing to do after the step.
    True for the elementwise optimisers of `torch.optim` themselves (a subclass may do anything), as long as
    learning rate x weight decay stays below 1.
    """
    inner = _unwrapped(optimizer)
    small = all(group["lr"] * group.get("weight_decay", 0.0) < 1 for group in inner.param_groups)
    return type(inner) in _ELEMENTWISE and small


def clear_state_(model: nn.Module, masks: Masks, optimizer: Optimizer) -> None:
    """Set what an optimiser remembers of every pruned weight to +0.0 (momentum, moments: tensors of its shape).

    Left alone, momentum from before pruning decays into denormal numbers, and steps become several times slower.
    """
    parameters = named(model)
    for name, mask in masks.items():
        state: Mapping[Any, Any] = _unwrapped(optimizer).state.get(parameters[name], {})
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.masked_fill_(~mask.to(value.device), 0)


def _masks_on_accumulation(hold: _Hold) -> torch.utils.hooks.RemovableHandle:
    def mask_grad(parameter: Tensor) -> None:
        if parameter.grad is not None and (job := hold.job(parameter.grad)):
            run(clear, [job])

    return hold.weight.register_post_accumulate_grad_hook(mask_grad)


def _unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimiser that really steps: launchers wrap it in one of the same type that has no hooks of its own."""
    inner = getattr(optimizer, "optimizer", None)
    return _unwrapped(inner) if isinstance(inner, Optimizer) else optimizer
