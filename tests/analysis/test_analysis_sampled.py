"""Histograms of a sample: which weights are drawn, and that the stated bounds hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sparsight.analysis import Summary, analyze, stream
from sparsight.analysis.memory import from_memory
from sparsight.records.record import dumps

GOLDEN = 0x9E3779B97F4A7C15
FULL = (1 << 64) - 1


def draw(i: int) -> int:
    """SplitMix64, as published, in Python's integers."""
    z = (i + 1) * GOLDEN & FULL
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & FULL
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & FULL
    return z ^ (z >> 31)


def drawn(count: int, every: int) -> list[tuple[int, int]]:
    """(place, for how many it counts) of the weights that are counted."""
    found = []
    for block in range(-(-count // every)):
        bits, start = draw(block // 8), block * every
        n = min(every, count - start)
        at = (bits >> 8 * (block % 8)) & (every - 1) if n == every else (bits >> 32) * n >> 32
        found.append((start + at, n))
    return found


def slow_keys(x: Tensor) -> np.ndarray:
    flat = x.reshape(-1)
    if x.dtype == torch.float64:
        return (flat.view(torch.int64).numpy().view(np.uint64) >> 45) & 0x3FFFF
    if x.dtype == torch.float32:
        return (flat.view(torch.int32).numpy().view(np.uint32) >> 16) & 0x7FFF
    return flat.view(torch.int16).numpy().view(np.uint16) & 0x7FFF


def counts(
    x: Tensor, counted: stream.Counted = "sampled", exponents: tuple[float, ...] = (1.0,)
) -> tuple[np.ndarray, int]:
    entries = from_memory({"a.weight": x}).entries
    (seen,) = stream.stream(entries, exponents, counted=counted, keep_rows=False, budget=256 << 20)
    return seen.counts, seen.every


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "length", "every"), [(3, 100_003, 4), (1031, 1021, 16), (1, 640_007, 8)])
def test_one_weight_of_each_block_is_counted(dtype: torch.dtype, rows: int, length: int, every: int):
    x = torch.randn(rows, length, generator=torch.Generator().manual_seed(1)).to(dtype)
    found, rate = counts(x)
    assert rate == every
    expected = np.zeros(len(found), np.int64)
    keys = slow_keys(x)
    for place, n in drawn(x.numel(), every):
        expected[keys[place]] += n
    assert np.array_equal(found, expected)
    assert found.sum() == x.numel()
    full, rate = counts(x, "full")
    assert rate == 1
    assert np.array_equal(full, np.bincount(keys.astype(np.int64), minlength=len(full)))


@pytest.mark.parametrize("exponents", [(0.5, 1.0), (1.0, 2.0), (0.5, 1.0, 2.0), (0.7,)], ids=str)
@pytest.mark.parametrize(
    ("rows", "length", "every"), [(2, 65_539, 2), (70, 31_013, 32), (131, 33_331, 64), (9_000, 600, 64)]
)
def test_whatever_is_summed_meanwhile(exponents: tuple[float, ...], rows: int, length: int, every: int):
    x = torch.randn(rows, length, generator=torch.Generator().manual_seed(3))
    found, rate = counts(x, exponents=exponents)
    assert rate == every
    places, n = np.array(drawn(x.numel(), every)).T
    assert np.array_equal(found, np.bincount(slow_keys(x)[places].astype(np.int64), n, len(found)).astype(np.int64))


@pytest.mark.parametrize(
    ("count", "every"), [(1, 1), ((1 << 17) - 1, 1), (1 << 17, 2), ((1 << 22) - 1, 32), (1 << 22, 64), (1 << 30, 64)]
)
def test_how_many_are_counted(count: int, every: int):
    entry = from_memory({"a.weight": torch.empty(1, 1).expand(1, count)}).entries[0]
    assert stream.every_of(entry, "sampled") == every
    assert stream.every_of(entry, "full") == 1
    assert stream.every_of(entry, "none") == 0


def test_the_same_weights_are_drawn_however_they_are_read(tmp_path):
    x = torch.randn(700, 1501, generator=torch.Generator().manual_seed(2))
    save_file({"a.weight": x}, tmp_path / "m.safetensors")
    threads = torch.get_num_threads()
    found = set()
    try:
        for n, budget in ((1, 32 << 20), (2, 256 << 20)):
            torch.set_num_threads(n)
            for thing in ({"a.weight": x}, tmp_path / "m.safetensors"):
                a = analyze(thing, (0.5, 1.0), (1.0, 2.0), (0.0, 0.1), budget=budget)
                found.add(dumps(a.tensors[0]))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


SHAPES = {
    "normal": lambda x, u: x,
    "heavy tail": lambda x, u: u**-0.8,
    "ties": lambda x, u: (x * 3).round(),
    "mostly zero": lambda x, u: x * (u < 0.03),
    "one large": lambda x, u: torch.where(torch.arange(x.numel()).view_as(x) == 77, 1e6, x * 1e-3),
    "all equal": lambda x, u: torch.full_like(x, 0.3),
    "two scales": lambda x, u: torch.where(u < 0.5, x * 1e-30, x * 1e20),
    "rows of one scale": lambda x, u: x * torch.arange(1, len(x) + 1)[:, None],
    "sorted": lambda x, u: x.abs().flatten().sort().values.view_as(x),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bounds_hold(kind: str, dtype: torch.dtype):
    """The exact answers lie within the stated bounds, of a tensor and of several dtypes together."""
    g = torch.Generator().manual_seed(3)
    x = SHAPES[kind](torch.randn(600, 1000, generator=g), torch.rand(600, 1000, generator=g)).to(dtype)
    named = {"a.weight": x, "b.weight": x[:, :500].double().contiguous()}
    rough = analyze(named, (0.5, 1.0), (1.0, 2.0), (0.0, 0.01, 0.1, 1.0))
    fine = analyze(named, (0.5, 1.0), (1.0, 2.0), (0.0, 0.01, 0.1, 1.0), exact=True)
    assert [t.summary.every for t in rough.tensors] == [8, 4]
    pairs = [(a.summary, b.summary) for a, b in zip(rough.tensors, fine.tensors, strict=True)]
    for a, b in [*pairs, (rough.whole, fine.whole)]:
        assert isinstance(a, Summary)
        assert isinstance(b, Summary)
        assert a.measures[0].index == b.measures[0].index
        assert a.gini is not None
        assert a.gini_error is not None
        assert b.gini is not None
        assert abs(a.gini - b.gini) <= a.gini_error + 1e-12
        for m, true in zip(a.measures, b.measures, strict=True):
            for k, t in zip(m.keeps, true.keeps, strict=True):
                assert k.exact_low is not None
                assert k.exact_high is not None
                assert k.exact is not None
                assert t.exact is not None
                assert k.exact_low - 1e-9 <= t.exact <= k.exact_high + 1e-9
                assert k.exact_low <= k.exact <= k.exact_high
                if kind in ("normal", "sorted", "rows of one scale"):
                    assert k.exact_high - k.exact_low < 0.057
                    assert abs(k.exact - t.exact) < 0.007
        if kind in ("normal", "sorted", "rows of one scale"):
            assert a.gini_error < 0.043
            assert abs(a.gini - b.gini) < 0.006


def test_the_share_up_to_a_bin_strays_as_much_as_the_bound_says():
    """Over many orders of the same weights the greatest deviation is of the size of the bound, and below it."""
    from sparsight.analysis.histogram import decode
    from sparsight.analysis.sampled import envelope

    rng = np.random.default_rng(4)
    x = torch.randn(1, 1 << 18, generator=torch.Generator().manual_seed(5))
    keys = slow_keys(x).astype(np.int64)
    true = np.cumsum(np.bincount(keys, minlength=1 << 15)) / x.numel()
    largest, bounds = [], []
    for _ in range(30):
        shuffled = x[:, rng.permutation(x.numel())].contiguous()
        found, every = counts(shuffled)
        bins = decode("float32", found, 0, every)
        seen = envelope(bins, 0, float(x.abs().min()), float(x.abs().max()))
        at = true[np.flatnonzero(found)]
        assert (seen.least[1:] <= at).all()
        assert (at <= seen.most[1:]).all()
        largest.append(np.abs(seen.share - at).max())
        bounds.append((seen.most - seen.least).max() / 2)
    assert 0.05 < max(largest) / max(bounds) < 0.6


def test_a_kind_of_histogram_that_there_is_not():
    with pytest.raises(ValueError, match="histogram='all', allowed are 'sampled', 'full' and 'none'"):
        analyze({"a.weight": torch.ones(2, 2)}, histogram="all")  # type: ignore[arg-type]


def test_the_table_says_what_was_sampled_and_what_was_not_looked_at():
    from sparsight.analysis.text import table

    g = torch.Generator().manual_seed(6)
    found = table(analyze({"a.weight": torch.randn(1 << 10, 300, generator=g)}))
    assert "a sample of the weights of 1 large tensor was counted; --histogram full counts all" in found
    tall = table(analyze({"a.weight": torch.ones((1 << 20) + 1, 1)}))
    assert "neurons not looked at one by one: a.weight (more than 1,048,576 rows)" in tall
    small = table(analyze({"a.weight": torch.randn(10, 30, generator=g)}))
    assert "sample" not in small
    assert "neurons not looked at" not in small
