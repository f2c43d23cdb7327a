"""One pass over the weights of a checkpoint: power sums, rows and histograms, in bounded memory.

Tensors are cut into pieces, of chunks of fixed size whatever the budget and the number of threads; pieces are read
and measured in any order and their chunks joined in the order of the file, so that the result depends on the weights
alone.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from sparsight.checkpoint.entry import ITEMSIZE, CheckpointError, Entry
from sparsight.kernels import histogram
from sparsight.kernels.jit import each
from sparsight.kernels.pq import CHUNK, LARGEST, SMALLEST, SUMS, fill
from sparsight.pq.sums import PowerSums, RowSums, fold_lines

PIECE = 1 << 23  # weights measured by one thread at a time, at most
LAST_PIECE = 1 << 20  # the smallest that the last ones are made, where there are several threads
BLOCK = 1 << 20  # of them read from a file at once, at most
_LINES = 1 << 13  # chunks of a piece, at most: short rows need a line of the table each
_ROUND_LINES, _ROUND_PIECES = 1 << 16, 64  # pieces measured before their sums are joined
MOST_ROWS = 1 << 20
"""Rows of a tensor up to which neurons are looked at one by one."""
LEAST_BUDGET = 32 << 20
LEAST_SAMPLE = 1 << 16
"""Weights of a tensor that are counted, where a sample is."""
Counted = Literal["sampled", "full", "none"]
"""Which weights a histogram is made of."""
_RAW = {"float64": np.float64, "float32": np.float32, "float16": np.int16, "bfloat16": np.uint16}
_BITS = {"float64": ("d", "Q", 45), "float32": ("f", "I", 16), "bfloat16": ("f", "I", 16), "float16": ("e", "H", 0)}
"""How magnitudes are told apart by their bits: as what they are packed and unpacked, and what is shifted away."""

Watch = Callable[[int, int], None]


@dataclass(eq=False)
class Seen:
    """What the pass has seen of one tensor so far."""

    entry: Entry
    exponents: tuple[float, ...]
    every: int  # one of so many weights is counted, for all of them; 0: none is
    keep_rows: bool
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # histogram of magnitudes, if asked for
    lines: np.ndarray | None = None  # one for each row, written in place, where a row is one chunk
    used: tuple[int, int] = (0, 0)  # first bin that may hold something, and one more than the last
    total: np.ndarray | None = None  # line of the sums of all rows so far
    row: np.ndarray | None = None  # line of the row that is not complete
    chunks_in: int = 0  # of that row
    finite: bool = True  # no NaN or infinity so far
    landed: int = 0  # lines that are in place
    rows: list[np.ndarray] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def length(self) -> int:
        return row_length(self.entry)

    @cached_property
    def per_row(self) -> int:
        return -(-self.length // CHUNK)

    def sums(self) -> PowerSums:
        assert self.total is not None
        return RowSums(self.exponents, self.total).row(0)

    @cached_property
    def in_place(self) -> bool:
        """Whether the lines of its pieces are those of its rows, and few enough to be held."""
        return self.per_row == 1 and rows_of(self.entry) <= MOST_ROWS

    def row_sums(self) -> RowSums:
        return RowSums(self.exponents, np.concatenate(self.rows) if self.lines is None else self.lines)

    def forget_rows(self) -> None:
        self.lines = None
        self.rows.clear()

    def count(self, first: np.ndarray, second: np.ndarray, table: np.ndarray) -> None:
        """Take in what threads' histograms hold of the weights of `table`, and empty them."""
        with self.lock:
            if not len(self.counts):
                self.counts = np.zeros(len(first), np.int64)
            low, high = self._used_by(table, len(first))
            histogram.take(first, second, self.counts, low, high)
            a, b = self.used
            self.used = (low, high) if a == b else (min(a, low), max(b, high))

    def _used_by(self, table: np.ndarray, bins: int) -> tuple[int, int]:
        """First bin that the weights of some lines may be in, and one more than the last."""
        smallest, largest = histogram.extent(table[:, SMALLEST], table[:, LARGEST])
        if not smallest <= largest:  # NaN, or no weight
            return 0, bins
        real, bits, shift = _BITS[self.entry.dtype]
        low, high = (struct.unpack(bits, struct.pack(real, v))[0] >> shift for v in (smallest, largest))
        return low, high + 1

    def land(self, lines: int) -> bool:
        """So many more lines are in place; whether they are the last, and the sums complete."""
        assert self.lines is not None
        with self.lock:
            self.landed += lines
            if self.landed < len(self.lines):
                return False
        self.finite = bool(np.isfinite(self.lines[:, LARGEST]).all())
        self.total = fold_lines(self.lines, len(self.lines), 1, self.exponents)
        if not self.keep_rows:
            self.lines = None
        return True

    def add(self, lines: np.ndarray) -> None:
        """Join the next lines, in order."""
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
        if self.keep_rows:
            self.rows.append(rows.copy())
        part = rows if self.total is None else np.concatenate([self.total, rows])
        self.total = fold_lines(part, len(part), 1, self.exponents)


