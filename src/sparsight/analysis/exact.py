"""Passes that make Gini index and exact eta exact: magnitudes in ascending order, as many as fit at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsight.analysis.histogram import Bins
from sparsight.analysis.reader import read_into, source_of
from sparsight.analysis.stream import BLOCK
from sparsight.checkpoint.entry import ITEMSIZE, Entry

_RAW = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def ranked(entries: Sequence[Entry], bins: Bins, budget: int) -> Iterator[np.ndarray]:
    """All magnitudes of the entries in ascending order, in parts: every part costs a pass over the entries."""
    most = max(budget // 2 // 8, 1)
    ends = _cuts(bins, most)
    for low, high in zip([-math.inf, *ends[:-1]], ends, strict=True):
        found = [x[(x > low) & (x <= high)] for x in _magnitudes(entries)]
        part = np.concatenate(found) if found else np.empty(0)
        part.sort()
        yield part


def _cuts(bins: Bins, most: int) -> list[float]:
    """Upper ends of ranges that hold at most `most` weights each (or one interval of the histogram)."""
    order = np.argsort(bins.high, kind="stable")
    ends, held = [], 0
    high, count = bins.high[order], bins.count[order].tolist()
    for i, n in enumerate(count):
        if held and held + n > most:
            ends.append(float(high[i - 1]))
            held = 0
        held += n
    return [*dict.fromkeys(ends), math.inf]


def _magnitudes(entries: Sequence[Entry]) -> Iterator[np.ndarray]:
    for entry in entries:
        with ExitStack() as stack:
            files: dict[Path, int] = {}
            source = source_of(entry, files, stack)
            for at in range(0, entry.count, BLOCK):
                size = min(BLOCK, entry.count - at)
                if isinstance(source, np.ndarray):
                    x = source[at : at + size]
                else:
                    x = np.empty(size, _RAW[entry.dtype])
                    read_into(entry, source, entry.offset + at * ITEMSIZE[entry.dtype], x)
                yield _absolute(x, entry.dtype)


def _absolute(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        x = (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "float16":
        x = x.view(np.float16)
    return np.abs(x.astype(np.float64))


class Ranking:
    """Gini index, and how many of the smallest weights hold at most a goal of p-mass, from parts in order."""

    def __init__(self, count: int, mass: float, unit: float, goals: Sequence[tuple[float, float]]) -> None:
        self._count, self._mass, self._unit = count, mass, unit
        self._goals = list(goals)  # (p, p-mass that the discarded may hold)
        self._sums = [0.0] * len(self._goals)
        self._seen, self._terms = 0, []
        self.droppable = [0] * len(self._goals)

    def add(self, part: np.ndarray) -> None:
        x = part / self._unit
        ranks = np.arange(self._seen + 1, self._seen + len(x) + 1, dtype=np.float64)
        self._terms.append(float(np.dot(2 * ranks - (self._count + 1), x)))
        for i, (p, goal) in enumerate(self._goals):
            if self.droppable[i] < self._seen:
                continue
            sums = self._sums[i] + np.cumsum(x**p)
            self.droppable[i] += int(np.searchsorted(sums, goal, side="right"))
            self._sums[i] = float(sums[-1]) if len(sums) else self._sums[i]
        self._seen += len(x)

    @property
    def gini(self) -> float:
        if self._mass <= 0:
            return 0.0
        return min(max(math.fsum(self._terms) / (self._count * self._mass), 0.0), 1.0)
