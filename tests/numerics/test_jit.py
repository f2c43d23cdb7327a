from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch

from sparsight.numerics.kernels.jit import each


def test_kernels_work_where_no_cache_can_be_written():
    code = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []   # as numba has it on a read-only installation
import torch, sparsight
layer = torch.nn.Linear(3, 2)
mask = torch.zeros(2, 3, dtype=torch.bool)
sparsight.apply_(layer, {"weight": mask})
sparsight.verify(layer, {"weight": mask})
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_keeps_order_and_uses_as_many_threads_as_torch(threads):
    torch.set_num_threads(threads)
    seen, gate = set(), threading.Barrier(threads, timeout=20)

    def work(i: int) -> int:
        if i < threads:
            gate.wait()  # passes only if so many run at the same time
        seen.add(threading.get_ident())
        return i * i

    assert each(work, 20) == [i * i for i in range(20)]
    assert len(seen) <= threads


def test_an_error_in_one_item_is_raised():
    torch.set_num_threads(2)

    def work(i: int) -> None:
        if i == 3:
            raise KeyError("three")

    with pytest.raises(KeyError, match="three"):
        each(work, 5)


def test_after_an_error_nothing_is_begun_and_nobody_works():
    torch.set_num_threads(3)
    begun, ended = [], []

    def work(i: int) -> None:
        begun.append(i)
        if i == 1:
            raise KeyError("one")
        time.sleep(0.01)
        ended.append(i)

    with pytest.raises(KeyError, match="one"):
        each(work, 1000)
    assert len(begun) < 1000
    assert sorted([*ended, 1]) == sorted(begun)
    time.sleep(0.05)
    assert len(ended) == len(begun) - 1


def test_the_caller_works_too():
    torch.set_num_threads(2)
    gate, own = threading.Barrier(2, timeout=20), threading.get_ident()

    def work(i: int) -> int:
        gate.wait()
        return threading.get_ident()

    assert own in each(work, 2)


def test_work_may_use_threads_itself():
    torch.set_num_threads(2)
    gate = threading.Barrier(2, timeout=20)

    def work(i: int) -> list[int]:
        gate.wait()  # both threads are busy
        return each(lambda j: 10 * i + j, 3)

    assert each(work, 2) == [[0, 1, 2], [10, 11, 12]]
