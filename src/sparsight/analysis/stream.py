"""One pass over the weights of a checkpoint: power sums, rows and draws, in bounded memory.

Tensors are cut into pieces of several chunks; the chunk size does not depend on the budget or the threads. Pieces are
read in any order but chunks are joined in file order, hence the result depends only on the weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparsight.analysis.reader import Source, source_of
from sparsight.analysis.seen import MOST_ROWS, Seen, rows_of
from sparsight.checkpoint.entry import ITEMSIZE, Entry
from sparsight.numerics.kernels.jit import each
from sparsight.numerics.kernels.power_sums import CHUNK, SUMS, fill

PIECE = 1 << 23  # most weights that a thread measures at a time
LAST_PIECE = 1 << 20  # smallest size of the last pieces, with several threads
BLOCK = 1 << 20  # most weights read from a file and summed at once: draws from them hit the cache
_LINES = 1 << 13  # most chunks of a piece: each short row needs a line of the table
_ROUND_LINES, _ROUND_PIECES = 1 << 16, 32  # pieces measured before their sums are joined
LEAST_BUDGET = 32 << 20
Watch = Callable[[int, int], None]


class ReadPiece(NamedTuple):
    """Lines start..stop of a tensor, summed over its weights first..last."""

    seen: Seen
    start: int
    stop: int
    first: int
    last: int
    source: Source


def stream(
    entries: Sequence[Entry],
    exponents: tuple[float, ...],
    *,
    few: Mapping[str, int] | None,
    keep_rows: bool,
    budget: int,
    watch: Watch | None = None,
) -> Iterator[list[Seen]]:
    """Read all entries in one pass, and yield their sums, in order, with draws unless `few` is None.

    Yields entries as soon as they are complete: the caller can drop their rows before the next are read. `few` gives
    the number of draws of each entry to keep for a sample of all (`seen.shares`).
    Raises: ValueError for a budget that is too small; CheckpointError if a file ends early or cannot be read.
    """
    if budget < LEAST_BUDGET:
        raise ValueError(f"budget must be at least {LEAST_BUDGET:,} bytes (32 MiB), got {budget:,}")
    work, done = _Work(exponents, block_of(budget)), 0
    whole = sum(e.count * ITEMSIZE[e.dtype] for e in entries)
    found = [
        Seen(e, exponents, keep_rows and rows_of(e) <= MOST_ROWS, None if few is None else few.get(e.name, 0))
        for e in entries
    ]
    for pieces in _rounds(found):
        fresh = [p.seen for p in pieces if p.start == 0]
        each(lambda i, fresh=fresh: fresh[i].begin(), len(fresh))
        tables = each(lambda i, pieces=pieces: work(pieces[i]), len(pieces))
        for seen, lines in _joined(pieces, tables):
            seen.add(lines)
        done += sum((p.last - p.first) * ITEMSIZE[p.seen.entry.dtype] for p in pieces)
        if watch is not None:
            watch(done, whole)
        yield [p.seen for p in pieces if p.last == p.seen.entry.count]


def block_of(budget: int) -> int:
    """Weights that a thread reads at a time; all threads together use at most half of the budget."""
    threads = max(torch.get_num_threads(), 1)
    return min(max(budget // 2 // threads // 8 // CHUNK, 1) * CHUNK, BLOCK)


def _joined(pieces: Sequence[ReadPiece], tables: Sequence[np.ndarray]) -> Iterator[tuple[Seen, np.ndarray]]:
    """Each tensor with the tables of its consecutive pieces, joined."""
    for _, of in groupby(zip(pieces, tables, strict=True), key=lambda pair: id(pair[0].seen)):
        (first, *_), found = zip(*of, strict=True)
        yield first.seen, found[0] if len(found) == 1 else np.concatenate(found)


# -- cutting ---------------------------------------------------------------------------------------------------


def _rounds(found: Sequence[Seen]) -> Iterator[list[ReadPiece]]:
    """Pieces in order, in rounds with small tables. Files stay open while their pieces are read."""
    pieces: list[ReadPiece] = []
    lines, left = 0, sum(seen.entry.count for seen in found)
    with ExitStack() as stack:
        files: dict[Path, int] = {}
        for seen in found:
            source = source_of(seen.entry, files, stack)
            for piece in _cut(seen, source, left):
                pieces.append(piece)
                lines += piece.stop - piece.start
                if lines >= _ROUND_LINES or len(pieces) >= _ROUND_PIECES:
                    yield pieces
                    pieces, lines = [], 0
            left -= seen.entry.count
            if len(files) > 64:
                yield pieces
                pieces, lines = [], 0
                files.clear()
                stack.close()
        if pieces:
            yield pieces


def _cut(seen: Seen, source: Source, left: int) -> Iterator[ReadPiece]:
    """Cut a tensor into pieces; with few weights `left` in all, smaller ones, to finish all threads together."""
    length, per = seen.length, seen.per_row
    lines = rows_of(seen.entry) * per
    threads = torch.get_num_threads()
    start = first = 0
    each = min(length, CHUNK)
    while start < lines:
        size = PIECE if threads < 2 else min(max(left // (2 * threads), LAST_PIECE), PIECE)
        stop = min(start + min(max(size // each, 1), _LINES), lines)
        last = weight_at(stop, length, per)
        yield ReadPiece(seen, start, stop, first, last, source)
        left -= last - first
        start, first = stop, last


def weight_at(line: int, length: int, per: int) -> int:
    row, chunk = divmod(line, per)
    return row * length + chunk * CHUNK


# -- measuring -------------------------------------------------------------------------------------------------


class _Work:
    """Measures pieces, with one buffer per thread."""

    def __init__(self, exponents: tuple[float, ...], block: int) -> None:
        self._exponents = np.asarray(exponents, dtype=np.float64)
        self._limit = 2.0 ** (900.0 / max(1.0, *(abs(e) for e in exponents)))
        self._width = SUMS + 2 * len(exponents)
        self._block = block
        self._mine = threading.local()

    def __call__(self, piece: ReadPiece) -> np.ndarray:
        seen = piece.seen
        length, per = seen.length, seen.per_row
        table = np.empty((piece.stop - piece.start, self._width))
        step = max(self._block // min(length, CHUNK), 1)
        for start in range(piece.start, piece.stop, step):
            stop = min(start + step, piece.stop)
            at = weight_at(start, length, per)
            x = self._weights(piece, at, weight_at(stop, length, per))
            out = table[start - piece.start : stop - piece.start]
            fill(x, None, at, length, self._exponents, self._limit, start, stop, out)
            if seen.draws is not None:
                seen.draws.take(x, at)
        return table

    def _weights(self, piece: ReadPiece, first: int, last: int) -> np.ndarray:
        if isinstance(piece.source.values, np.ndarray):
            return piece.source.read(first, last)
        size = (last - first) * ITEMSIZE[piece.seen.entry.dtype]
        buffer = getattr(self._mine, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._mine.buffer = np.empty(size, np.uint8)
        return piece.source.read(first, last, buffer)
