"""The bytes of a tensor in a file, a part at a time, also where they do not lie in row-major order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path

import numpy as np

from sparsight.checkpoint.entry import CheckpointError, Entry

_MOST = 1 << 24  # bytes asked for at once where reading copies them
_GAP = 1 << 15  # bytes between two that are wanted which cost less to read than a further call
_seeking = threading.Lock()
_Read = Callable[[int, np.ndarray], None]  # from an element on into an array


def opened(path: Path, stack: ExitStack) -> int:
    """A descriptor of a file, which `stack` closes. CheckpointError if it cannot be opened."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    stack.callback(os.close, file)
    return file


def read_elements(entry: Entry, file: int, first: int, last: int, out: np.ndarray) -> None:
    """Elements first..last of a tensor in row-major order into `out`, whose dtype has their size.

    What is held beside `out` is at most twice as large, or `_GAP` bytes. CheckpointError if the file ends early.
    """

    def read(at: int, part: np.ndarray) -> None:
        _read_into(entry, file, entry.offset + at * part.itemsize, part)

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
    """Read a box, in one piece if what lies between its elements is little, else in slices along its longest way."""
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


def _read_into(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    view = out.view(np.uint8).data
    at = 0
    while at < len(view):
        try:
            n = _read_some(file, offset + at, view[at:])
        except OSError as error:
            raise CheckpointError(entry.path, f"reading {entry.name!r}: {error.strerror}") from error
        if n == 0:
            raise CheckpointError(entry.path, f"it ends inside {entry.name!r}; was it changed while it was read?")
        at += n


def _read_some(file: int, offset: int, view: memoryview) -> int:
    """Read into `view` what there is at an offset, from several threads at once; how many bytes that was."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], offset)
    with _seeking:  # Windows has no reading at an offset: one thread moves and reads at a time
        os.lseek(file, offset, os.SEEK_SET)
        found = os.read(file, min(len(view), _MOST))
    view[: len(found)] = found
    return len(found)
