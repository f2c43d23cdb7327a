"""Compiling with numba, and running compiled loops on several threads.

Kernels release the interpreter lock and run on plain Python threads, or on torch's own. `torch.set_num_threads` sets
the number of both. (numba's own thread pools would need a second setting.)
"""

from __future__ import annotations

import ctypes
import hashlib
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core.registry import cpu_target


def cached(compiler: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """One of numba's compilers, with machine code cached on disk if possible.

    numba caches next to the source or in the user's cache folder; if it can write to neither, each process compiles
    again. Its key is a function's name and file. Kernels use other files too, so the name includes a hash of all files.
    """

    @uninterrupted
    def compiled(function: Callable[..., Any]) -> Any:
        if not function.__qualname__.endswith(_sources()):
            function.__qualname__ += f"_{_sources()}"
        try:
            made = compiler(*args, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            made = compiler(*args, **options)(function)
        if hasattr(made, "compile"):  # compiles each combination of types on its first call
            made.compile = uninterrupted(made.compile)
        return made

    return compiled


@cache
def _sources() -> str:
    """A hash of all kernels' sources."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]


def uninterrupted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Delay Ctrl-C and other signals that arrive during a function until it has returned.

    While compiling and loading, LLVM calls Python: an exception raised there by a signal would be lost.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # only the main thread handles signals
            return function(*args, **kwargs)
        came: list[tuple[int, Any]] = []
        handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        before = {number: handler for number, handler in handlers.items() if callable(handler)}
        try:
            for number in before:
                signal.signal(number, lambda *signalled: came.append(signalled))
            return function(*args, **kwargs)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for number, frame in came[:1]:
                before[number](number, frame)

    return call


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def processor() -> tuple[str, str, str]:
    """The target of compilation: platform, processor and its extensions."""
    target: Any = cpu_target.target_context
    return target.codegen().magic_tuple()


def has(feature: str) -> bool:
    """Whether kernels are compiled for a processor extension, such as "avx512f"."""
    return f"+{feature}" in processor()[2].split(",")


def jit(function: Callable[..., Any], fastmath: Any = False) -> Callable[..., Any]:
    """Compile on first call and cache the machine code (`cached`), which runs without the interpreter lock."""
    return cached(numba.njit, nogil=True, error_model="numpy", fastmath=fastmath)(function)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `jit`, but a multiplication and addition may be rounded once."""
    return jit(function, {"contract"})


def summing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `jit`, but sums may be reordered for the machine's vectors; NaN and infinity stay exact."""
    return jit(function, {"reassoc", "contract"})


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sparsight")


def each(work: Callable[[int], Any], items: int | Sequence[int]) -> list[Any]:
    """`[work(i) for i in items]`, on as many threads as torch uses. Results keep their order.

    `work` should spend its time in a compiled kernel. An exception from any item is raised after all threads have
    stopped; items not yet started are skipped.
    """
    todo = range(items) if isinstance(items, int) else items
    threads = min(torch.get_num_threads(), len(todo))
    if threads <= 1:
        return [work(i) for i in todo]
    results: list[Any] = [None] * len(todo)
    places = iter(range(len(todo)))  # shared: the interpreter yields each number once

    def take() -> None:
        try:
            for place in places:
                results[place] = work(todo[place])
        except BaseException:
            for _ in places:  # nothing is left for the others
                pass
            raise

    others = [_pool(threads - 1).submit(take) for _ in range(threads - 1)]
    try:
        take()  # this thread works too: others take time to wake up
    finally:
        begun = [other for other in others if not other.cancel()]  # a thread that has not begun has no work left
        wait(begun)
    for other in begun:
        other.result()
    return results


# -- torch's own threads, from its OpenMP library: they spin for a while after each torch operation, and another pool
# would compete with them ----------------------------------------------------------------------------------------


@cache
def parallel() -> Any:
    """OpenMP's function to call another on all threads, from the library that torch has loaded; None without it."""
    try:
        call = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    call.argtypes, call.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return call


def together(compiled: Any, address: int, threads: int) -> None:
    """Call a compiled C function with an address on this many of torch's threads at once."""
    call = parallel()
    if threads == 1:
        compiled.ctypes(address)
    elif call is None:
        each(lambda _: compiled.ctypes(address), threads)
    else:
        call(compiled.address, address, threads, 0)


@cache
def _compiled(work: Callable[[int], None]) -> Any:
    return cached(numba.cfunc, numba.void(numba.int64))(work)


def shared(work: Callable[[int], None], rows: np.ndarray, *words: int) -> np.ndarray:
    """Run a compiled loop over the rows of a table (int64) on all of torch's threads; returns the job's words.

    `work` gets the address of a job: the number of the next row (see `calls.take`), the number of rows, the address of
    the first row, and `words`, to be overwritten with results. It compiles to a C function and must not raise.
    """
    job = np.array([0, len(rows), rows.ctypes.data, *words], np.int64)
    together(_compiled(work), job.ctypes.data, torch.get_num_threads())
    return job[3:]
