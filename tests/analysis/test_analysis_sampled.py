"""What is said of drawn weights: which are drawn, that the bounds hold as often as they say, and what is exact."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from reference import sample as reference
from safetensors.torch import save_file
from torch import Tensor

from sparsight.analysis import Summary, analyze
from sparsight.analysis.analyze import from_memory
from sparsight.analysis.reader import flat
from sparsight.analysis.sampled import CELLS, Band, band, droppable, gini
from sparsight.analysis.seen import DRAWS, Draws, magnitudes_of, shares
from sparsight.analysis.summary import octaves, of_ranked, ranked
from sparsight.analysis.text import table
from sparsight.checkpoint.entry import Entry
from sparsight.numerics.seeds import derive
from sparsight.records.record import dumps

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def entry_of(x: Tensor, name: str = "a.weight") -> Entry:
    return from_memory({name: x}).entries[0]


# -- which weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 10_007), (1031, 61), (1, 1 << 17)], ids=str)
def test_the_draws_are_those_of_numpy_by_name_and_shape(dtype: torch.dtype, shape: tuple[int, int]):
    x = normal(*shape).to(dtype)
    draws = Draws(entry_of(x), few=100)
    for a, z in pairwise([0, 5, 8_192, 20_001, x.numel()]):
        draws.take(flat(x)[a:z], a)
    seed = derive(0, "places", "a.weight", *shape)
    places = np.random.Generator(np.random.PCG64(seed)).integers(0, x.numel(), DRAWS)
    drawn = x.double().abs().flatten().numpy()[places]
    found = magnitudes_of([draws])
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(found, np.sort(drawn))
    draws.keep_few()
    assert np.array_equal(magnitudes_of([draws]), np.sort(drawn[:100]))


def test_few_weights_are_taken_whole():
    x = normal(4, 4096).bfloat16()
    draws = Draws(entry_of(x))
    assert draws.whole
    for at in (8192, 0):
        draws.take(flat(x)[at : at + 8192], at)
    assert np.array_equal(magnitudes_of([draws]), np.sort(x.float().abs().flatten().numpy()))
    assert not Draws(entry_of(normal(4, 4097))).whole


def test_a_sample_of_all_takes_as_many_of_each_as_fall_there():
    entries = [entry_of(normal(1, n), f"{n}.weight") for n in (300_000, 100_000, 4)]
    few = shares(entries)
    assert few == shares(entries[::-1])
    assert sum(few.values()) == DRAWS
    assert few["300000.weight"] / DRAWS == pytest.approx(0.75, abs=5 * math.sqrt(0.75 * 0.25 / DRAWS))
    assert shares([entries[2]]) == {}


def test_the_same_weights_are_drawn_however_they_are_read(tmp_path):
    tensors = {"a.weight": normal(700, 1501), "b.weight": normal(30, 9001).bfloat16(), "c.weight": normal(9, 9)}
    save_file(tensors, tmp_path / "m.safetensors")
    shards = tmp_path / "shards"
    shards.mkdir()
    for i, (name, x) in enumerate(tensors.items()):
        save_file({name: x}, shards / f"m-{i}.safetensors")
    index = ", ".join(f'"{name}": "m-{i}.safetensors"' for i, name in enumerate(tensors))
    (shards / "model.safetensors.index.json").write_text(f'{{"metadata": {{}}, "weight_map": {{{index}}}}}')
    found = set()
    for threads, budget in ((1, 32 << 20), (2, 256 << 20)):
        torch.set_num_threads(threads)
        for thing in (tensors, tmp_path / "m.safetensors", shards):
            a = analyze(thing, (0.5, 1.0), (1.0, 2.0), (0.0, 0.1), budget=budget)
            assert a.whole is not None
            assert [t.summary.draws for t in sorted(a.tensors, key=lambda t: t.name)] == [DRAWS, DRAWS, None]
            of = sorted(dumps(t) for t in a.tensors)
            found.add((*of, a.whole.gini, a.whole.gini_error, a.whole.octaves, a.whole.measures[0].keeps[1].exact))
    assert len(found) == 1


# -- the bounds ------------------------------------------------------------------------------------------------

SHAPES = {
    "normal": lambda x, u: x,
    "heavy tail": lambda x, u: u**-0.8,
    "ties": lambda x, u: (x * 3).round(),
    "mostly zero": lambda x, u: x * (u < 0.03),
    "one large": lambda x, u: torch.where(torch.arange(x.numel()).view_as(x) == 77, 1e6, x * 1e-3),
    "one alone": lambda x, u: torch.where(torch.arange(x.numel()).view_as(x) == 77, 1.0, 0.0),
    "all equal": lambda x, u: torch.full_like(x, 0.3),
    "two scales": lambda x, u: torch.where(u < 0.5, x * 1e-30, x * 1e20),
    "rows of one scale": lambda x, u: x * torch.arange(1, len(x) + 1)[:, None],
    "sorted": lambda x, u: x.abs().flatten().sort().values.view_as(x),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bounds_hold(kind: str, dtype: torch.dtype):
    """Of a tensor and of several dtypes together, by sorting all weights in longdouble."""
    x = SHAPES[kind](normal(300, 500, seed=3), torch.rand(300, 500, generator=torch.Generator().manual_seed(4)))
    named = {"a.weight": x.to(dtype), "b.weight": x[:, :250].double().contiguous()}
    etas = (0.0, 0.01, 0.1, 1.0)
    found = analyze(named, (0.5, 1.0), (1.0, 2.0), etas)
    values = [w.double().flatten().numpy() for w in named.values()]
    for s, w in zip([*(t.summary for t in found.tensors), found.whole], [*values, np.concatenate(values)], strict=True):
        assert isinstance(s, Summary)
        assert s.draws == DRAWS
        assert s.gini is not None
        assert s.gini_error is not None
        w = w[w != 0]
        true = reference.gini_by_ranks(w)
        assert abs(s.gini - true) <= s.gini_error + 1e-12
        for m in s.measures:
            for k in m.keeps:
                least, most = reference.droppable(w, m.p, k.eta, 1e-12) if k.eta else (0, 0)
                assert k.exact is not None
                assert k.exact_low is not None
                assert k.exact_high is not None
                assert k.exact_low - 1e-9 <= 1 - least / len(w)
                assert k.exact_high + 1e-9 >= 1 - most / len(w)
                assert k.exact_low <= k.exact <= k.exact_high
                if kind in ("normal", "sorted"):
                    assert k.exact_high - k.exact_low < 0.035
                    assert abs(k.exact - (1 - least / len(w))) < 0.01
        if kind in ("normal", "sorted"):
            assert s.gini_error < 0.036
            assert abs(s.gini - true) < 0.006


def test_as_often_as_they_say():
    """The band fails in at most a share `delta` of the draws, and not in far fewer: its constant is the right one."""
    rng = np.random.default_rng(5)
    weights = np.sort(np.abs(rng.standard_normal(20_000)))
    true, half, mean = reference.gini_by_ranks(weights), float(np.sqrt(weights).mean()), float(weights.mean())
    goal = 0.1 / 1.1 * half
    share = reference.droppable(weights, 0.5, 0.1)[0] / len(weights)
    for delta, seeds, most_outside in ((1e-3, 200, 2), (0.5, 400, 200)):
        outside = wrong = 0
        for _ in range(seeds):
            x = np.sort(rng.choice(weights, 1024))
            seen = band(x, weights[0], weights[-1], delta=delta)
            ranks = np.arange(1, len(x) + 1)
            within = np.searchsorted(weights, x, side="right") / len(weights)  # F at the draws
            before = np.searchsorted(weights, x, side="left") / len(weights)
            eps = math.sqrt(math.log(2 / delta) / 2 / len(x))
            assert seen.away == math.ceil(eps * len(x))
            outside += max(np.max(ranks / len(x) - within), np.max(before - (ranks - 1) / len(x))) > eps
            least, _, most = gini(seen, mean)
            low, _, high = droppable(seen, 0.5, half, goal)
            wrong += not (least <= true <= most and low <= share <= high)
        assert outside <= most_outside  # 0.2 and 200 are expected at most
        assert wrong <= min(outside, delta * seeds)
        if delta == 0.5:
            assert outside > 0.3 * seeds


def linear(band: Band, mean: float) -> tuple[float, float]:
    """Least and greatest Gini index over ascending Q in the band with this mean: by linear programming, in cells."""
    from scipy.optimize import linprog

    n, away = len(band.cells), band.away
    low = np.concatenate([np.full(away, band.first), band.cells[: n - away]])
    high = np.concatenate([band.cells[away:], np.full(away, band.last)])
    weight = (2 * np.arange(n) + 1 - n) / n**2 / mean
    rise = np.eye(n)[:-1] - np.eye(n)[1:]
    ends = []
    for sign in (1, -1):
        found = linprog(
            sign * weight, rise, np.zeros(n - 1), np.ones((1, n)), [n * mean], list(zip(low, high, strict=True))
        )
        ends.append(sign * found.fun)
    return ends[0], ends[1]


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_are_the_best_of_their_band(seed: int):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.exponential(size=40) ** (1 + seed))
    seen = Band(x, 0.0, float(x[-1]) * 1.5, x, 5)
    mean = float(x.mean()) * 1.02
    least, value, greatest = gini(seen, mean)
    low, high = linear(seen, mean)
    assert least == pytest.approx(low, abs=1e-9)
    assert high - 1e-9 <= greatest <= high + 0.25 * seen.last / mean / len(x) ** 2  # the switch may be within a cell
    assert least <= value <= greatest


def test_of_many_draws_cells_are_taken_which_hold_the_band():
    x = np.sort(np.random.default_rng(6).exponential(size=10_001))
    eps = math.sqrt(math.log(2 / 1e-3) / 2 / len(x))
    seen = band(x, 0.0, 30.0)
    assert len(seen.cells) == CELLS
    for k in range(1, CELLS + 1):  # x_(j - m) and x_(j + m) for the j of both ends of the cell
        last, first = math.ceil(len(x) * (k / CELLS + eps)), math.floor(len(x) * ((k - 1) / CELLS - eps)) + 1
        high = seen.cells[k - 1 + seen.away] if k - 1 + seen.away < CELLS else 30.0
        low = seen.cells[k - 1 - seen.away] if k - 1 >= seen.away else 0.0
        assert high >= (x[last - 1] if last <= len(x) else 30.0)
        assert low <= (x[first - 1] if first >= 1 else 0.0)


def test_zeros_that_no_draw_misses_and_weights_that_none_hits():
    x = torch.zeros(200, 1000)
    x[7, 7] = 2.0
    s = analyze({"a.weight": x}, eta=0.1).tensors[0].summary
    assert s.gini == 0.0
    assert s.gini_error == 0.0
    assert s.octaves == ()


# -- exact -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "ties", "all equal", "mostly zero"])
def test_exact_in_parts_that_are_smaller_than_what_there_is(kind: str):
    x = SHAPES[kind](normal(30, 500), torch.rand(30, 500, generator=torch.Generator().manual_seed(4)))
    entries = from_memory({"a.weight": x, "b.weight": x[:10].bfloat16()}).entries
    w = torch.cat([x, x[:10].bfloat16().float()]).double().flatten().abs().numpy()
    w = w[w > 0]
    goal = 0.1 / 1.1 * float(w.sum())
    for budget in (40, 8 * 997, 1 << 20):
        if budget == 40 and kind != "all equal":
            continue  # a pass for five weights each
        parts = [part.copy() for part in ranked(entries, budget)]
        assert np.array_equal(np.concatenate(parts), np.sort(w.astype(np.float32)))
        assert all(len(part) <= max(budget // 8, 1) or part[0] == part[-1] for part in parts)
        found, droppable, counts = of_ranked(parts, len(w), float(w.sum()), 1.0, [(1.0, goal)])
        assert found == pytest.approx(reference.gini_by_ranks(w), abs=1e-12)
        least, most = reference.droppable(w, 1.0, 0.1)
        assert least <= droppable[0] <= most
        assert sum(n for _, n in counts) == len(w)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_octaves(dtype: type):
    ends = [np.finfo(dtype).smallest_subnormal, 0.25, 0.5, 0.75, 1.0, np.finfo(dtype).max]
    least = round(math.log2(float(ends[0])))
    most = {np.float32: 127, np.float64: 1023}[dtype]
    assert octaves(np.array([0.0, 0.0, *ends], dtype)) == {least: 1, -2: 1, -1: 2, 0: 1, most: 1}
    assert octaves(np.zeros(3, dtype)) == {}


# -- what is told ----------------------------------------------------------------------------------------------


def test_the_table_says_what_was_drawn_and_what_was_not_looked_at():
    found = " ".join(table(analyze({"a.weight": normal(1 << 10, 300)})).split())
    assert (
        "with probability 99.9 % for each: 16,384 weights each were drawn from 1 tensor; --exact makes it exact"
        in found
    )
    tall = " ".join(table(analyze({"a.weight": torch.ones((1 << 20) + 1, 1)})).split())
    assert "without single neurons, because of more than 1,048,576 rows: a.weight" in tall
    small = table(analyze({"a.weight": normal(10, 30)}))
    assert "drawn" not in small
    assert "without single neurons" not in small
