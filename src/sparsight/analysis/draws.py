"""Which weights stand for a tensor: places drawn by its name and shape alone, whatever reads it and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsight.analysis.reader import RAW, magnitudes
from sparsight.checkpoint.entry import Entry
from sparsight.numerics.seeds import derive

DRAWS = 1 << 14
"""Weights that are drawn of a tensor, with replacement. One that has no more is taken whole."""


class Draws:
    """Weights of one tensor at places drawn uniformly, zeros among them, or all that it has."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.whole = entry, entry.count <= DRAWS
        self._values = np.empty(min(entry.count, DRAWS), RAW[entry.dtype])
        self._places = None if self.whole else np.sort(_drawn(_generator("places", entry), entry.count))

    def take(self, x: np.ndarray, first: int) -> None:
        """Take in what is drawn of a part, whose x[0] is weight `first`. Parts may come from several threads."""
        if self._places is None:
            self._values[first : first + len(x)] = x
            return
        ends = np.array((first, first + len(x)), self._places.dtype)
        start, stop = np.searchsorted(self._places, ends)
        self._values[start:stop] = x[self._places[start:stop] - ends[0]]

    def magnitudes(self) -> np.ndarray:
        """Of the weights that were drawn, in no order; float64 of float64, else float32."""
        return magnitudes(self._values, self.entry.dtype)

    def keep(self, few: int) -> None:
        """Forget all but so many, which are independent draws: for a sample of several tensors."""
        if few != len(self._values) or self.whole:
            self._values = _generator("kept", self.entry).choice(self._values, few, replace=self.whole)
        self._places = None


def _generator(what: str, entry: Entry) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(0, what, entry.name, *entry.shape)))


def _drawn(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.integers(0, count, DRAWS, np.uint32 if count < 1 << 32 else np.int64)


def shares(entries: Sequence[Entry]) -> dict[str, int]:
    """How many draws of each entry are a sample of all their weights: as many as fall there of `DRAWS` draws of all.

    Nothing where they have no more than `DRAWS` weights together, and all are taken whole.
    """
    ordered = sorted(entries, key=lambda e: e.name)
    ends = np.cumsum([e.count for e in ordered])
    if not len(ends) or ends[-1] <= DRAWS:
        return {}
    generator = np.random.Generator(np.random.PCG64(derive(0, "all", *(e.name for e in ordered))))
    falls = np.searchsorted(ends, _drawn(generator, int(ends[-1])), side="right")
    return dict(zip((e.name for e in ordered), np.bincount(falls, minlength=len(ends)).tolist(), strict=True))
