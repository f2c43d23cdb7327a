"""Compiled loops on torch's own threads, those of its OpenMP library.

Another pool would compete with them: they keep spinning for a while after each of torch's operations.
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
"""The number of the next row; each is returned once."""


@cache
def parallel() -> Any:
    """OpenMP's call of a function on all its threads, from the library that torch has loaded; None without it."""
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
    """Run a compiled loop over the rows of a table (int64) on all of torch's threads; returns its words afterwards.

    `work` gets the address of a job: the number of the next row (see `take`), the number of rows, the address of the
    first row, and `words`, for results. It compiles to a C function and must not raise.
    """
    job = np.array([0, len(rows), rows.ctypes.data, *words], np.int64)
    run, address, threads = _compiled(work), job.ctypes.data, torch.get_num_threads()
    call = parallel()
    if threads == 1 or call is None:
        each(lambda _: run.ctypes(address), threads)
    else:
        call(run.address, address, threads, 0)
    return job[3:]
