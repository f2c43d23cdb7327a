"""The positions of evaluations in the training of a level."""

from __future__ import annotations

import math
from collections.abc import Iterable

Position = tuple[int, int]
"""Whole epochs, and steps of the current one; (2, 0) is the end of the second epoch."""

_FUZZ = 1e-9


def next_point(here: Position, every: float, length: int | None, stops: Iterable[int] = ()) -> Position:
    """The first evaluation point after `here`: a multiple of `every` epochs, or an epoch of `stops` before it.

    A multiple inside an epoch of `length` steps falls on the first step that reaches it: with more points than steps,
    each step is one. Raises: ValueError for a point inside an epoch of unknown length.
    """
    epoch, step = here
    at = epoch + (step / length if step and length else 0.0)
    k = math.floor(at / every + _FUZZ) + 1
    while (point := _position(k * every, length)) <= here:
        k += 1
    return min([point, *((stop, 0) for stop in stops if (stop, 0) > here)])


def _position(epochs: float, length: int | None) -> Position:
    whole = math.floor(epochs + _FUZZ)
    share = epochs - whole
    if share <= _FUZZ:
        return whole, 0
    if length is None:
        raise ValueError(
            f"cannot evaluate after {epochs:g} epochs: evaluate_every must be whole epochs if the training split has "
            "no length"
        )
    step = math.ceil(share * length - _FUZZ * length)
    return (whole, step) if step < length else (whole + 1, 0)
