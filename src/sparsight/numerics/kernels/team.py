"""Compiled loops on the very threads that torch computes with: those of the OpenMP library it has loaded.

A pool of our own would compete with them: they go on spinning for a while after each of torch's operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, types

from sparsight.numerics.kernels.calls import operation
from sparsight.numerics.kernels.jit import cached, each

at: Any = operation([types.int64], lambda b, address: b.inttoptr(address, ir.IntType(8).as_pointer()), types.voidptr)
"""An address as a pointer, for `numba.carray`."""


def _fetch_and_add(b: Any, address: Any) -> Any:
    return b.atomic_rmw("add", b.inttoptr(address, _WORD.as_pointer()), _WORD(1), "seq_cst")


_WORD = ir.IntType(64)
take: Any = operation([types.int64], _fetch_and_add, types.int64)
"""The number of the next row: each is handed out once."""


@cache
def parallel() -> Any:
    """OpenMP's call of a function on all its threads, or None. It is looked up among what torch has loaded."""
    try:
        call = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes, call.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return call


@cache
def _compiled(work: Callable[[int], None]) -> Any:
    return cached(cfunc, types.void(types.int64))(work)


def shared(work: Callable[[int], None], rows: np.ndarray, *words: int) -> np.ndarray:
    """Have a compiled loop go through the rows of a table (int64) on all of torch's threads; its words afterwards.

    `work` is given the address of a job: the number of the next row (`take` hands it out), how many rows there are,
    the address of the first, and `words`, through which it answers. It compiles to a C function and must not raise.
    """
    job = np.array([0, len(rows), rows.ctypes.data, *words], np.int64)
    run, address, threads = _compiled(work), job.ctypes.data, torch.get_num_threads()
    call = parallel()
    if threads == 1 or call is None:
        each(lambda _: run.ctypes(address), threads)
    else:
        call(run.address, address, threads, 0)
    return job[3:]
