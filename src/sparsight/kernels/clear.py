"""Clearing the bits of pruned weights: a mask of bytes, so that a pass moves little more than the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from sparsight.kernels.jit import each, jit, summing

_BLOCK = 2048
_ALONE = 1 << 20  # so many weights are not worth a second thread

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


@summing
def clear_and_square(values, mask):
    """Write every value, the pruned ones as +0.0; the float64 sum of the squares of those kept."""
    total = 0.0
    for i in range(len(values)):
        value = values[i] if mask[i] else values.dtype.type(0)
        values[i] = value
        total += np.float64(value) * np.float64(value)
    return total


@summing
def square(values):
    """The float64 sum of squares."""
    total = 0.0
    for value in values:
        total += np.float64(value) * np.float64(value)
    return total


def sum_of_squares(masked: Sequence[tuple[np.ndarray, np.ndarray]], free: Sequence[np.ndarray]) -> float:
    """Clear the pruned values of all (values, mask's bytes); the sum of squares of what is kept and of the free ones.

    Cut at fixed places and added up in order: the same bits for any number of threads, on one machine.
    """
    work = [*_cut(masked), *_cut([(values,) for values in free])]

    def one(i: int) -> float:
        return (clear_and_square if len(work[i]) == 2 else square)(*work[i])

    small = sum(len(values) for values, *_ in work) <= _ALONE
    return math.fsum(map(one, range(len(work))) if small else each(one, len(work)))


def _cut(arrays: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
    for some in arrays:
        for start in range(0, len(some[0]), _ALONE):
            yield some if len(some[0]) <= _ALONE else tuple(one[start : start + _ALONE] for one in some)


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
