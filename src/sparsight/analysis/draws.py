"""The sample of a tensor's weights: its places depend only on the tensor's name and shape, not on the reading order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsight.analysis.reader import RAW, magnitudes
from sparsight.checkpoint.entry import Entry
from sparsight.numerics.kernels.jit import jit
from sparsight.numerics.seeds import derive

DRAWS = 1 << 14
"""Weights drawn from a tensor, with replacement. A tensor without more weights is taken whole."""
_DIGIT = 11  # bits by which draws are sorted at once


class Draws:
    """Weights of a tensor at uniformly drawn places, zeros included, or all of its weights.

    `few` of them, independent draws too, can be kept for a sample of several tensors.
    """

    def __init__(self, entry: Entry, few: int = 0) -> None:
        self.entry, self.whole, self._few = entry, entry.count <= DRAWS, few
        self.values = np.empty(min(entry.count, DRAWS), RAW[entry.dtype])
        self._shift = max(entry.count.bit_length() - _DIGIT, 0)
        if not self.whole:
            places = _generator("places", entry).integers(0, entry.count, DRAWS)
            self._places = _by_place(places, self._shift)

    def take(self, x: np.ndarray, first: int) -> None:
        """Add the draws of a part that starts at weight `first`. Several threads may call it."""
        if self.whole:
            self.values[first : first + len(x)] = x
        else:
            _gather(x, first, self._shift, *self._places, self.values)

    def keep_few(self) -> None:
        """Forget all others."""
        if self.whole:
            few = _generator("kept", self.entry).integers(0, self.entry.count, self._few)
            self.values = self.values[few]
        else:
            self.values, self._places = self.values[: self._few].copy(), ()


def magnitudes_of(draws: Sequence[Draws]) -> np.ndarray:
    """Those of all that was drawn of these, ascending; float64 if one is of float64, else float32."""
    dtypes = {d.entry.dtype for d in draws}
    if len(dtypes) > 1:
        return np.sort(np.concatenate([magnitudes(d.values, d.entry.dtype) for d in draws]))
    values = np.concatenate([d.values for d in draws])
    bits = values.view(f"u{values.itemsize}")
    bits = ascending(bits & (np.iinfo(bits.dtype).max >> 1))  # without the sign they are in the order of |x|
    return magnitudes(bits.view(values.dtype), dtypes.pop())


def _generator(what: str, entry: Entry) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(0, what, entry.name, *entry.shape)))


@jit
def _by_place(places, shift):
    """Where those begin that share their high bits; the places by their high bits; which draw each is."""
    starts = np.zeros((1 << _DIGIT) + 1, np.int64)
    ordered, draws = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    for place in places:
        starts[(place >> shift) + 1] += 1
    for digit in range(1 << _DIGIT):
        starts[digit + 1] += starts[digit]
    ends = starts.copy()
    for i in range(len(places)):
        at = ends[places[i] >> shift]
        ends[places[i] >> shift] += 1
        ordered[at], draws[at] = places[i], i
    return starts, ordered, draws


@jit
def _gather(x, first, shift, starts, places, draws, values):
    """Put what x holds of the places where their draws are; compiled, since x is short enough to be in the cache."""
    last = first + len(x)
    for i in range(starts[first >> shift], starts[((last - 1) >> shift) + 1]):
        if first <= places[i] < last:
            values[draws[i]] = x[places[i] - first]


def ascending(x: np.ndarray) -> np.ndarray:
    """Unsigned integers sorted, in place or not: by digits up to 32 bits, which is faster than by comparing."""
    if x.dtype == np.uint32:
        return _by_digits(x, np.empty_like(x))
    return np.sort(x, kind="stable" if x.itemsize == 2 else None)


@jit
def _by_digits(x, spare):
    mask = np.uint32((1 << _DIGIT) - 1)
    for shift in range(0, 32, _DIGIT):
        ends = np.zeros((1 << _DIGIT) + 1, np.int64)
        for v in x:
            ends[((v >> np.uint32(shift)) & mask) + 1] += 1
        for digit in range(1 << _DIGIT):
            ends[digit + 1] += ends[digit]
        for v in x:
            digit = (v >> np.uint32(shift)) & mask
            spare[ends[digit]] = v
            ends[digit] += 1
        x, spare = spare, x
    return x


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
