"""Arguments that are refused: numbers out of range, and words that are not among those known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args


def is_number(value: Any) -> bool:
    """Whether it is an int or a float; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_positive(**values: Any) -> None:
    """ValueError, naming it, for what is no finite number > 0."""
    for name, value in values.items():
        if not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"{name} must be a finite number > 0: got {value!r}")


def check_not_negative(**values: Any) -> None:
    """ValueError, naming it, for what is no finite number >= 0."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a finite number >= 0: got {value!r}")


def check_fraction(**values: Any) -> None:
    """ValueError, naming it, for what is no number in [0, 1]."""
    for name, value in values.items():
        if not (is_number(value) and 0 <= value <= 1):
            raise ValueError(f"{name} must be a number in [0, 1]: got {value!r}")


MOST_WHOLE = 10**12
"""More than any run counts: epochs, levels, samples, weights."""

MOST_LISTED = 100_000
"""More than any run lists one by one: rounds of a level, levels of a schedule."""


def check_whole(least: int, most: int = MOST_WHOLE, **values: Any) -> None:
    """ValueError, naming it, for what is no whole number from `least` to `most`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        if value > most:
            raise ValueError(f"{name} must be at most {most:,}, got {value!r}")


MOST_THREADS = 1024


def check_threads(threads: Any) -> None:
    """ValueError for a number of threads that no machine has: torch would try to make them, and end the process."""
    check_whole(1, MOST_THREADS, threads=threads)


def check_seed(seed: Any) -> None:
    """ValueError for a seed that is no whole number in [0, 2^63), which every generator takes."""
    check_whole(0, 2**63 - 1, seed=seed)


def check_known(known: Any, **values: Any) -> None:
    """ValueError, naming it, for a value that is not among those known, a sequence or the type Literal[...] of them."""
    words: Sequence[Any] = get_args(known) or known
    for name, value in values.items():
        if value not in words:
            raise ValueError(f"unknown {name} {value!r}, expected one of {', '.join(map(repr, words))}")


def check_gathered(tensors: Mapping[str, Any]) -> None:
    """TypeError, naming it, for a tensor that is shared out over processes (a DTensor, as FSDP2 makes them)."""
    for name, tensor in tensors.items():
        if hasattr(tensor, "device_mesh"):
            raise TypeError(
                f"{name!r} is shared out over processes (a {type(tensor).__name__}), expected a whole tensor: score "
                "and run the model before fully_shard, or gather it with full_tensor()"
            )