class Piece(NamedTuple):
    """Lines start..stop of a tensor, and the weights first..last that they are of."""

    seen: Seen
    start: int
    stop: int
    first: int
    last: int
    source: np.ndarray | int  # the whole tensor, flat, or the file to read


def row_length(entry: Entry) -> int:
    rows = entry.shape[0] if len(entry.shape) > 1 else 1
    return entry.count // rows


def rows_of(entry: Entry) -> int:
    return entry.shape[0] if len(entry.shape) > 1 else 1


def stream(
    entries: Sequence[Entry],
    exponents: tuple[float, ...],
    *,
    counted: Counted,
    keep_rows: bool,
    budget: int,
    watch: Watch | None = None,
    ready: Callable[[Seen], None] | None = None,
) -> list[Seen]:
    """Sums (and histograms, unless "none") of every entry, from one pass over all of them.

    `ready` is called on any thread, while others still read, with tensors whose rows are no longer than a chunk as
    soon as they are complete: what it does is done in passing.
    ValueError for a budget that is too small; CheckpointError if a file ends early or cannot be read.
    """
    if budget < LEAST_BUDGET:
        raise ValueError(f"got a budget of {budget:,} bytes, allowed are at least {LEAST_BUDGET:,}")
    work = _Work(exponents, counted != "none", block_of(budget))
    found, done = [], 0
    whole = sum(e.count * ITEMSIZE[e.dtype] for e in entries)
    for entry in entries:
        rows = keep_rows and rows_of(entry) <= MOST_ROWS
        found.append(Seen(entry, exponents, every_of(entry, counted), rows))
    for pieces in _rounds(found, budget):
        tables = each(lambda i, pieces=pieces: work(pieces[i], ready), len(pieces))
        for seen, lines in _joined(pieces, tables):
            seen.add(lines)
        done += sum((p.last - p.first) * ITEMSIZE[p.seen.entry.dtype] for p in pieces)
        if watch is not None:
            watch(done, whole)
    return found


def every_of(entry: Entry, counted: Counted) -> int:
    """One of how many weights is counted: at least 2^16 of a tensor are, and at least one of 64."""
    if counted != "sampled":
        return 1 if counted == "full" else 0
    every = 1
    while every < histogram.MOST_EVERY and entry.count // (2 * every) >= LEAST_SAMPLE:
        every *= 2
    return every


