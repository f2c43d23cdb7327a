"""Reads a tensor from a file part by part, in row-major order for any strides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from sparsight.checkpoint.entry import Entry, read_at
from sparsight.checkpoint.packed.read import read_packed

_GAP = 1 << 15  # reading this many unwanted bytes costs less than another call
_Read = Callable[[int, np.ndarray], None]  # from an element on into an array


def read_elements(entry: Entry, file: int, first: int, last: int, out: np.ndarray) -> None:
    """Read elements first..last of a tensor in row-major order into `out`, with a dtype of their size.

    Extra memory is at most twice that of `out`, or `_GAP` bytes, or a few chunks of a packed tensor.
    Raises: CheckpointError if the file ends early or is damaged.
    """
    if entry.packed is not None:
        read_packed(entry, file, first, last, out)
        return

    def read(at: int, part: np.ndarray) -> None:
        read_at(entry, file, entry.offset + at * part.itemsize, part)

    if entry.strides is None:
        read(first, out[: last - first])
        return
    at = 0
    for start, shape, strides in _boxes(entry.shape, entry.strides, first, last, 0):
        count = prod(shape)
        _fill(read, start, strides, out[at : at + count].reshape(shape))
        at += count


def _boxes(
    shape: Sequence[int], strides: Sequence[int], first: int, last: int, start: int
) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
    """Elements first..last in row-major order as boxes (first element, shape, strides): parts of rows and whole ones.

    Dimensions of size 1 are left out.
    """
    kept = [i for i, n in enumerate(shape) if n != 1]
    shape, strides = [shape[i] for i in kept], [strides[i] for i in kept]
    if first >= last:
        return
    if not shape:
        yield start, (), ()
        return
    row, rows, steps = prod(shape[1:]), shape[1:], strides[1:]
    head, tail = -(-first // row), last // row  # whole rows
    if head > tail:
        yield from _boxes(rows, steps, first - tail * row, last - tail * row, start + tail * strides[0])
        return
    yield from _boxes(rows, steps, first - (head - 1) * row, row, start + (head - 1) * strides[0])
    if head < tail:
        yield start + head * strides[0], (tail - head, *rows), strides
    yield from _boxes(rows, steps, 0, last - tail * row, start + tail * strides[0])


def _fill(read: _Read, start: int, strides: Sequence[int], out: np.ndarray) -> None:
    """Read a box: in one piece if the gaps between its elements are small, otherwise in slices."""
    ways = [(n - 1) * s for n, s in zip(out.shape, strides, strict=True)]
    reach, most = 1 + sum(ways), max(2 * out.size, _GAP // out.itemsize)
    if reach <= most:
        memory = np.empty(reach, out.dtype)
        read(start, memory)
        out[...] = np.ndarray(out.shape, out.dtype, memory, strides=[s * out.itemsize for s in strides])
        return
    axis = ways.index(max(ways))
    some = max((_GAP // out.itemsize - (reach - ways[axis])) // strides[axis] + 1, 1)
    if some >= out.shape[axis]:
        some = out.shape[axis] // 2
    slices = np.moveaxis(out, axis, 0)
    order = [strides[axis], *strides[:axis], *strides[axis + 1 :]]
    for i in range(0, len(slices), some):
        part = slices[i : i + some]
        _fill(read, start + i * strides[axis], order, part)
