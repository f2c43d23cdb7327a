"""Walking a table of operations on all of torch's threads, handed over once.

Threads take chunks of an operation themselves and go on to the next when all of its chunks are done: they wait for each
other in a short spin, then let others have the processor. Any number of threads, even one, finishes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import cfunc, types

from sparsight.numerics.kernels.calls import call, give_way, peek, word
from sparsight.numerics.kernels.jit import cached, each
from sparsight.numerics.kernels.team import _parallel, take

OPERATION_WORDS = 3  # kernel's address, number of chunks, address of its words
COUNTERS = 16  # words between an operation's counters and the next's: they change on different processors
_SPIN = 2000

_TURN, _TABLE, _COUNT, _SLOTS, _COUNTERS, _SCRATCH, _SCRATCH_BYTES = range(7)


def _walk(job):
    me = take(job)
    table, slots, counters = word(job, _TABLE), word(job, _SLOTS), word(job, _COUNTERS)
    scratch = word(job, _SCRATCH) + me * word(job, _SCRATCH_BYTES)
    for i in range(word(job, _COUNT)):
        kernel, chunks, words = word(table, 3 * i), word(table, 3 * i + 1), word(table, 3 * i + 2)
        counter = counters + 8 * COUNTERS * i
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


_compiled: Any = cached(cfunc, types.void(types.int64))(_walk)


def walk(table: np.ndarray, slots: np.ndarray, counters: np.ndarray, scratch: int, scratch_bytes: int) -> None:
    """Do every operation of a table (int64, `OPERATION_WORDS` each). Counters are zeroed here; scratch is per thread."""
    counters[:] = 0
    threads = torch.get_num_threads()
    job = np.array([0, table.ctypes.data, len(table), slots.ctypes.data, counters.ctypes.data, scratch, scratch_bytes])
    address, parallel = job.ctypes.data, _parallel()
    if threads == 1 or parallel is None:
        each(lambda _: _compiled.ctypes(address), threads)
    else:
        parallel(_compiled.address, address, threads, 0)
