"""Clearing the bits of pruned weights: a mask of bytes, so that a pass moves little more than the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import carray, types
from numba.extending import intrinsic

from sparsight.kernels.jit import each, jit, summing

_BLOCK = 2048
_ALONE = 1 << 20  # so many weights are not worth a second thread

Place = tuple[int, int, int]
"""Address of the first value, address of the mask's first byte (0: nothing is pruned), and how many there are."""

Job = tuple[np.ndarray, np.ndarray]
"""The bits of weights, as integers of their width, and the mask's bytes (1 = kept), both flat and in one order."""


@jit
def clear(bits, mask):
    """Write every weight, the pruned ones as zero bits: for gradients, which come dense."""
    for i in range(len(bits)):
        bits[i] = bits[i] if mask[i] else 0


@jit
def clear_where_needed(bits, mask):
    """The same, but read first and write only blocks that need it: for weights, which mostly stay clean."""
    for start in range(0, len(bits), _BLOCK):
        part, kept = bits[start : start + _BLOCK], mask[start : start + _BLOCK]
        dirty = bits.dtype.type(0)
        for i in range(len(part)):
            dirty |= bits.dtype.type(0) if kept[i] else part[i]
        if dirty != 0:
            for i in range(len(part)):
                part[i] = part[i] if kept[i] else 0


def _pointer(to: types.Type) -> Any:
    @intrinsic
    def at(typing_context: Any, address: Any) -> Any:
        kind = types.CPointer(to)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), codegen

    return at


_bytes_at, _floats_at, _doubles_at = (_pointer(to) for to in (types.uint8, types.float32, types.float64))


@summing
def _clear_and_square(values, mask):
    total = 0.0
    for i in range(len(values)):
        value = values[i] if mask[i] else values.dtype.type(0)
        values[i] = value
        total += np.float64(value) * np.float64(value)
    return total


@summing
def _square(values):
    total = 0.0
    for value in values:
        total += np.float64(value) * np.float64(value)
    return total


@jit
def _floats(jobs, out):
    for i in range(len(jobs)):
        values = carray(_floats_at(jobs[i, 0]), jobs[i, 2])
        if jobs[i, 1]:
            out[i] = _clear_and_square(values, carray(_bytes_at(jobs[i, 1]), jobs[i, 2]))
        else:
            out[i] = _square(values)


@jit
def _doubles(jobs, out):
    for i in range(len(jobs)):
        values = carray(_doubles_at(jobs[i, 0]), jobs[i, 2])
        if jobs[i, 1]:
            out[i] = _clear_and_square(values, carray(_bytes_at(jobs[i, 1]), jobs[i, 2]))
        else:
            out[i] = _square(values)


def sums_of_squares(jobs: Sequence[Place], width: int) -> list[float]:
    """Write the pruned values of all places as +0.0; for each place the float64 sum of the squares of what is left.

    Addresses, since making arrays of many small tensors takes longer than going through them. Cut at fixed places
    and added up in order: the same bits for any number of threads, on one machine.
    """
    if not jobs:
        return []
    kernel = _floats if width == 4 else _doubles
    if sum(count for *_, count in jobs) <= _ALONE:
        sums = np.empty(len(jobs))
        kernel(np.array(jobs, np.int64), sums)
        return sums.tolist()
    cut = [
        (place, (values + start * width, mask and mask + start, min(_ALONE, count - start)))
        for place, (values, mask, count) in enumerate(jobs)
        for start in range(0, count, _ALONE)
    ]
    table, parts = np.array([part for _, part in cut], np.int64), np.empty(len(cut))
    each(lambda i: kernel(table[i : i + 1], parts[i : i + 1]), len(cut))
    of: list[list[float]] = [[] for _ in jobs]
    for (place, _), part in zip(cut, parts.tolist(), strict=True):
        of[place].append(part)
    return [math.fsum(found) for found in of]


def run(kernel: Callable[..., None], jobs: Sequence[Job]) -> None:
    """Run a kernel over all jobs, in as many shares of equal size as torch has threads."""
    total = sum(len(bits) for bits, _ in jobs)
    threads = torch.get_num_threads() if total > _ALONE else 1
    if threads == 1:
        for job in jobs:
            kernel(*job)
        return
    shares = split(jobs, -(-total // threads))

    def work(i: int) -> None:
        for job in shares[i]:
            kernel(*job)

    each(work, len(shares))


def split(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """The jobs cut into shares of `size` weights, in order."""
    shares: list[list[Job]] = [[]]
    room = size
    for bits, mask in jobs:
        start = 0
        while start < len(bits):
            end = min(start + room, len(bits))
            shares[-1].append((bits[start:end], mask[start:end]))
            room -= end - start
            start = end
            if not room:
                shares.append([])
                room = size
    return [share for share in shares if share]
