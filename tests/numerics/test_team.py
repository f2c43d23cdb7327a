from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import carray

from sparsight.numerics.kernels import jit
from sparsight.numerics.kernels.calls import at, take
from sparsight.numerics.kernels.clear import clear, sums_of_squares, table
from sparsight.numerics.kernels.jit import shared


def _count(address):
    job = carray(at(address), 5, np.int64)
    rows, answers = carray(at(job[2]), (job[1], 3), np.int64), carray(at(job[3]), (job[1], 1), np.int64)
    i = take(address)
    while i < len(rows):
        answers[i, 0] += 1 + 10 * rows[i, 1]
        i = take(address)
    job[4] = 7


@pytest.fixture(params=["OpenMP", "pool"])
def way(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(jit, "parallel", lambda: None)
    elif jit.parallel() is None:
        pytest.skip("this torch was built without OpenMP, or with one that has another interface")
    return request.param


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_row_is_taken_once_and_words_come_back(way, threads):
    torch.set_num_threads(threads)
    rows = np.arange(3000).reshape(-1, 3)
    answers = np.zeros(len(rows), np.int64)
    assert list(shared(_count, rows, answers.ctypes.data, 0)) == [answers.ctypes.data, 7]
    np.testing.assert_array_equal(answers, 1 + 10 * rows[:, 1])


@pytest.mark.parametrize("kind", [torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_every_width_are_cleared_on_several_threads(way, kind):
    torch.set_num_threads(2)
    count = (1 << 20) + 5
    mask = torch.rand(count, generator=torch.Generator().manual_seed(0)) < 0.1
    x = torch.full((count,), 3, dtype=kind)
    rows = table([(x.data_ptr(), mask.data_ptr(), count)], x.element_size())
    assert clear(rows, x.element_size())
    assert not clear(rows, x.element_size())
    assert torch.equal(x, torch.where(mask, torch.tensor(3, dtype=kind), torch.tensor(0, dtype=kind)))


def test_sums_have_the_same_bits_for_any_number_of_threads(way):
    count = 6 << 20
    x = torch.randn(count, generator=torch.Generator().manual_seed(1))
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(sums_of_squares([(x.data_ptr(), 0, count)], 4))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == pytest.approx(x.double().square().sum().item(), rel=1e-12)


def test_where_no_library_of_the_kind_is_found_a_pool_serves(monkeypatch):
    def refuse(name):
        raise OSError("no such library")

    jit.parallel.cache_clear()
    monkeypatch.setattr(jit.ctypes, "CDLL", refuse)
    try:
        assert jit.parallel() is None
    finally:
        jit.parallel.cache_clear()
