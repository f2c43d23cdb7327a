"""What a pass collects from one tensor: sums per row and in total, and a sample of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsight.analysis.reader import RAW, magnitudes
from sparsight.checkpoint.entry import Entry
from sparsight.measure.pq.sums import PowerSums, RowSums, fold_lines
from sparsight.numerics.kernels.power_sums import CHUNK, COUNT, LARGEST, SCALE, SMALLEST, SUMS, ZEROS
from sparsight.numerics.seeds import derive

DRAWS = 1 << 14
"""Weights drawn from a tensor, with replacement. A tensor of at most this many weights is taken whole."""


class Draws:
    """Weights at uniformly drawn places of a tensor, zeros included, or all of its weights.

    `keep_few` keeps `few` of them, also independent draws, for a sample of several tensors.
    """

    def __init__(self, entry: Entry, few: int = 0) -> None:
        self.entry, self.whole, self._few = entry, entry.count <= DRAWS, few
        self.values = np.empty(min(entry.count, DRAWS), RAW[entry.dtype])
        if not self.whole:
            places = _generator("places", entry).integers(0, entry.count, DRAWS)
            keys = np.sort(places * DRAWS + np.arange(DRAWS))  # by place; several times faster than argsort
            self._places, self._order = keys // DRAWS, keys % DRAWS

    def take(self, x: np.ndarray, first: int) -> None:
        """Add the draws from a part that starts at weight `first`. Threads may call this at the same time."""
        if self.whole:
            self.values[first : first + len(x)] = x
        else:
            low, high = np.searchsorted(self._places, (first, first + len(x)))
            self.values[self._order[low:high]] = x[self._places[low:high] - first]

    def keep_few(self) -> None:
        """Keep only `few` of the draws."""
        if self.whole:
            few = _generator("kept", self.entry).integers(0, self.entry.count, self._few)
            self.values = self.values[few]
        else:
            self.values = self.values[: self._few].copy()
            del self._places, self._order


def magnitudes_of(draws: Sequence[Draws]) -> np.ndarray:
    """The magnitudes of all these draws, ascending; float64 if any tensor is float64, else float32."""
    dtypes = {d.entry.dtype for d in draws}
    if len(dtypes) > 1:
        return np.sort(np.concatenate([magnitudes(d.values, d.entry.dtype) for d in draws]))
    values = np.concatenate([d.values for d in draws])
    bits = values.view(f"u{values.itemsize}")
    bits = np.sort(bits & (np.iinfo(bits.dtype).max >> 1))  # without the sign bit, they sort like |x|
    return magnitudes(bits.view(values.dtype), dtypes.pop())


def _generator(what: str, entry: Entry) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(0, what, entry.name, *entry.shape)))


def shares(entries: Sequence[Entry]) -> dict[str, int]:
    """The number of draws to keep of each entry: as many as `DRAWS` draws over all weights would place there.

    {} if the entries have at most `DRAWS` weights together, because all are then taken whole.
    """
    ordered = sorted(entries, key=lambda e: e.name)
    counts = np.array([e.count for e in ordered], np.float64)
    if counts.sum() <= DRAWS:
        return {}
    generator = np.random.Generator(np.random.PCG64(derive(0, "all", *(e.name for e in ordered))))
    few = generator.multinomial(DRAWS, counts / counts.sum())
    return dict(zip((e.name for e in ordered), few.tolist(), strict=True))


MOST_ROWS = 1 << 20
"""Single neurons are analysed only in tensors of at most this many rows."""
_EVEN = 1e-12
"""Magnitudes count as equal if their mean is this close to the largest: their PQ index is 0 within that."""


@dataclass(eq=False)
class Seen:
    """What the pass has collected from one tensor so far."""

    entry: Entry
    exponents: tuple[float, ...]
    keep_rows: bool
    few: int | None  # draws to keep for the sample of all tensors; None: draw nothing
    draws: Draws | None = None
    total: np.ndarray | None = None  # line with the sums of all complete rows
    row: np.ndarray | None = None  # line with the sums of the incomplete row
    chunks_in: int = 0  # chunks in that row so far
    finite: bool = True  # no NaN or infinity so far
    rows: list[np.ndarray] = field(default_factory=list)
    length: int = field(init=False)  # weights per row
    per_row: int = field(init=False)  # chunks per row

    def __post_init__(self) -> None:
        self.length = self.entry.count // rows_of(self.entry)
        self.per_row = -(-self.length // CHUNK)

    def sums(self) -> PowerSums:
        assert self.total is not None
        return RowSums(self.exponents, self.total).row(0)

    def row_sums(self) -> RowSums:
        return RowSums(self.exponents, np.concatenate(self.rows))

    def begin(self) -> None:
        """Choose the places to draw from, unless `few` is None. Call before the first piece is read."""
        if self.few is not None:
            self.draws = Draws(self.entry, self.few)

    def add(self, lines: np.ndarray) -> None:
        """Add the next lines, in order."""
        self.finite &= bool(np.isfinite(lines[:, LARGEST]).all())
        at, per = 0, self.per_row
        while at < len(lines):
            whole = (len(lines) - at) // per if self.row is None else 0
            if whole:
                part = lines[at : at + whole * per]
                self._add_rows(part if per == 1 else fold_lines(part, per, whole, self.exponents))
                at += whole * per
                continue
            taken = lines[at : at + per - self.chunks_in]
            part = taken if self.row is None else np.concatenate([self.row, taken])
            self.row = fold_lines(part, len(part), 1, self.exponents)
            self.chunks_in += len(taken)
            at += len(taken)
            if self.chunks_in == per:
                self._add_rows(self.row)
                self.row, self.chunks_in = None, 0

    def _add_rows(self, rows: np.ndarray) -> None:
        _leave_zeros(rows, self.exponents)
        if self.keep_rows:
            self.rows.append(rows.copy())
        part = rows if self.total is None else np.concatenate([self.total, rows])
        self.total = fold_lines(part, len(part), 1, self.exponents)


def _leave_zeros(rows: np.ndarray, exponents: tuple[float, ...]) -> None:
    """Exclude zeros from the lines of complete rows; they add nothing to the sums.

    The smallest nonzero magnitude is known only if it equals the largest, and otherwise stays 0.
    """
    if not rows[:, ZEROS].any():
        return
    rows[:, COUNT] -= rows[:, ZEROS]
    largest, sums = rows[:, LARGEST], rows[:, SUMS + exponents.index(1.0)]
    even = (rows[:, SMALLEST] == 0) & (sums >= (1 - _EVEN) * rows[:, COUNT] * largest * np.exp2(-rows[:, SCALE]))
    rows[even, SMALLEST] = np.where(largest[even] > 0, largest[even], math.inf)


def rows_of(entry: Entry) -> int:
    return entry.shape[0] if len(entry.shape) > 1 else 1
