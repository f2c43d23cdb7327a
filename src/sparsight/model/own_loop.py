"""Holding masks in a training loop that is not ours: hooks on gradients and optimisers, for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.model.hold import bind, clear_grads_
from sparsight.model.layout import Hold
from sparsight.model.stepping import Changed, clear_state_, elementwise, family, given, keeps_zeros, on_step, stepped
from sparsight.types import Masks

_EAGER: Any = torch.compiler.disable  # what torch.compile leaves as it is, where it compiles a step
OnGradients = Callable[[nn.Module], None]


class Holding:
    """Masks that are being held: what the block of `held` is given."""

    def __init__(self, keeper: _Keeper) -> None:
        self._keeper = keeper

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that are held now."""
        return {hold.name: hold.whole for hold in self._keeper.bound.holds}

    def update(self, masks: Masks) -> None:
        """Hold these masks from now on; call it between two steps.

        What they prune becomes +0.0 at once, in copies and in what optimisers remember too. A weight that they bring
        back begins at +0.0. Errors: those of `held`; then the masks before are held as they were.
        """
        self._keeper.update(masks)


@contextmanager
def held(
    model: nn.Module,
    masks: Masks,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    copies: Sequence[nn.Module] = (),
    on_gradients: OnGradients | None = None,
) -> Iterator[Holding]:
    """Hold the masks in a training loop that is not ours; hooks do the work and are gone at the end.

    Gradients are masked as they are accumulated, so a clip in the loop sees masked ones, and again before a step
    wherever they may have been written since; weights, and those of `copies` (an EMA of the model, say), are +0.0 at
    entry, after every step and at the end. What the optimiser remembers of pruned weights is cleared at entry. Works
    with any optimiser, closures (LBFGS) and gradient scalers included, and with optimisers that wrap others (Lookahead,
    SAM): pass the outermost one.

    Inside the block weights may be frozen, unfrozen, moved, cast or laid out in another memory format. A parameter
    that is replaced is held under its name, from the next step on, if one of the optimisers steps it. At entry and at
    the end a check, apart from the code that clears, finds pruned weights at +0.0 and kept ones out of its reach.

    The block is given a `Holding`: `update(masks)` prunes further inside it, as gradual pruning does.

    `on_gradients(model)` is called before each step, and after each closure, with the dense gradients in `.grad`; they
    are then masked only after it, so that a clip before the step sees dense ones.

    Raises: TypeError for what is no optimiser; ValueError if a masked weight would be trained by none of those given,
    or has lost its name or shape.
    """
    keeper = _Keeper(model, masks, given(optimizer), copies, on_gradients)
    with keeper.hooks:
        try:
            keeper.begin()
            yield Holding(keeper)
        except BaseException:
            with suppress(Exception):  # the loop's own error says more
                keeper.clear()
            raise
    keeper.clear()
    keeper.check()


