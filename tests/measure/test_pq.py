"""The PQ index against golden values, its six properties and a reference at 60 digits, whatever the data."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from reference import pq as reference

from sparsight.measure.pq import (
    PowerSums,
    effective_count,
    group_sums,
    power_sums,
    pq_index,
    pq_index_gradient,
    prune_count,
    retained_bound,
    row_sums,
)
from sparsight.numerics.kernels import power_sums as kernel

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pqi_golden.json").read_text())
PAIRS = ((0.5, 1.0), (1.0, 2.0), (0.2, 1.0), (0.8, 1.0), (0.1, 1.0), (1.0, 1.2), (0.5, 2.0))
WIDE = torch.float64
NARROW = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {WIDE: 1e-12, **dict.fromkeys(NARROW, 1e-9)}  # of the index, which lies in [0, 1], and of ln r
SEED = st.integers(0, 2**32 - 1)


def golden_tensor(vector):
    x = vector.get("x") or [1 / (i + 1) for i in range(100)]
    mask = vector.get("mask")
    return torch.tensor(x, dtype=WIDE), None if mask is None else torch.tensor(mask, dtype=torch.bool)


def normal(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE).to(dtype)


def some_mask(x, seed=1):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.6


# -- golden values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda v: v["id"])
def test_golden_vectors(vector):
    x, mask = golden_tensor(vector)
    for pair, expected in vector["pqi"].items():
        p, q = (float(part.split("=")[1]) for part in pair.split(","))
        assert pq_index(x, p, q, mask=mask) == pytest.approx(expected, abs=1e-12)
        narrow = float(reference.pq_index(reference.alive(x.float(), mask), p, q))
        assert pq_index(x.float(), p, q, mask=mask) == pytest.approx(narrow, abs=1e-8)
    for case in vector["prune"]:
        p, q, eta, gamma, beta = (case[name] for name in ("p", "q", "eta", "gamma", "beta"))
        for y in (x, x.float()):
            r = retained_bound(vector["d"], pq_index(y, p, q, mask=mask), p, q, eta)
            assert r == pytest.approx(case["r"], rel=1e-12 if y is x else 2e-6)
            assert prune_count(vector["d"], r, gamma, beta) == case["c_paper"]
            assert prune_count(vector["d"], r, gamma, beta, rounding="reference") == case["c_ref_formula"]


def network():
    sizes = {"fc1.weight": (5, 6, 1.0), "fc2.weight": (4, 5, 0.5), "fc3.weight": (3, 4, 2.0)}
    found, k = {}, 0
    for name, (rows, columns, scale) in sizes.items():
        values = [scale * math.sin(i) for i in range(k + 1, k + rows * columns + 1)]
        found[name] = torch.tensor(values, dtype=WIDE).reshape(rows, columns)
        k += rows * columns
    return found


def test_the_golden_network_is_built_right():
    for name, first in GOLDEN["networks"]["mlp3"]["first_weights"].items():
        assert network()[name].flatten()[:4].tolist() == pytest.approx(first, abs=1e-15)


@pytest.mark.parametrize("run", GOLDEN["networks"]["mlp3"]["sap"])
def test_golden_network_in_every_scope(run):
    p, q, eta, gamma, beta = (run[name] for name in ("p", "q", "eta", "gamma", "beta"))
    groups = run["iterations"][0]["groups"]
    found = group_sums(network(), None, (p, q), run["scope"])
    assert [name for name, _ in found] == [g["group"] for g in groups]
    for (_, sums), expected in zip(found, groups, strict=True):
        r = retained_bound(sums.count, sums.index(p, q), p, q, eta)
        assert sums.count == expected["d"]
        assert sums.index(p, q) == pytest.approx(expected["pqi"], abs=1e-12)
        assert r == pytest.approx(expected["r"], rel=1e-12)
        assert prune_count(sums.count, r, gamma, beta) == expected["c"]


@pytest.mark.parametrize("case", GOLDEN["property_counterexamples_outside_domain"], ids=lambda c: str(c["p"]))
def test_robin_hood_fails_outside_the_domain_and_that_is_said(case):
    small = [0.001] * 60
    before, after = ([1.0, 0.8, *small], [0.95, 0.85, *small]) if case["q"] < 1 else (case["before"], case["after"])
    with pytest.warns(UserWarning, match="p <= 1 <= q"):
        found = [pq_index(torch.tensor(v, dtype=WIDE), case["p"], case["q"]) for v in (before, after)]
    assert found == pytest.approx([case["I_before"], case["I_after"]], abs=1e-12)
    assert found[1] > found[0]


@pytest.mark.parametrize("case", GOLDEN["properties"], ids=lambda c: c["property"])
@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_golden_properties(case, p, q):
    before, after = (pq_index(torch.tensor(case[k], dtype=WIDE), p, q) for k in ("before", "after"))
    if "=" in case["relation"]:
        assert after == pytest.approx(before, abs=1e-14)
    else:
        assert after < before if "<" in case["relation"] else after > before


@pytest.mark.parametrize("case", GOLDEN["large_d_limits"], ids=lambda c: f"{c['dist']}-{c['p']}-{c['q']}")
def test_limits_of_large_d(case):
    u = (torch.arange(1 << 17, dtype=WIDE) + 0.5) / (1 << 17)  # quantiles of |w|
    laws = {
        "gaussian": lambda: math.sqrt(2) * torch.erfinv(u),
        "laplace": lambda: -torch.log1p(-u),
        "uniform": lambda: u,
    }
    x = laws[case["dist"]]()
    assert pq_index(x, case["p"], case["q"]) == pytest.approx(case["I"], abs=2e-4)
    assert effective_count(x, case["p"], case["q"]) / len(x) == pytest.approx(case["r_over_d"], abs=2e-4)


# -- accuracy --------------------------------------------------------------------------------------------------


def values(draw, dtype):
    """A tensor of any size up to two rows of lanes and a bit, of any scale, with zeros and ties."""
    n = draw(st.integers(1, 40))
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    kinds = {
        "normal": lambda g: torch.randn(n, generator=g, dtype=WIDE),
        "ties": lambda g: torch.randint(1, 4, (n,), generator=g).double() / 3,
        "zeros": lambda g: torch.randint(0, 2, (n,), generator=g).double() * 0.3,
        "wide": lambda g: torch.exp(20 * torch.randn(n, generator=g, dtype=WIDE)),
        "denormal": lambda g: tiny * torch.rand(n, generator=g, dtype=WIDE),
        "largest": lambda g: huge * torch.rand(n, generator=g, dtype=WIDE),
        "tiny": lambda g: 1e-30 * torch.randn(n, generator=g, dtype=WIDE),
        "huge": lambda g: 1e20 * torch.randn(n, generator=g, dtype=WIDE),
        "tiniest": lambda g: 1e-300 * torch.randn(n, generator=g, dtype=WIDE),
        "both": lambda g: 10.0 ** torch.randint(-300, 300, (n,), generator=g).double(),
    }
    make = draw(st.sampled_from(sorted(kinds)))
    g = torch.Generator().manual_seed(draw(SEED))
    return torch.nan_to_num(kinds[make](g).to(dtype), posinf=huge, neginf=-huge)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from((WIDE, *NARROW)), st.sampled_from(PAIRS))
def test_accuracy_for_any_data(data, dtype, pair):
    x = values(data.draw, dtype)
    mask = data.draw(st.none() | st.builds(lambda seed: some_mask(x, seed), SEED))
    w = reference.alive(x, mask)
    assert pq_index(x, *pair, mask=mask) == pytest.approx(float(reference.pq_index(w, *pair)), abs=TOLERANCE[dtype])
    r = float(reference.effective_count(w, *pair))
    assert effective_count(x, *pair, mask=mask) == pytest.approx(r, rel=10 * TOLERANCE[dtype])
    entropy = float(reference.effective_count(w, pair[1], pair[1]))
    assert effective_count(x, pair[1], pair[1], mask=mask) == pytest.approx(entropy, rel=TOLERANCE[dtype])


def test_rounded_square_roots_do_not_add_up():
    """Two magnitudes over and over, so that every float32 root is rounded the same way."""
    worst, naive = 0.0, 0.0
    for seed in range(40):
        pair = 0.5 + torch.rand(2, generator=torch.Generator().manual_seed(seed))
        expected = float(reference.pq_index(reference.alive(pair), 0.5, 1.0))
        x = pair.repeat(5_000)
        rounded = 1 - float(x.sqrt().double().mean() ** 2 / x.double().mean())
        naive = max(naive, abs(rounded - expected))
        worst = max(worst, abs(pq_index(x) - expected))
    assert worst < 2.5e-10
    assert naive > 1e-8


@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
def test_counts_of_repeated_magnitudes_are_exact(dtype):
    """Half zeros, half one magnitude: the bound at (0.5, 1) is exactly the half."""
    for value in (2.0, 0.5, *torch.linspace(1, 4, 200).tolist()):
        x = torch.zeros(1_000, dtype=dtype)
        x[500:] = value
        assert prune_count(1_000, effective_count(x, 0.5, 1.0)) == 500, value


@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
def test_large_tensors_are_as_accurate(dtype):
    x = normal(300_001, dtype=dtype)
    w = x.double().abs().numpy().astype(np.longdouble)
    for p, q in PAIRS:
        means = [(np.sum(w ** np.longdouble(e)) / len(w)) ** (1 / np.longdouble(e)) for e in (p, q)]
        assert pq_index(x, p, q) == pytest.approx(float(1 - means[0] / means[1]), abs=TOLERANCE[dtype] / 10)


@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
def test_every_bit_pattern_is_read_right(dtype):
    if dtype in (torch.float16, torch.bfloat16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = x[torch.isfinite(x)]
    else:
        x = torch.cat([normal(5000, dtype=dtype) * s for s in (1, 1e-30, 1e-44)])
    sums = power_sums(x, (1.0, 2.0))
    assert sums.sums[0] == pytest.approx(math.fsum(x.double().abs().tolist()), rel=1e-14)
    assert sums.sums[1] == pytest.approx(math.fsum((x.double() ** 2).tolist()), rel=1e-14)
    assert sums.zeros == int((x == 0).sum())
    assert sums.largest == x.double().abs().max()
    assert sums.smallest == x.double().abs().min()


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 8191, 8192, 8193, 100_000])
@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
def test_equal_magnitudes_give_exactly_zero(n, dtype):
    x = torch.full((n,), 0.1, dtype=dtype) * torch.where(torch.arange(n) % 2 == 0, 1, -1).to(dtype)
    for p, q in PAIRS:
        assert pq_index(x, p, q) == 0.0
        assert effective_count(x, p, q) == n
    assert effective_count(x, 1.0, 1.0) == n


def test_no_norm_is_ever_formed():
    """At p = 0.1 a norm of 8000 weights overflows float32, from which comes an index of 0."""
    x = torch.sin(torch.arange(1, 8001, dtype=torch.float32))
    expected = reference.pq_index(reference.alive(x), 0.1, 1.0)
    assert pq_index(x, 0.1, 1.0) == pytest.approx(float(expected), abs=1e-8)
    assert expected > 0.18


def test_the_sum_over_chunks_loses_nothing():
    x = torch.zeros(8192 * 41, dtype=WIDE)
    x[::8192] = 1.0
    x[0] = 2.0**53  # to which 1 cannot be added in float64
    assert power_sums(x, (1.0,)).sums[0] == 2.0**53 + 40


# -- the six properties ----------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.integers(0, 1000).map(lambda i: i / 64), min_size=2, max_size=12)
DOMAIN = st.tuples(st.floats(0.1, 1.0), st.floats(1.0, 3.0)).filter(lambda pq: pq[1] - pq[0] > 0.05)


def at(w, pair):
    return pq_index(torch.tensor(w, dtype=WIDE), *pair)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, DOMAIN, st.data())
def test_robin_hood(w, pair, data):
    i = max(range(len(w)), key=w.__getitem__)
    j = min(range(len(w)), key=w.__getitem__)
    gap = w[i] - w[j]
    if gap == 0:
        return
    a = gap * data.draw(st.floats(0.05, 0.45))
    after = [v - a if k == i else v + a if k == j else v for k, v in enumerate(w)]
    assert at(after, pair) < at(w, pair)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, DOMAIN, st.floats(1e-100, 1e100))
def test_scaling(w, pair, factor):
    assert at([v * factor for v in w], pair) == pytest.approx(at(w, pair), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, DOMAIN, st.floats(0.05, 10))
def test_rising_tide(w, pair, a):
    if len(set(w)) > 1:
        assert at([v + a for v in w], pair) < at(w, pair)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, DOMAIN, st.integers(2, 20))
def test_cloning(w, pair, times):
    assert at(w * times, pair) == pytest.approx(at(w, pair), abs=1e-13)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, DOMAIN, st.data())
def test_bill_gates(w, pair, data):
    i = data.draw(st.integers(0, len(w) - 1))
    if not any(v for k, v in enumerate(w) if k != i):
        return
    rich = [v + 10 * sum(w) if k == i else v for k, v in enumerate(w)]
    richer = [v * 1.5 if k == i else v for k, v in enumerate(rich)]
    assert at(richer, pair) > at(rich, pair)


@settings(max_examples=40, deadline=None)
@given(WEIGHTS, DOMAIN)
def test_babies(w, pair):
    if any(w):
        assert at([*w, 0.0], pair) > at(w, pair)


# -- groups, masks, threads ------------------------------------------------------------------------------------

SHAPES = ((7,), (3, 5), (50_000,), (9, 20_000), (700, 33), (4, 3, 3, 3), (0,), (0, 4), (4, 0), ())


@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
@pytest.mark.parametrize("masked", [False, True])
def test_threads_and_scopes_do_not_change_a_bit(dtype, masked):
    tensors = {str(i): normal(s, i, dtype) for i, s in enumerate(SHAPES)}
    tensors["big"] = normal((2, 1_100_000), 3, dtype)
    masks = {n: some_mask(x) for n, x in tensors.items()} if masked else None
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append([group_sums(tensors, masks, (0.5, 1.0), s) for s in ("neuron", "layer", "global")])
    assert found[0] == found[1] == found[2]
    neurons, layers, (everything,) = found[0]
    for name, sums in layers:
        rows = [s for row, s in neurons if row.rpartition("[")[0] == name]
        if rows:
            assert PowerSums.merge(rows) == sums
        alone = power_sums(tensors[name], (0.5, 1.0), mask=masks and masks[name])
        assert alone == sums
    assert PowerSums.merge([s for _, s in layers]) == everything[1]
    assert pq_index(tensors, mask=masks) == everything[1].index(0.5, 1.0)


@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
@pytest.mark.parametrize("pair", [(0.5, 1.0), (1.0, 2.0), (0.3, 1.0)])
def test_a_mask_selects(dtype, pair):
    for shape in ((9, 20_000), (33,), (7, 5)):
        x = normal(shape, dtype=dtype)
        mask = some_mask(x)
        assert pq_index(x, *pair, mask=mask) == pytest.approx(pq_index(x[mask], *pair), abs=TOLERANCE[dtype])
        assert power_sums(x, pair, mask=mask).count == int(mask.sum())
        assert power_sums(x, pair, mask=torch.ones_like(mask)) == power_sums(x, pair)
        assert effective_count(x, *pair, mask=mask) == pytest.approx(effective_count(x[mask], *pair), rel=1e-8)
    assert pq_index(x, mask=torch.zeros_like(mask)) == 0.0


@pytest.mark.parametrize("exponents", [(0.5, 1.0), (1.0, 2.0), (0.3, 1.0)])
def test_more_exponents_do_not_change_the_bits_of_others(exponents):
    x = normal((30, 3000))
    more = power_sums(x, (0.5, 1.0, 2.0, 0.3))
    less = power_sums(x, exponents)
    for e, s in zip(exponents, less.sums, strict=True):
        assert more.sums[more.exponents.index(e)] == s
    assert more.index(*exponents) == less.index(*exponents)


@pytest.mark.parametrize("at", [8192, 3 * 8192])
def test_pieces_of_a_row_merge(at):
    x = normal(70_000)
    pieces = [power_sums(part, (0.5, 1.0)) for part in (x[:at], x[at:])]
    assert pieces[0] + pieces[1] == power_sums(x, (0.5, 1.0))


def test_pieces_of_very_different_scale_merge():
    x = torch.cat([normal(8192, dtype=WIDE) * s for s in (1e-300, 1.0, 1e-200, 1e300, 1e150)])
    pieces = [power_sums(part, (1.0, 2.0)) for part in x.split(8192)]
    whole = power_sums(x, (1.0, 2.0))
    assert PowerSums.merge(pieces) == whole
    assert whole.scale > 1e200
    expected = reference.pq_index(reference.alive(x[:40_960:997]), 1.0, 2.0)
    assert pq_index(x[:40_960:997], 1.0, 2.0) == pytest.approx(float(expected), abs=1e-12)


def test_entropy_survives_a_change_of_scale():
    x = torch.cat([normal(8192, dtype=WIDE) * s for s in (1e250, 1e250, 2.0)])
    y = x / 1e250
    assert effective_count(x, 1.0, 1.0) == pytest.approx(effective_count(y, 1.0, 1.0), rel=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, (1, 2), (0, -1), (0, 1, 2)])
def test_dim_reduces_as_in_torch(dim):
    x = normal((6, 5, 4), dtype=WIDE)
    mask = some_mask(x)
    dims = {d % 3 for d in ((dim,) if isinstance(dim, int) else dim)}
    for m in (None, mask):
        found, counts = pq_index(x, mask=m, dim=dim), effective_count(x, mask=m, dim=dim)
        assert found.dtype == counts.dtype == torch.float64
        assert found.shape == counts.shape == x.sum(dim).shape
        for place in itertools.product(*(range(n) if d not in dims else (slice(None),) for d, n in enumerate(x.shape))):
            at = tuple(i for i in place if isinstance(i, int))
            part, kept = x[place], None if m is None else m[place]
            assert float(found[at]) == pytest.approx(pq_index(part, mask=kept), abs=1e-14)
            assert float(counts[at]) == pytest.approx(effective_count(part, mask=kept), rel=1e-14)
    with pytest.raises(IndexError, match="got 3"):
        pq_index(x, dim=3)


def test_memory_format_does_not_matter():
    x = normal((8, 6, 3, 3))
    assert pq_index(x.contiguous(memory_format=torch.channels_last)) == pq_index(x)
    assert pq_index(x.permute(3, 1, 0, 2)) == pytest.approx(pq_index(x), abs=1e-12)
    assert pq_index(x.requires_grad_()) == pq_index(x.detach())


def test_several_tensors_count_as_one():
    tensors = {"a": normal((3, 4), dtype=WIDE), "b": normal(5, dtype=WIDE)}
    masks = {n: some_mask(x) for n, x in tensors.items()}
    joined = torch.cat([x.flatten() for x in tensors.values()])
    mask = torch.cat([m.flatten() for m in masks.values()])
    assert pq_index(tensors) == pytest.approx(pq_index(joined), abs=1e-14)
    assert pq_index(tensors, mask=masks) == pytest.approx(pq_index(joined, mask=mask), abs=1e-14)
    assert effective_count(tensors, 1, 1) == pytest.approx(effective_count(joined, 1, 1), rel=1e-14)
    assert pq_index({}) == 0.0


# -- undefined, refused, counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 20])
def test_undefined_is_zero_and_prunes_nothing(n):
    x = torch.zeros(n)
    assert pq_index(x) == 0.0
    assert math.copysign(1, pq_index(x)) == 1
    sums = power_sums(x, (0.5, 1.0))
    assert not sums.defined
    assert (sums.count, sums.zeros) == (n, n)
    assert effective_count(x) == effective_count(x, 1, 1) == n
    assert prune_count(n, retained_bound(n, 0.0, 0.5, 1.0)) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [WIDE, *NARROW])
@pytest.mark.parametrize("pair", [(0.5, 1.0), (1.0, 2.0), (0.3, 1.0)])
def test_what_is_not_finite_is_refused_by_name_unless_masked(bad, dtype, pair):
    for shape, where in (((20, 1000), (11, 3)), ((5,), (4,))):
        x = normal(shape, dtype=dtype)
        mask = torch.ones(shape, dtype=torch.bool)
        mask[where] = False
        expected = pq_index(x, *pair, mask=mask)
        x[where] = bad
        with pytest.raises(ValueError, match="'x' has"):
            pq_index(x, *pair)
        with pytest.raises(ValueError, match="'fc.weight' has"):
            pq_index({"fine": normal(3), "fc.weight": x}, *pair)
        assert pq_index(x, *pair, mask=mask) == expected


def test_large_finite_weights_are_not_infinite():
    x = torch.full((1000,), 1e308, dtype=WIDE)
    x[0] = 5e307
    assert pq_index(x, 1.0, 2.0) == pytest.approx(pq_index(x / 1e308, 1.0, 2.0), abs=1e-13)


@pytest.mark.parametrize(
    ("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.5, math.inf), (math.nan, 1.0)]
)
def test_exponents_are_refused(p, q):
    x = normal(5)
    for call in (lambda: pq_index(x, p, q), lambda: retained_bound(5, 0.1, p, q), lambda: pq_index_gradient(x, p, q)):
        with pytest.raises(ValueError, match="p must be less than q"):
            call()
    if p != q:
        with pytest.raises(ValueError, match="p must be at most q"):
            effective_count(x, p, q)


def test_the_domain_is_silent_and_its_outside_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for p, q in PAIRS:
            pq_index(normal(5), p, q)
    for p, q in ((2.0, 3.0), (0.1, 0.9)):
        with pytest.warns(UserWarning, match="p <= 1 <= q"):
            pq_index(normal(5), p, q)


def test_wrong_masks_and_types_are_refused():
    x = normal((2, 3))
    with pytest.raises(ValueError, match=r"mask of 'x'.*\(2, 3\)"):
        pq_index(x, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask of 'x'"):
        pq_index(x, mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"missing \['a'\]"):
        pq_index({"a": x}, mask={})
    with pytest.raises(ValueError, match="mask must be a"):
        pq_index(x, mask={"x": torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="mask must be a"):
        pq_index({"a": x}, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="dim must be None .*, got 0"):
        pq_index({"a": x}, dim=0)
    with pytest.raises(ValueError, match="dtype of 'x' must be one of .*, got torch.int64"):
        pq_index(torch.arange(3))
    with pytest.raises(ValueError, match="distinct"):
        power_sums(x, (1.0, 1.0))
    with pytest.raises(ValueError, match="same exponents"):
        _ = power_sums(x, (1.0,)) + power_sums(x, (2.0,))
    with pytest.raises(ValueError, match="no sums for the exponent 2"):
        power_sums(x, (0.5, 1.0)).index(1.0, 2.0)


def test_hill_number():
    x = normal(300, dtype=WIDE)
    w = reference.alive(x)
    for p, q in PAIRS:
        r = effective_count(x, p, q)
        assert r == pytest.approx(float(reference.effective_count(w, p, q)), rel=1e-12)
        assert r == pytest.approx(retained_bound(300, pq_index(x, p, q), p, q), rel=1e-12)
        padded = torch.cat([x, torch.zeros(500, dtype=WIDE)])
        assert effective_count(padded, p, q) == pytest.approx(r, rel=1e-12)
    limit = effective_count(x, 1.0, 1.0)
    assert limit == pytest.approx(float(reference.effective_count(w, 1.0, 1.0)), rel=1e-12)
    assert effective_count(x, 1.0, 1.0 + 1e-6) == pytest.approx(limit, rel=1e-5)


def test_retained_bound():
    assert retained_bound(100, 0.5, 0.5, 1.0) == pytest.approx(50)
    assert retained_bound(100, 0.5, 1.0, 2.0) == pytest.approx(25)
    assert retained_bound(100, 0.5, 1.0, 2.0, eta=1.0) == pytest.approx(25 / 4)
    assert retained_bound(100, 1.0, 1.0, 2.0) == 0.0
    many = retained_bound(torch.tensor([100, 10]), torch.tensor([0.5, 0.0], dtype=WIDE), 1.0, 2.0)
    torch.testing.assert_close(many, torch.tensor([25.0, 10.0], dtype=WIDE))
    for wrong in ({"index": 1.5}, {"index": math.nan}, {"count": -1}, {"eta": -0.1}, {"eta": math.inf}):
        with pytest.raises(ValueError, match="must be"):
            retained_bound(**{"count": 10, "index": 0.5, "p": 0.5, "q": 1.0, **wrong})


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.sampled_from((0.0, 0.3, 1.0, 3.0, 9.0)),
    st.sampled_from((0.0, 0.1, 0.9, 1.0)),
)
def test_prune_count_in_fractions(d, share, gamma, beta):
    for r in (share * d, float(math.floor(share * d))):
        edge = min(gamma * (d - r), beta * d) % 1
        if min(abs(edge - 1e-9 * max(1, d)), abs(1 - edge - 1e-9 * max(1, d))) < 1e-9:
            continue  # on the edge of the snap itself, floats and fractions may part
        assert prune_count(d, r, gamma, beta) == reference.prune_count(d, r, gamma, beta)
        ceiling = math.ceil(r) if abs(r - round(r)) > 1e-9 * max(1, d) else round(r)
        expected = reference.prune_count(d, ceiling, gamma, beta)
        assert prune_count(d, r, gamma, beta, rounding="reference") == expected


def test_counts_are_not_lost_to_rounding():
    for d in range(1, 60):
        for kept in range(d + 1):
            assert prune_count(d, d * (1 - (d - kept) / d), 1.0, 1.0) == d - kept
    assert prune_count(10, 3.7, 0.5, 0.9) == 3
    assert prune_count(10, 3.7, 0.5, 0.9, rounding="reference") == 3
    assert prune_count(10, 0.1, 1.0, 0.9) == 9
    assert prune_count(10, 7.9, 3.0, 0.9) == 6
    assert prune_count(10, 7.9, 4.0, 0.9) == 8
    assert prune_count(10, 7.1, 1.5, 0.9) == 4
    assert prune_count(10, 7.1, 1.5, 0.9, rounding="reference") == 3
    for wrong in ({"beta": 1.5}, {"gamma": -1.0}, {"r": math.nan}, {"count": -1}):
        with pytest.raises(ValueError, match="must be"):
            prune_count(**{"count": 10, "r": 3.0, **wrong})


def test_rounding_is_one_of_two():
    with pytest.raises((ValueError, TypeCheckError), match="rounding"):
        prune_count(10, 3.0, rounding="up")


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_gradient(p, q):
    x = torch.tensor([0.3, -1.2, 2.0, 0.7, -0.05], dtype=WIDE)
    expected = [float(v) for v in reference.gradient(x.tolist(), p, q)]
    assert pq_index_gradient(x, p, q).tolist() == pytest.approx(expected, rel=1e-9)
    assert pq_index_gradient(x * 1e-200, p, q).mul(1e-200).tolist() == pytest.approx(expected, rel=1e-9)
    with_zero = torch.cat([x, torch.zeros(1, dtype=WIDE)])
    assert pq_index_gradient(with_zero, p, q)[-1] == 0
    assert pq_index_gradient(torch.zeros(3), p, q).tolist() == [0.0] * 3
    assert pq_index_gradient(x.float(), p, q).dtype == torch.float32


def test_rows_come_as_arrays():
    x = normal((6, 9))
    rows = row_sums({"a": x}, (0.5, 1.0))["a"]
    assert len(rows) == 6
    assert rows.count.tolist() == [9] * 6
    assert rows.defined.all()
    assert rows.index(0.5, 1.0).tolist() == pq_index(x, dim=1).tolist()
    assert rows.effective(0.5, 1.0).tolist() == effective_count(x, dim=1).tolist()
    assert rows.row(2) == power_sums(x[2], (0.5, 1.0))
    assert power_sums(x, (0.5, 1.0), rows=True).row(2) == rows.row(2)


def test_whole_numbers_need_no_code_of_their_own():
    """Kernels are compiled for each type of argument, which takes a second."""
    x, kernels = torch.randn(9), (kernel.index, kernel.effective, kernel.of_lines)
    compiled = set()
    for p, q in ((1.0, 2.0), (1, 2), (1.0, 2), (1, 2.0)):
        assert pq_index(x, p, q) == power_sums(x, (1, 2)).index(p, q)
        assert effective_count(x, p, q) == power_sums(x, (1.0, 2.0)).effective(p, q)
        compiled.add(tuple(len(k.signatures) for k in kernels))
    assert len(compiled) == 1
