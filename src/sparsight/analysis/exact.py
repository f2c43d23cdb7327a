"""Gini index and exact eta from all magnitudes in ascending order, in as many passes as the memory requires."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsight.analysis.reader import magnitudes, source_of
from sparsight.checkpoint.entry import Entry

_STEP = 1 << 18  # weights looked at at once


def ranked(entries: Sequence[Entry], budget: int) -> Iterator[np.ndarray]:
    """All magnitudes of the entries above 0 in ascending order, in parts that are overwritten later.

    In every pass over the entries the smallest that fit half of the budget, and are above those before, are kept.
    """
    dtype = np.dtype(np.float64 if any(e.dtype == "float64" for e in entries) else np.float32)
    room = np.empty(max(min(budget // 2 // dtype.itemsize, sum(e.count for e in entries)), 1), dtype)
    done = 0.0
    while done < math.inf:
        size, end, ties = 0, math.inf, 0  # kept are room[:size], which are below `end`; and how many equal it
        for x in _magnitudes(entries):
            x = x[x > done]
            while len(x):
                ties += int(np.count_nonzero(x == end))
                x = x[x < end]
                n = min(len(x), len(room) - size)
                room[size : size + n], x, size = x[:n], x[n:], size + n
                if len(x):  # half of what is kept has to go
                    room.partition(size // 2)
                    end = float(room[size // 2])
                    ties = int(np.count_nonzero(room == end))
                    below = room[: size // 2][room[: size // 2] < end]
                    size = len(below)
                    room[:size] = below
        room[:size].sort()
        yield from (room[at : min(at + _STEP, size)] for at in range(0, size, _STEP))
        yield from (np.full(min(ties - at, _STEP), end, dtype) for at in range(0, ties, _STEP))
        done = end


def _magnitudes(entries: Sequence[Entry]) -> Iterator[np.ndarray]:
    for entry in entries:
        with ExitStack() as stack:
            files: dict[Path, int] = {}
            source = source_of(entry, files, stack)
            for at in range(0, entry.count, _STEP):
                yield magnitudes(source.read(at, min(at + _STEP, entry.count)), entry.dtype)


def of_ranked(
    parts: Iterable[np.ndarray], count: int, mass: float, unit: float, goals: Sequence[tuple[float, float]]
) -> tuple[float, list[int], tuple[tuple[int, int], ...]]:
    """Of all magnitudes above 0, ascending in parts: Gini index, how many of the smallest hold each goal, octaves.

    There are `count`, which sum to `mass` in `unit`. A goal (p, m) is that they hold at most m of p-mass.
    """
    seen, terms, found = 0, [], Counter()
    sums, droppable = [0.0] * len(goals), [0] * len(goals)
    for part in parts:
        x = part.astype(np.float64) / unit
        ranks = np.arange(seen + 1, seen + len(x) + 1, dtype=np.float64)
        terms.append(float(np.dot(2 * ranks - (count + 1), x)))
        for i, (p, goal) in enumerate(goals):
            if droppable[i] == seen:  # all so far
                held = sums[i] + np.cumsum(x**p)
                droppable[i] += int(np.searchsorted(held, goal, side="right"))
                sums[i] = float(held[-1])
        seen += len(x)
        found.update(octaves(part))
    gini = min(max(math.fsum(terms) / (count * mass), 0.0), 1.0) if mass > 0 else 0.0
    return gini, droppable, tuple(sorted(found.items()))


def octaves(x: np.ndarray) -> dict[int, int]:
    """How many of these magnitudes, which ascend, are in each [2^e, 2^(e+1)) that holds any; zeros are in none."""
    exponents = np.frexp(x[np.searchsorted(x, x.dtype.type(0), side="right") :])[1] - 1
    if not len(exponents):
        return {}
    counts = np.bincount(exponents - exponents[0])
    (some,) = counts.nonzero()
    return dict(zip((some + exponents[0]).tolist(), counts[some].tolist(), strict=True))
