"""Facts about optimisers for holding masks: which weights they step, their states, and hooks on their steps."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from sparsight.model.masks import local, share
from sparsight.model.names import named
from sparsight.types import Masks

# Optimisers of torch that update each weight from its own value, gradient and state alone.
_ELEMENTWISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Adamax)


def elementwise(optimizer: Optimizer) -> bool:
    """Whether a weight's step depends only on that weight, its gradient and its state.

    True for most optimisers of `torch.optim`, but not for subclasses, wrappers, or optimisers with hooks after the
    step.
    """
    return type(optimizer) in _ELEMENTWISE and not _altered(optimizer) and not optimizer._optimizer_step_post_hooks


def _altered(optimizer: Any) -> bool:
    """Whether the object has its own `step`, other than that of a learning-rate schedule."""
    own = getattr(optimizer, "__dict__", {}).get("step")
    return own is not None and not hasattr(own, "_wrapped_by_lr_sched")


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether a step keeps a weight of +0.0, with gradient and state +0.0, at +0.0.

    Then, after `clear_state_` and `mask_grads_`, `apply_` has nothing to do after the step. True for `elementwise`
    optimisers if learning rate x weight decay is below 1 (otherwise a step gives -0.0), and `eps` is not 0 in the
    weights' precision (otherwise it gives NaN: 0 / 0).
    """
    if not elementwise(optimizer):
        return False
    for group in optimizer.param_groups:
        least = float(group.get("eps", 1.0))
        divides = all(torch.tensor(least, dtype=kind) > 0 for kind in {p.dtype for p in group["params"]})
        if not divides or group["lr"] * group.get("weight_decay", 0.0) >= 1:
            return False
    return True


def clear_state_(model: nn.Module, masks: Masks, optimizer: Optimizer) -> None:
    """Set the optimiser states of every pruned weight (momentum, moments: tensors of its shape) to +0.0.

    Includes wrapped optimisers. Otherwise momentum from before pruning would decay into denormal numbers, which make
    steps several times slower.
    """
    parameters = named(model)
    for each in family(optimizer):
        states = getattr(each, "state", {})
        for name, mask in masks.items():
            state = states.get(parameters[name]) if isinstance(states, Mapping) else None
            for value in state.values() if isinstance(state, Mapping) else ():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    local(value).masked_fill_(~share(mask, value), 0)


def given(optimizer: Any) -> list[Any]:
    """The optimisers as a list. Raises: TypeError for anything but optimisers."""
    single = callable(getattr(optimizer, "step", None)) or not isinstance(optimizer, Iterable)
    steppers = [optimizer] if single else list(optimizer)
    for each in steppers:
        wraps = callable(getattr(each, "step", None)) and not isinstance(each, LRScheduler) and len(family(each)) > 1
        if not _steps(each) and not wraps:
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, an object with a `step` that wraps one, or a list of "
                f"these, got {type(each).__name__}"
            )
    return steppers


def family(optimizer: Any) -> list[Any]:
    """The optimiser and those it wraps (Lookahead, SAM, accelerate, …), outermost first."""
    found = [optimizer]
    for each in found:
        for value in getattr(each, "__dict__", {}).values():
            inside = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            found += [x for x in inside if _steps(x) and not any(x is other for other in found)]
    return found


def _steps(x: Any) -> bool:
    """Whether `x` is an optimiser, or behaves like one."""
    if isinstance(x, LRScheduler | type):
        return False
    return isinstance(x, Optimizer) or (callable(getattr(x, "step", None)) and hasattr(x, "param_groups"))


def stepped(optimizers: Iterable[Any]) -> set[int]:
    """The identities of the parameters that the optimisers step."""
    return {
        id(parameter)
        for optimizer in optimizers
        for group in getattr(optimizer, "param_groups", ())
        for parameter in group["params"]
    }


Changed = tuple[tuple[Any, ...], dict[str, Any]] | None
"""Changed arguments and keyword arguments of a step; None: unchanged."""

Before = Callable[[Any, tuple[Any, ...], dict[str, Any]], Changed]
"""Called with the optimiser, the arguments of its step (first itself, as in torch) and the keyword arguments."""


def on_step(optimizer: Any, before: Before, after: Callable[..., None]) -> Iterator[Callable[[], None]]:
    """Call functions around every step of an optimiser; yields undo functions.

    Uses hooks, or replaces `step` if it does not run hooks (wrappers that skip `Optimizer.__init__`, or objects with
    their own `step`).
    """
    hooked = hasattr(optimizer, "_optimizer_step_post_hooks") and getattr(type(optimizer).step, "hooked", False)
    if hooked:
        yield optimizer.register_step_pre_hook(before).remove
        yield optimizer.register_step_post_hook(after).remove
    if not hooked or _altered(optimizer):
        yield _replace_step(optimizer, before, after)


def _replace_step(optimizer: Any, before: Before, after: Callable[..., None]) -> Callable[[], None]:
    theirs, own, on = optimizer.step, "step" in vars(optimizer), True

    @functools.wraps(theirs)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not on:
            return theirs(*args, **kwargs)
        args, kwargs = before(self, (self, *args), kwargs) or ((self, *args), kwargs)
        result = theirs(*args[1:], **kwargs)
        after(self, args, kwargs)
        return result

    ours = types.MethodType(step, optimizer)

    def undo() -> None:
        nonlocal on
        on = False
        if vars(optimizer).get("step") is ours:
            if own:
                optimizer.step = theirs
            else:
                del optimizer.step

    try:
        optimizer.step = ours
    except AttributeError as error:
        raise TypeError(
            f"cannot hold masks through {type(optimizer).__name__}, which runs no hooks and has a `step` that cannot "
            "be replaced: pass the optimizer that it wraps"
        ) from error
    return undo
