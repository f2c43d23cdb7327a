"""Masks bound to a model: `mask_grads_` clears gradients before clipping, `apply_` weights after the optimiser step.

Both clear bits instead of multiplying, and turn NaN, infinity and -0.0 into +0.0 too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.model.layout import Hold, clear_grads_
from sparsight.model.masks import check
from sparsight.model.names import modules_of, named
from sparsight.numerics.kernels.clear import clear, clear_plainly_, sums_of_squares
from sparsight.types import Masks

_MEASURED = (torch.float32, torch.float64)  # dtypes of gradients whose norm is computed while masking


@dataclass(frozen=True)
class Norms:
    """Norms of masked gradients."""

    total: float  # of all parameters as one vector
    held: tuple[float | None, ...]  # of each weight with a mask, in order; None without a gradient

    def of_held(self) -> Tensor:
        """The norms of the weights with a mask, in float64; 0 without a gradient."""
        return torch.tensor([norm or 0.0 for norm in self.held], dtype=torch.float64)


class Bound:
    """Masks bound to the parameters of a model, for use in a loop. Made by `bind`.

    Each use first follows the weights: weights that moved in memory or changed their layout or dtype, and parameters
    that were replaced, found by their names.

    Raises: ValueError if a name is gone, or a weight has another shape than its mask.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        check(model, masks)
        self._model = model
        self._find(masks)

    def _find(self, masks: Masks) -> None:
        found = named(self._model)
        lost = [name for name in masks if name not in found]
        if lost:
            raise ValueError(f"the model no longer has a parameter {lost[0]!r}: bind the masks again")
        self.holds = tuple(Hold(name, found[name], mask) for name, mask in masks.items())
        self.parameters = tuple(found.values())  # of the whole model, in order
        mine = {id(hold.weight) for hold in self.holds}
        self.free = tuple(parameter for parameter in self.parameters if id(parameter) not in mine)  # without a mask
        self._links: list[tuple[dict[str, Any], str, Any]] = [  # dictionaries of modules and parameters, and entries
            (owner, key, value)
            for _, module in modules_of(self._model)
            for owner in (module._modules, module._parameters)
            for key, value in owner.items()
        ]
        self._forget()

    def _forget(self) -> None:
        self._of: tuple[Hold, ...] | None = None  # the holds of the next two
        self._rows: list[tuple[int, np.ndarray]] = []
        self._others: list[Hold] = []

    def follow(self) -> None:
        """Follow weights that were replaced or moved."""
        self.find()
        self.lay()

    def find(self) -> bool:
        """Adopt replaced parameters; True if parameters or modules were replaced."""
        for owner, key, value in self._links:
            if owner.get(key) is not value:
                self._find({hold.name: hold.whole for hold in self.holds})
                return True
        return False

    def lay(self) -> None:
        """Lay out again the masks of weights that moved in memory."""
        for hold in self.holds:
            if hold.moved():
                hold.lay()
                self._forget()

    def apply_(self) -> None:
        """Set every pruned weight to +0.0."""
        self.follow()
        self.clear_(self.holds)

    def clear_(self, holds: tuple[Hold, ...]) -> bool:
        """Set the pruned weights of `holds` to +0.0; returns whether the kernel found one that was not.

        The weights must not have moved since the last `follow` or `lay`.
        """
        if holds is not self._of:  # the kernel's work, kept for the next call with the same tuple
            by_width: dict[int, list[np.ndarray]] = {}
            for hold in holds:
                if hold.rows is not None:
                    by_width.setdefault(hold.values.element_size(), []).append(hold.rows)
            self._of, self._others = holds, [hold for hold in holds if hold.rows is None]
            self._rows = [(width, np.concatenate(rows)[::-1].copy()) for width, rows in by_width.items()]
        found = False
        for width, rows in self._rows:
            found |= clear(rows, width)
        for hold in self._others:
            clear_plainly_(hold.values, hold.mask)
        return found

    def mask_grads_(self) -> None:
        """Set the gradient of every pruned weight to +0.0; skips weights without a gradient."""
        self.follow()
        clear_grads_(self.holds)

    def check(self) -> None:
        """Check in tensor code, without the kernel, that pruned weights are +0.0 and that clearing spares kept ones.

        Raises: ValueError, RuntimeError.
        """
        self.follow()
        for hold in self.holds:
            hold.check()
            hold.verify()

    def mask_and_measure_grads_(self) -> Norms | None:
        """`mask_grads_`, and the norms of the gradients (in float64), in one pass over memory.

        Does nothing and returns None unless all gradients are dense, float32 or all float64, on the CPU, and have the
        layout of the masks.
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
            strided = type(grad) is Tensor and grad.layout is torch.strided and grad.is_contiguous()
            if not strided or not grad.is_cpu or grad.dtype not in _MEASURED:
                return None
            kinds.add(grad.dtype)
            places.append((grad.data_ptr(), 0, grad.numel()))
        if len(kinds) > 1:
            return None
        squares = sums_of_squares(places, kinds.pop().itemsize if kinds else 4)
        own = tuple(None if at is None else math.sqrt(squares[at]) for at in held)
        return Norms(math.sqrt(sum(squares)), own)


def bind(model: nn.Module, masks: Masks) -> Bound:
    """Check the masks and lay them out like the weights."""
    return Bound(model, masks)


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set every pruned weight of the model to +0.0. In a loop, use `bind` or `held`."""
    bind(model, masks).apply_()


def mask_grads_(model: nn.Module, masks: Masks) -> None:
    """Set the gradient of every pruned weight to +0.0; call it before clipping. In a loop, use `bind` or `held`."""
    bind(model, masks).mask_grads_()
