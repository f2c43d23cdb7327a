"""The sample of a tensor's weights: its places depend only on the tensor's name and shape, not on the reading order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsight.analysis.reader import RAW, magnitudes
from sparsight.checkpoint.entry import Entry
from sparsight.numerics.seeds import derive

DRAWS = 1 << 14
"""Weights drawn from a tensor, with replacement. A tensor without more weights is taken whole."""


class Draws:
    """Weights of a tensor at uniformly drawn places, zeros included, or all of its weights.

    `few` of them, independent draws too, can be kept for a sample of several tensors.
    """

    def __init__(self, entry: Entry, few: int = 0) -> None:
        self.entry, self.whole, self._few = entry, entry.count <= DRAWS, few
        self.values = np.empty(min(entry.count, DRAWS), RAW[entry.dtype])
        if not self.whole:
            places = _generator("places", entry).integers(0, entry.count, DRAWS)
            keys = np.sort(places * DRAWS + np.arange(DRAWS))  # by place; several times faster than argsort
            self._places, self._order = keys // DRAWS, keys % DRAWS

    def take(self, x: np.ndarray, first: int) -> None:
        """Add the draws of a part that starts at weight `first`. Several threads may call it."""
        if self.whole:
            self.values[first : first + len(x)] = x
        else:
            low, high = np.searchsorted(self._places, (first, first + len(x)))
            self.values[self._order[low:high]] = x[self._places[low:high] - first]

    def keep_few(self) -> None:
        """Forget all others."""
        if self.whole:
            few = _generator("kept", self.entry).integers(0, self.entry.count, self._few)
            self.values = self.values[few]
        else:
            self.values = self.values[: self._few].copy()
            del self._places, self._order


def magnitudes_of(draws: Sequence[Draws]) -> np.ndarray:
    """Those of all that was drawn of these, ascending; float64 if one is of float64, else float32."""
    dtypes = {d.entry.dtype for d in draws}
    if len(dtypes) > 1:
        return np.sort(np.concatenate([magnitudes(d.values, d.entry.dtype) for d in draws]))
    values = np.concatenate([d.values for d in draws])
    bits = values.view(f"u{values.itemsize}")
    bits = np.sort(bits & (np.iinfo(bits.dtype).max >> 1))  # without the sign they are in the order of |x|
    return magnitudes(bits.view(values.dtype), dtypes.pop())


def _generator(what: str, entry: Entry) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(0, what, entry.name, *entry.shape)))


def shares(entries: Sequence[Entry]) -> dict[str, int]:
    """How many draws of each entry are a sample of all their weights: as many as fall there of `DRAWS` draws of all.

    Nothing where they have no more than `DRAWS` weights together, and all are taken whole.
    """
    ordered = sorted(entries, key=lambda e: e.name)
    counts = np.array([e.count for e in ordered], np.float64)
    if counts.sum() <= DRAWS:
        return {}
    generator = np.random.Generator(np.random.PCG64(derive(0, "all", *(e.name for e in ordered))))
    few = generator.multinomial(DRAWS, counts / counts.sum())
    return dict(zip((e.name for e in ordered), few.tolist(), strict=True))
