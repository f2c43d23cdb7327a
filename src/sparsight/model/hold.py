"""Masks bound to a model: gradients cleared before clipping, weights after the optimiser step.

Two operations do it: `mask_grads_` before clipping, so that pruned weights do not count in the norm and momentum stays
clean, and `apply_` after the optimiser step, so that a pruned weight *is* +0.0. Both clear bits instead of
multiplying: NaN, infinity and -0.0 become +0.0 too, at the price of a multiplication or less. The module itself is
never altered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.model.layout import Hold
from sparsight.model.masks import check
from sparsight.model.names import modules_of, named
from sparsight.numerics.kernels.clear import Place, clear, clear_plainly_, sums_of_squares, table
from sparsight.types import Masks

_MEASURED = (torch.float32, torch.float64)  # types of gradients whose norm is taken as they are masked


@dataclass(frozen=True)
class Norms:
    """Norms of masked gradients."""

    total: float  # of all parameters as one vector
    held: tuple[float | None, ...]  # of each weight with a mask, in their order; None of one without a gradient

    def of_held(self) -> Tensor:
        """Those of the weights with a mask, in float64; 0 where there is no gradient."""
        return torch.tensor([norm or 0.0 for norm in self.held], dtype=torch.float64)


class Bound:
    """Masks bound to the parameters of one model: the fast form for a loop. Make it with `bind`.

    Each use looks first what has become of the weights. Those that have moved in memory, or lie there in another order
    or type, are laid out again; parameters that were replaced are found by their names.

    Raises: ValueError where a name is gone, or its weight has another shape than the mask.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        check(model, masks)
        self._model = model
        self._find(masks)

    def _find(self, masks: Masks) -> None:
        found = named(self._model)
        lost = [name for name in masks if name not in found]
        if lost:
            raise ValueError(f"the model no longer has a parameter {lost[0]!r}: bind masks to the model as it is now")
        self.holds = tuple(Hold(name, found[name], mask) for name, mask in masks.items())
        self.parameters = tuple(found.values())  # all of the model, in its order
        self._links: list[tuple[dict[str, Any], str, Any]] = [  # where modules and parameters hang, and which
            (owner, key, value)
            for _, module in modules_of(self._model)
            for owner in (module._modules, module._parameters)
            for key, value in owner.items()
        ]
        self._forget()

    def _forget(self) -> None:
        self._of: tuple[Hold, ...] | None = None  # whose work the next two are
        self._rows: list[tuple[int, np.ndarray]] = []
        self._others: list[Hold] = []
        self.__dict__.pop("free", None)

    @cached_property
    def free(self) -> tuple[nn.Parameter, ...]:
        """Those without a mask."""
        mine = {id(hold.weight) for hold in self.holds}
        return tuple(parameter for parameter in self.parameters if id(parameter) not in mine)

    def follow(self) -> None:
        """Look what has become of the weights."""
        self.find()
        self.lay()

    def find(self) -> bool:
        """Take over parameters that were replaced; True if the model has other parameters or modules than before."""
        for owner, key, value in self._links:
            if owner.get(key) is not value:
                self._find({hold.name: hold.whole for hold in self.holds})
                return True
        return False

    def lay(self) -> None:
        """Lay masks out anew whose weights have moved in memory."""
        for hold in self.holds:
            if hold.moved():
                hold.lay()
                self._forget()

    def apply_(self) -> None:
        """Set every pruned weight to +0.0."""
        self.follow()
        self.clear_(self.holds)

    def clear_(self, holds: tuple[Hold, ...]) -> bool:
        """Set the pruned weights of some of `holds` to +0.0; whether the kernel found one that was not.

        Their weights must lie where they lay at the last `follow` or `lay`.
        """
        found = False
        for width, rows in self._work(holds):
            found |= clear(rows, width)
        for hold in self._others:
            clear_plainly_(hold.values, hold.mask)
        return found

    def _work(self, holds: tuple[Hold, ...]) -> list[tuple[int, np.ndarray]]:
        """The kernel's work on weights, by their width in bytes; kept for the next call with the same tuple."""
        if holds is not self._of:
            by_width: dict[int, list[np.ndarray]] = {}
            for hold in holds:
                if hold.rows is not None:
                    by_width.setdefault(hold.values.element_size(), []).append(hold.rows)
            self._of, self._others = holds, [hold for hold in holds if hold.rows is None]
            self._rows = [(width, np.concatenate(rows)[::-1].copy()) for width, rows in by_width.items()]
        return self._rows

    def mask_grads_(self) -> None:
        """Set the gradient of every pruned weight to +0.0. Weights without a gradient are passed over."""
        self.follow()
        clear_grads_(self.holds)

    def check(self) -> None:
        """Look whether pruned weights are +0.0, and whether clearing them leaves all kept ones as they are.

        Both are found out in tensor code, apart from the kernel. Raises: ValueError, RuntimeError.
        """
        self.follow()
        for hold in self.holds:
            hold.check()
            hold.verify()

    def mask_and_measure_grads_(self) -> Norms | None:
        """The same, and the norms of the gradients, in one pass over memory.

        Squares are summed in float64. None, and nothing is done, unless all gradients are dense float32 or all
        float64, on the CPU, and lie in memory as the masks do.
        """
        self.follow()
        kinds, places, held = set(), [], []
        for hold in self.holds:
            grad = hold.weight.grad
            held.append(None if grad is None else len(places))
            if grad is None:
                continue
            place = hold.place_of(grad) if grad.dtype in _MEASURED else None
            if place is None:
                return None
            kinds.add(grad.dtype)
            places.append(place)
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


def clear_grads_(holds: Iterable[Hold]) -> None:
    """Set the gradients of the pruned weights of some of a model's holds to +0.0."""
    places: dict[int, list[Place]] = {}
    for hold in holds:
        grad = hold.weight.grad
        place = None if grad is None else hold.place_of(grad)
        if grad is not None and place is not None:
            places.setdefault(grad.element_size(), []).append(place)
        else:
            hold.clear_grad_()
    for width, those in places.items():
        clear(table(those, width), width, everything=True)


def bind(model: nn.Module, masks: Masks) -> Bound:
    """Check the masks and lay them out like the weights."""
    return Bound(model, masks)


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set every pruned weight of the model to exactly +0.0, whatever it was. In a loop, use `bind` or `held`."""
    bind(model, masks).apply_()


def mask_grads_(model: nn.Module, masks: Masks) -> None:
    """Set the gradient of every pruned weight to +0.0; call it before clipping. In a loop, use `bind` or `held`."""
    bind(model, masks).mask_grads_()
