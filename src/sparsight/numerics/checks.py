"""Checks of arguments: numbers in a range, and words from a list. Each names the argument and its value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, get_args


def is_number(value: Any) -> bool:
    """Whether the value is an int or a float, but not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_positive(**values: Any) -> None:
    """Raise ValueError for anything but a finite number > 0."""
    for name, value in values.items():
        if not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"{name} must be finite and greater than 0, got {value!r}")


def check_not_negative(**values: Any) -> None:
    """Raise ValueError for anything but a finite number >= 0."""
    for name, value in values.items():
        if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
            raise ValueError(f"{name} must be finite and at least 0, got {value!r}")


def check_fraction(**values: Any) -> None:
    """Raise ValueError for anything but a number in [0, 1]."""
    for name, value in values.items():
        if not (is_number(value) and 0 <= value <= 1):
            raise ValueError(f"{name} must be in [0, 1], got {value!r}")


MOST_WHOLE = 10**12
"""Upper limit of counts such as epochs, samples and weights."""

MOST_LISTED = 100_000
"""Upper limit of lists, such as the rounds of a level."""


def check_whole(least: int, most: int = MOST_WHOLE, **values: Any) -> None:
    """Raise ValueError for anything but a whole number from `least` to `most`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
        if value > most:
            raise ValueError(f"{name} must be at most {most:,}, got {value!r}")


MOST_THREADS = 1024


def check_threads(threads: Any) -> None:
    """Raise ValueError for a number of threads at which torch would abort the process."""
    check_whole(1, MOST_THREADS, threads=threads)


def check_seed(seed: Any) -> None:
    """Raise ValueError for anything but a whole number in [0, 2^63), which every generator accepts."""
    check_whole(0, 2**63 - 1, seed=seed)


def check_known(known: Any, **values: Any) -> None:
    """Raise ValueError for a value that is not in `known`, a sequence or a Literal[...] type."""
    words: Sequence[Any] = get_args(known) or known
    for name, value in values.items():
        if value not in words:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, words))}, got {value!r}")


def check_gathered(tensors: Mapping[str, Any]) -> None:
    """Raise TypeError for a sharded tensor (a DTensor, for example from FSDP2)."""
    for name, tensor in tensors.items():
        if hasattr(tensor, "device_mesh"):
            raise TypeError(
                f"{name!r} is sharded over processes (a {type(tensor).__name__}): use the model before fully_shard, or "
                "gather the tensor with full_tensor()"
            )
