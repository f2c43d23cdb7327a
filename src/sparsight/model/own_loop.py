"""Holds masks in a user's own training loop, with hooks on gradients and optimisers for the duration of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.model.hold import bind
from sparsight.model.layout import Hold, clear_grads_
from sparsight.model.stepping import Changed, clear_state_, elementwise, family, given, keeps_zeros, on_step, stepped
from sparsight.types import Masks

_EAGER: Any = torch.compiler.disable  # keeps torch.compile away if it compiles a step
OnGradients = Callable[[nn.Module], None]


@contextmanager
def held(
    model: nn.Module,
    masks: Masks,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    copies: Sequence[nn.Module] = (),
    on_gradients: OnGradients | None = None,
) -> Iterator[Holding]:
    """Hold the masks in your own training loop, with hooks that are removed at the end.

    Gradients are masked as they accumulate, and again before a step if they may have changed. Pruned weights, also
    those of `copies` (such as an EMA of the model), are +0.0 at entry, after every step and at the end. Optimiser
    states of pruned weights are cleared at entry. Works with any optimiser, including closures (LBFGS), gradient
    scalers, and optimisers that wrap others (Lookahead, SAM): pass the outermost one.

    Inside the block, weights may be frozen, unfrozen, moved, cast or change their memory format. A replaced parameter
    is held under its name from the next step on, if an optimiser steps it. Independent checks at entry and at the end
    verify that pruned weights are +0.0 and that clearing spares kept ones.

    The block gets a `Holding`: its `update(masks)` changes the masks, for gradual pruning.

    `on_gradients(model)` is called before each step, and after each closure, with dense gradients in `.grad`, which are
    masked only afterwards: a clip before the step then sees dense gradients.

    Raises: TypeError for anything but an optimiser; ValueError if no optimiser trains a masked weight, or if a weight
    has lost its name or shape.
    """
    holding = Holding(model, masks, given(optimizer), copies, on_gradients)
    with holding._hooks:
        try:
            holding._begin()
            yield holding
        except BaseException:
            with suppress(Exception):  # the loop's own error matters more
                holding._clear()
            raise
    holding._clear()
    holding._check()


class Holding:
    """The masks held in a block of `held`. Made by it."""

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        optimizers: list[Any],
        copies: Sequence[nn.Module],
        on_gradients: OnGradients | None,
    ) -> None:
        self._model, self._optimizers, self._on_gradients = model, optimizers, on_gradients
        self._steppers = list({id(x): x for optimizer in optimizers for x in family(optimizer)}.values())
        self._bound, self._copies = bind(model, masks), [bind(copy, masks) for copy in copies]
        self._copied = copies
        self._hooks = ExitStack()
        self._accumulations = ExitStack()  # hooks on gradients, which end with a replaced parameter
        # If each weight's step depends only on that weight, a gradient written behind torch's back (through `.data`)
        # affects only pruned weights. These are found after the step, and gradients are no longer trusted.
        self._elementwise = all(map(elementwise, optimizers))
        self._trusting = self._elementwise and on_gradients is None
        self._dividing = self._elementwise and not all(map(keeps_zeros, optimizers))  # 0 / 0 may spoil their states
        self._masked: dict[Hold, tuple[Tensor, int]] = {}  # masked gradients, with torch's count of writes
        self._active: tuple[Hold, ...] = ()  # holds of weights that a step may change
        self._select()

    @property
    def masks(self) -> dict[str, Tensor]:
        """Copies of the current masks."""
        return {name: mask.clone() for name, mask in self._masks.items()}

    @property
    def _masks(self) -> dict[str, Tensor]:
        return {hold.name: hold.whole for hold in self._bound.holds}

    def _begin(self) -> None:
        """Clear weights and optimiser states, check, and add hooks."""
        self._clear()
        self._forget()
        self._check()
        self._hooks.callback(lambda: self._accumulations.close())
        self._watch()
        for stepper in self._steppers:
            for undo in on_step(stepper, _EAGER(self._before), _EAGER(self._after)):
                self._hooks.callback(undo)

    def update(self, masks: Masks) -> None:
        """Hold these masks from now on; call it between two steps.

        Newly pruned weights become +0.0 at once, also in copies and optimiser states. Restored weights start at +0.0.
        Raises: as `held`, and keeps the previous masks.
        """
        before = self._bound, self._copies, self._active
        try:
            self._bound, self._copies = bind(self._model, masks), [bind(copy, masks) for copy in self._copied]
            self._select()
        except BaseException:
            self._bound, self._copies, self._active = before
            raise
        self._masked.clear()
        self._clear()
        self._forget()
        self._watch()
        self._check()

    def _select(self) -> None:
        """Find the weights that a step may change. Raises: ValueError if no optimiser trains one of them."""
        mine = stepped(self._steppers)
        active = tuple([hold for hold in self._bound.holds if id(hold.weight) in mine])
        if len(active) < len(self._bound.holds):
            lost = [hold.name for hold in self._bound.holds if hold.weight.requires_grad and hold not in active]
            if lost:
                kinds = ", ".join(type(each).__name__ for each in self._optimizers) or "none"
                names = ", ".join(map(repr, lost[:4])) + (", …" if len(lost) > 4 else "")
                count = f"{len(lost)} of the {len(self._bound.holds)} masked weights"
                raise ValueError(
                    f"no given optimizer ({kinds}) trains {count}, {names}: pass every optimizer of the loop, made for "
                    "this model's parameters, or freeze these weights with requires_grad_(False)"
                )
        if active != self._active:
            self._active = active

    def _watch(self) -> None:
        """Mask gradients as they accumulate, also of frozen weights, which may be unfrozen later."""
        self._accumulations.close()
        for hold in self._bound.holds if self._on_gradients is None else ():
            self._accumulations.callback(_on_accumulation(hold, self._masked))

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Before a step: mask gradients that may have been written since they accumulated."""
        if self._bound.find():
            self._watch()
        self._select()
        if self._on_gradients is not None and len(family(optimizer)) == 1:  # the innermost optimiser
            closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
            if closure is not None:
                shown = self._showing(closure, self._on_gradients)
                return (args, {**kwargs, "closure": shown}) if "closure" in kwargs else ((optimizer, shown), kwargs)
            self._on_gradients(self._model)
        written = [hold for hold in self._active if self._written(hold)] if self._trusting else self._active
        if written:
            clear_grads_(written)
        return None

    def _showing(self, closure: Callable[[], Any], on_gradients: OnGradients) -> Callable[[], Any]:
        """The closure, followed by `on_gradients` and masking."""

        def shown() -> Any:
            loss = closure()
            on_gradients(self._model)
            clear_grads_(self._active)
            return loss

        return shown

    def _written(self, hold: Hold) -> bool:
        """Whether the gradient may have changed since it was masked."""
        grad, seen = hold.weight.grad, self._masked.get(hold)
        if seen is None or hold.rows is None or not hold.plain:  # only the kernel reports weights that moved
            return True
        return grad is not seen[0] or seen[0]._version != seen[1]

    def _after(self, *_: Any) -> None:
        """After a step: clear the weights, and optimiser states if a pruned weight had changed."""
        self._masked.clear()
        self._bound.lay()
        moved = self._bound.clear_(self._active)
        if (moved and self._elementwise) or self._dividing:
            self._trusting = False
            self._forget()
        for copy in self._copies:
            copy.apply_()

    def _forget(self) -> None:
        """Clear the optimiser states of pruned weights."""
        for optimizer in self._optimizers:
            clear_state_(self._model, self._masks, optimizer)

    def _clear(self) -> None:
        """Clear all pruned weights, including frozen ones and copies."""
        for bound in (self._bound, *self._copies):
            bound.apply_()

    def _check(self) -> None:
        for bound in (self._bound, *self._copies):
            bound.check()


def _on_accumulation(hold: Hold, masked: dict[Hold, tuple[Tensor, int]]) -> Callable[[], None]:
    """Mask the gradient as it accumulates; returns the undo function. Briefly unfreezes a frozen weight."""
    if not hold.weight.is_floating_point():
        return lambda: None

    def mask_grad(weight: Tensor) -> None:
        clear_grads_([hold])
        if (grad := hold.weight.grad) is not None:
            masked[hold] = grad, grad._version

    thawed = hold.weight.requires_grad
    hold.weight.requires_grad_(True)
    try:
        return hold.weight.register_post_accumulate_grad_hook(_EAGER(mask_grad)).remove
    finally:
        hold.weight.requires_grad_(thawed)