class _Keeper:
    """One block's work. `hooks` closes what it has opened."""

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        optimizers: list[Any],
        copies: Sequence[nn.Module],
        on_gradients: OnGradients | None,
    ) -> None:
        self.model, self.optimizers, self.on_gradients = model, optimizers, on_gradients
        self.steppers = list({id(x): x for optimizer in optimizers for x in family(optimizer)}.values())
        self.bound, self.copies = bind(model, masks), [bind(copy, masks) for copy in copies]
        self.copied = copies
        self.hooks = ExitStack()
        self.accumulations = ExitStack()  # those on gradients, which go with a parameter that is replaced
        # If each weight's step depends on that weight alone, a gradient that was written behind torch's back (through
        # `.data`, say) spoils pruned weights only. They are found after the step, and gradients trusted no longer.
        self.elementwise = all(map(elementwise, optimizers))
        self.trusting = self.elementwise and on_gradients is None
        self.dividing = self.elementwise and not all(map(keeps_zeros, optimizers))  # 0 / 0 may spoil what they remember
        self.masked: dict[Hold, tuple[Tensor, int]] = {}  # gradients as they were masked, with torch's count of writes
        self.active: tuple[Hold, ...] = ()  # whose weights a step may move
        self.select()

    def begin(self) -> None:
        """Clear weights and what optimisers remember, check, and hook in."""
        self.clear()
        self.forget()
        self.check()
        self.hooks.callback(lambda: self.accumulations.close())
        self.watch()
        for stepper in self.steppers:
            for undo in on_step(stepper, _EAGER(self.before), _EAGER(self.after)):
                self.hooks.callback(undo)

    def update(self, masks: Masks) -> None:
        """Exchange the masks."""
        before = self.bound, self.copies, self.active
        try:
            self.bound, self.copies = bind(self.model, masks), [bind(copy, masks) for copy in self.copied]
            self.select()
        except BaseException:
            self.bound, self.copies, self.active = before
            raise
        self.masked.clear()
        self.clear()
        self.forget()
        self.watch()
        self.check()

    def select(self) -> None:
        """Find the weights that a step may move. ValueError if one is trained by no optimiser that was given."""
        mine = stepped(self.steppers)
        active = tuple([hold for hold in self.bound.holds if id(hold.weight) in mine])
        if len(active) < len(self.bound.holds):
            lost = [hold.name for hold in self.bound.holds if hold.weight.requires_grad and hold not in active]
            if lost:
                raise self.unheld(lost)
        if active != self.active:
            self.active = active

    def unheld(self, lost: list[str]) -> ValueError:
        kinds = ", ".join(type(each).__name__ for each in self.optimizers) or "none"
        names = ", ".join(map(repr, lost[:4])) + (", …" if len(lost) > 4 else "")
        count = f"{len(lost)} of the {len(self.bound.holds)} masked weights"
        return ValueError(
            f"no optimizer given ({kinds}) steps {count}, {names}, so they would not be held: "
            "pass every optimizer of the loop, made for the parameters of this model, "
            "or freeze these weights (requires_grad_(False))"
        )

    def watch(self) -> None:
        """Mask gradients as they are accumulated, those of frozen weights too: they may be unfrozen later."""
        self.accumulations.close()
        for hold in self.bound.holds if self.on_gradients is None else ():
            self.accumulations.callback(_on_accumulation(hold, self.masked))

    def before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        """Before a step: mask what gradients may have been written since they were accumulated."""
        if self.bound.find():
            self.watch()
        self.select()
        if self.on_gradients is not None and len(family(optimizer)) == 1:  # the one that really steps
            closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
            if closure is not None:
                shown = self.showing(closure, self.on_gradients)
                return (args, {**kwargs, "closure": shown}) if "closure" in kwargs else ((optimizer, shown), kwargs)
            self.on_gradients(self.model)
        written = [hold for hold in self.active if self.written(hold)] if self.trusting else self.active
        if written:
            clear_grads_(written)
        return None

    def showing(self, closure: Callable[[], Any], on_gradients: OnGradients) -> Callable[[], Any]:
        """The closure, its gradients shown and then masked."""

        def shown() -> Any:
            loss = closure()
            on_gradients(self.model)
            clear_grads_(self.active)
            return loss

        return shown

    def written(self, hold: Hold) -> bool:
        """Whether the gradient may be another than the one that was masked."""
        grad, seen = hold.weight.grad, self.masked.get(hold)
        if seen is None or hold.rows is None or not hold.plain:  # elsewhere it is not known after a step what had moved
            return True
        return grad is not seen[0] or seen[0]._version != seen[1]

    def after(self, *_: Any) -> None:
        """After a step: clear the weights, and what the optimiser remembers if one of them had moved."""
        self.masked.clear()
        self.bound.lay()
        moved = self.bound.clear_(self.active)
        if (moved and self.elementwise) or self.dividing:
            self.trusting = False
            self.forget()
        for copy in self.copies:
            copy.apply_()

    def forget(self) -> None:
        """Clear what the optimisers remember of pruned weights."""
        for optimizer in self.optimizers:
            clear_state_(self.model, {hold.name: hold.whole for hold in self.bound.holds}, optimizer)

    def clear(self) -> None:
        """Clear all weights, the frozen ones and the copies too."""
        for bound in (self.bound, *self.copies):
            bound.apply_()

    def check(self) -> None:
        for bound in (self.bound, *self.copies):
            bound.check()


def _on_accumulation(hold: Hold, masked: dict[Hold, tuple[Tensor, int]]) -> Callable[[], None]:
    """Have the gradient masked as it is accumulated; what undoes it. A frozen weight is thawed for a moment."""
    if not hold.weight.is_floating_point():
        return lambda: None

    def mask_grad(weight: Tensor) -> None:
        grad = hold.clear_grad_()
        if grad is not None:
            masked[hold] = grad, grad._version

    thawed = hold.weight.requires_grad
    hold.weight.requires_grad_(True)
    try:
        return hold.weight.register_post_accumulate_grad_hook(_EAGER(mask_grad)).remove
    finally:
        hold.weight.requires_grad_(thawed)