def block_of(budget: int) -> int:
    """Weights that a thread reads at once: all threads together stay within half of the budget."""
    threads = max(torch.get_num_threads(), 1)
    spare = budget // 2 // threads - 8 * histogram.BINS[8] - 8 * histogram.BINS[4]
    return min(max(spare // 8 // CHUNK, 1) * CHUNK, BLOCK)


def _joined(pieces: Sequence[Piece], tables: Sequence[np.ndarray]) -> Iterator[tuple[Seen, np.ndarray]]:
    """Tables of neighbouring pieces of a tensor as one, where they are not in place."""
    at = 0
    while at < len(pieces):
        if pieces[at].seen.in_place:
            at += 1
            continue
        stop = at + 1
        while stop < len(pieces) and pieces[stop].seen is pieces[at].seen:
            stop += 1
        yield pieces[at].seen, tables[at] if stop == at + 1 else np.concatenate(tables[at:stop])
        at = stop


# -- cutting ---------------------------------------------------------------------------------------------------


def _rounds(found: Sequence[Seen], budget: int) -> Iterator[list[Piece]]:
    """Pieces in order, so many at a time that their tables stay small. Files are open while theirs are read."""
    pieces: list[Piece] = []
    lines, left = 0, sum(seen.entry.count for seen in found)
    with ExitStack() as stack:
        files: dict[Path, int] = {}
        for seen in found:
            source = source_of(seen.entry, budget, files, stack)
            for piece in _cut(seen, source, left):
                pieces.append(piece)
                lines += piece.stop - piece.start
                if lines >= _ROUND_LINES or len(pieces) >= _ROUND_PIECES:
                    yield pieces
                    pieces, lines = [], 0
            left -= seen.entry.count
            if seen.entry.strides is not None or len(files) > 64:
                yield pieces
                pieces, lines = [], 0
                files.clear()
                stack.close()
        if pieces:
            yield pieces


def _cut(seen: Seen, source: np.ndarray | int, left: int) -> Iterator[Piece]:
    """Pieces of a tensor, `left` weights being still to come: smaller ones at last, that all threads end together."""
    length, per = seen.length, seen.per_row
    lines = rows_of(seen.entry) * per
    threads = torch.get_num_threads()
    if seen.in_place:
        seen.lines = np.empty((lines, SUMS + 2 * len(seen.exponents)))
    start = first = 0
    while start < lines:
        size = PIECE if threads < 2 else min(max(left // (2 * threads), LAST_PIECE), PIECE)
        stop = min(start + min(max(size // min(length, CHUNK), 1), _LINES), lines)
        last = weight_at(stop, length, per)
        yield Piece(seen, start, stop, first, last, source)
        left -= last - first
        start, first = stop, last


def weight_at(line: int, length: int, per: int) -> int:
    row, chunk = divmod(line, per)
    return row * length + chunk * CHUNK


# -- reading ---------------------------------------------------------------------------------------------------


def source_of(entry: Entry, budget: int, files: dict[Path, int], stack: ExitStack) -> np.ndarray | int:
    """The flat array of a tensor that is in memory or lies out of order, or else the file that it is in."""
    if entry.tensor is not None:
        return flat(entry.tensor)
    assert entry.path is not None
    if entry.path not in files:
        try:
            files[entry.path] = os.open(entry.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CheckpointError(entry.path, error.strerror or str(error)) from error
        stack.callback(os.close, files[entry.path])
    if entry.strides is None:
        return files[entry.path]
    return _in_order(entry, files[entry.path])


def obstacle_of(entry: Entry, budget: int) -> str | None:
    """Why the budget does not allow an entry: one that lies out of order is read whole."""
    size = 2 * entry.count * ITEMSIZE.get(entry.dtype, 1)
    if entry.strides is None or size <= budget // 2:
        return None
    return f"it is stored transposed, and putting {size // 2:,} bytes in order takes more than the budget"


def _in_order(entry: Entry, file: int) -> np.ndarray:
    assert entry.strides is not None
    raw = np.dtype(_RAW[entry.dtype])
    span = 1 + sum((n - 1) * s for n, s in zip(entry.shape, entry.strides, strict=True))
    memory = np.empty(span, raw)
    read_into(entry, file, entry.offset, memory)
    steps = [s * raw.itemsize for s in entry.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(memory, entry.shape, steps)).reshape(-1)


def flat(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as a flat array: float16 as int16 and bfloat16 as uint16, as the kernels want them."""
    x = tensor.detach().cpu().contiguous().reshape(-1)
    if x.dtype in (torch.float16, torch.bfloat16):
        bits = x.view(torch.int16).numpy()
        return bits if x.dtype == torch.float16 else bits.view(np.uint16)
    return x.numpy()


def read_into(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    view = out.view(np.uint8).data
    at = 0
    while at < len(view):
        try:
            n = os.preadv(file, [view[at:]], offset + at)
        except OSError as error:
            raise CheckpointError(entry.path, f"reading {entry.name!r}: {error.strerror}") from error
        if n == 0:
            raise CheckpointError(entry.path, f"it ends inside {entry.name!r}; was it changed while it was read?")
        at += n


class _Work:
    """Measures pieces; every thread has one buffer and its own tables."""

    def __init__(self, exponents: tuple[float, ...], counted: bool, block: int) -> None:
        self._exponents = np.asarray(exponents, dtype=np.float64)
        self._limit = 2.0 ** (900.0 / max(1.0, *(abs(e) for e in exponents)))
        self._width = SUMS + 2 * len(exponents)
        self._counted, self._block = counted, block
        self._mine = threading.local()

    def __call__(self, piece: Piece, ready: Callable[[Seen], None] | None) -> np.ndarray:
        table = self._measured(piece)
        if piece.seen.in_place and piece.seen.land(len(table)) and ready is not None:
            ready(piece.seen)
        return table

    def _measured(self, piece: Piece) -> np.ndarray:
        seen, item = piece.seen, ITEMSIZE[piece.seen.entry.dtype]
        length, per = seen.length, seen.per_row
        if seen.lines is None:
            table = np.empty((piece.stop - piece.start, self._width))
        else:
            table = seen.lines[piece.start : piece.stop]
        first, second = self._tables(item)
        step = max(self._block // min(length, CHUNK), 1) if isinstance(piece.source, int) else piece.stop - piece.start
        for start in range(piece.start, piece.stop, step):
            stop = min(start + step, piece.stop)
            x = self._weights(piece, weight_at(start, length, per), weight_at(stop, length, per))
            out = table[start - piece.start : stop - piece.start]
            at = weight_at(start, length, per)
            high = x.view(np.uint64) if item == 8 else x.view(np.uint16)
            counting = (high, seen.entry.count, seen.every, first, second) if seen.every else None
            fill(x, None, at, length, self._exponents, self._limit, start, stop, out, counting)
        if seen.every:
            seen.count(first, second, table)
        return table

    def _weights(self, piece: Piece, first: int, last: int) -> np.ndarray:
        if isinstance(piece.source, np.ndarray):
            return piece.source[first:last]
        entry = piece.seen.entry
        raw = np.dtype(_RAW[entry.dtype])
        buffer = getattr(self._mine, "buffer", None)
        if buffer is None or len(buffer) < (last - first) * raw.itemsize:
            buffer = self._mine.buffer = np.empty((last - first) * raw.itemsize, np.uint8)
        x = buffer[: (last - first) * raw.itemsize].view(raw)
        read_into(entry, piece.source, entry.offset + first * raw.itemsize, x)
        return x

    def _tables(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        name = f"tables{item if item == 8 else 4}"
        if not hasattr(self._mine, name):
            n = histogram.BINS[item] if self._counted else 0
            setattr(self._mine, name, (np.zeros(n, np.uint32), np.zeros(n, np.uint32)))
        return getattr(self._mine, name)
