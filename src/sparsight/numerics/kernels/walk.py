"""Runs a table of operations on all of torch's threads, with a single call.

Threads take chunks of an operation, and continue with the next one when all chunks are done. Waiting threads spin for a
short time, then yield the processor. Any number of threads works, even one.
"""

from __future__ import annotations

import mmap

import numpy as np
import torch
from numba import cfunc, types

from sparsight.numerics.kernels.calls import call, give_way, peek, take, word
from sparsight.numerics.kernels.jit import cached, together
from sparsight.numerics.kernels.llvm import BYTES

_TURN, _TABLE, _COUNT, _SLOTS, _COUNTERS, _SCRATCH, _SCRATCH_BYTES = range(7)
_JOB = 8  # words
_APART = 16  # words between counters: different processors change them
_HUGE = 1 << 21  # bytes of a huge page: distant planes would need more small pages than a processor's TLB holds
_SPIN = 2000


@cached(cfunc, types.void(types.int64))
def _walk(job):
    me = take(job)
    table, slots, counters = word(job, _TABLE), word(job, _SLOTS), word(job, _COUNTERS)
    scratch = word(job, _SCRATCH) + me * word(job, _SCRATCH_BYTES)
    for i in range(word(job, _COUNT)):
        kernel, chunks, words = word(table, 3 * i), word(table, 3 * i + 1), word(table, 3 * i + 2)
        counter = counters + 8 * _APART * i
        while True:
            chunk = take(counter)
            if chunk >= chunks:
                break
            call(kernel, (words, slots, scratch, chunk))
            take(counter + 8)
        spins = 0
        while peek(counter + 8) < chunks:
            spins += 1
            if spins > _SPIN:
                give_way()


def aligned(size: int) -> np.ndarray:
    """Zeroed bytes that start at a cache line, on huge pages if there are many."""
    if size < 2 * _HUGE:
        memory = np.zeros(size + BYTES, np.uint8)
        start = -memory.ctypes.data % BYTES
        return memory[start : start + size]
    pages = mmap.mmap(-1, size + _HUGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, np.uint8)
    start = -memory.ctypes.data % _HUGE
    return memory[start : start + size]


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy of an array in aligned memory."""
    copy = aligned(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Job:
    """Memory for one walk at a time: slots (addresses of memory that operations use), counters, an arena, scratch.

    `table` is int64, (operations, 3): kernel's address, number of chunks, address of the operation's words. `scratch`
    is bytes per thread, `arena` bytes for all.
    """

    def __init__(self, table: np.ndarray, slots: int, scratch: int, arena: int):
        self.threads = torch.get_num_threads()
        self._table = np.ascontiguousarray(table)
        self._scratch = aligned(scratch * self.threads)
        self.arena = aligned(arena)
        self.arena_address = self.arena.ctypes.data
        self._state = np.zeros(_JOB + slots + _APART * (len(table) + 1), np.int64)
        self._address = self._state.ctypes.data
        self.slots = self._state[_JOB : _JOB + slots]
        self._counters = self._state[_JOB + slots :]
        places = (array.ctypes.data for array in (self.slots, self._counters, self._scratch))
        self._state[_TABLE : _SCRATCH_BYTES + 1] = [self._table.ctypes.data, len(table), *places, scratch]

    def run(self) -> None:
        """Run every operation of the table."""
        self._counters.fill(0)
        self._state[_TURN] = 0
        together(_walk, self._address, self.threads)
