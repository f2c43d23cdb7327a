"""Gini index and exact eta from all magnitudes in ascending order, in as many passes as the memory requires."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsight.analysis.reader import magnitudes, source_of
from sparsight.checkpoint.entry import Entry

_STEP = 1 << 18  # weights looked at at once


def ranked(entries: Sequence[Entry], budget: int) -> Iterator[tuple[np.ndarray, float, int]]:
    """All magnitudes of the entries above 0 in ascending order, in parts: (ascending, then this one, so many times).

    Every part costs a pass over the entries: the smallest that fit half of the budget, and are above the part before,
    are kept. What stands in a part is overwritten by the next.
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
        yield room[:size], end, ties
        done = end


def _magnitudes(entries: Sequence[Entry]) -> Iterator[np.ndarray]:
    for entry in entries:
        with ExitStack() as stack:
            files: dict[Path, int] = {}
            source = source_of(entry, files, stack)
            for at in range(0, entry.count, _STEP):
                yield magnitudes(source.read(at, min(at + _STEP, entry.count)), entry.dtype)


class Ranking:
    """Gini index, and how many of the smallest weights hold at most a goal of p-mass, from parts in order."""

    def __init__(self, count: int, mass: float, unit: float, goals: Sequence[tuple[float, float]]) -> None:
        self._count, self._mass, self._unit = count, mass, unit
        self._goals = list(goals)  # (p, p-mass that the discarded may hold)
        self._sums = [0.0] * len(self._goals)
        self._seen, self._terms, self._octaves = 0, [], Counter()
        self.droppable = [0] * len(self._goals)

    def add(self, part: np.ndarray) -> None:
        for at in range(0, len(part), _STEP):
            self._add(part[at : at + _STEP].astype(np.float64))

    def add_ties(self, value: float, count: int) -> None:
        for at in range(0, count, _STEP):
            self._add(np.full(min(count - at, _STEP), value))

    def _add(self, part: np.ndarray) -> None:
        x = part / self._unit
        ranks = np.arange(self._seen + 1, self._seen + len(x) + 1, dtype=np.float64)
        self._terms.append(float(np.dot(2 * ranks - (self._count + 1), x)))
        for i, (p, goal) in enumerate(self._goals):
            if self.droppable[i] < self._seen:
                continue
            sums = self._sums[i] + np.cumsum(x**p)
            self.droppable[i] += int(np.searchsorted(sums, goal, side="right"))
            self._sums[i] = float(sums[-1])
        self._seen += len(x)
        self._octaves.update(octaves(part))

    @property
    def gini(self) -> float:
        if self._mass <= 0:
            return 0.0
        return min(max(math.fsum(self._terms) / (self._count * self._mass), 0.0), 1.0)

    @property
    def octaves(self) -> tuple[tuple[int, int], ...]:
        return tuple(sorted(self._octaves.items()))


def octaves(x: np.ndarray) -> dict[int, int]:
    """How many of these magnitudes, which ascend, are in each [2^e, 2^(e+1)) that holds any; zeros are in none."""
    exponents = np.frexp(x[np.searchsorted(x, x.dtype.type(0), side="right") :])[1] - 1
    if not len(exponents):
        return {}
    counts = np.bincount(exponents - exponents[0])
    (some,) = counts.nonzero()
    return dict(zip((some + exponents[0]).tolist(), counts[some].tolist(), strict=True))
