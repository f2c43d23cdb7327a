"""Exact selection against one sorted list, for every dtype, scope, layout and thread count."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import select as reference

from sparsight.numerics import select
from sparsight.numerics.kernels import select as kernels
from sparsight.numerics.select import keep_largest, prune_smallest

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SHAPES = ((), (0,), (1,), (7,), (0, 3), (3, 0), (5, 4), (64, 3), (3, 64), (2, 3, 4, 5), (1, 3000), (1300, 3))
SEED = st.integers(0, 2**32 - 1)
VALUES = ("normal", "small integers", "special", "bits", "constant", "rising", "tiny")


def draw(seed, dtype, shape, values="normal", layout="contiguous"):
    """Scores of one tensor, from a seed."""
    g = torch.Generator().manual_seed(seed)
    tiny = torch.finfo(dtype).smallest_normal
    if values == "normal":
        x = torch.randn(shape, generator=g, dtype=torch.float64)
    elif values == "small integers":
        x = torch.randint(-2, 3, shape, generator=g).double() * torch.where(torch.rand(shape, generator=g) < 0.5, -1, 1)
    elif values == "special":
        pool = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, tiny, -tiny, tiny / 4, -tiny / 4, 1.0, -1.0])
        x = pool.double()[torch.randint(0, len(pool), shape, generator=g)]
    elif values == "bits":
        width = dtype.itemsize
        raw = torch.randint(0, 256, (*shape, width), generator=g, dtype=torch.uint8).view(dtype).reshape(shape)
        x = torch.where(raw.isnan(), torch.zeros_like(raw), raw)
    elif values == "constant":
        x = torch.full(shape, 0.5)
    elif values == "rising":
        x = torch.arange(torch.Size(shape).numel()).reshape(shape) / 7
    else:  # neighbours in the last bits: every digit of the key counts
        x = 1 + torch.randint(-300, 300, shape, generator=g).double() * torch.finfo(dtype).eps
    return lay(x.to(dtype), layout)


def lay(x, layout):
    """The same entries, elsewhere in memory."""
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "channels last" and x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided" and x.dim():
        return torch.stack([x, x], dim=-1)[..., 0]
    return x


@st.composite
def networks(draw_, mixed=True):
    """Scores and masks of up to four tensors; NaN behind some masks."""
    n = draw_(st.integers(1, 4))
    one = draw_(st.sampled_from(DTYPES))
    values = draw_(st.sampled_from(VALUES))
    share = draw_(st.sampled_from((0.0, 0.3, 0.9, 1.0)))
    scores, masks = {}, {}
    for i in range(n):
        dtype = draw_(st.sampled_from(DTYPES)) if mixed and draw_(st.booleans()) else one
        shape, seed = draw_(st.sampled_from(SHAPES)), draw_(SEED)
        layout, other = (draw_(st.sampled_from(("contiguous", "transposed", "channels last", "strided"))) for _ in "ab")
        score = draw(seed, dtype, shape, values, layout)
        mask = lay(torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < share, other)
        score[~mask & (torch.rand(shape) < 0.5)] = torch.nan
        scores[f"t{i}"], masks[f"t{i}"] = score, mask
    return scores, masks


@contextlib.contextmanager
def small_blocks(block):
    """Cut into many pieces, as large networks are."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (kernels, select):
            patch.setattr(module, "BLOCK", block)
        yield


def same(got, expected):
    masks, floors = got
    flat, reference_floors = expected
    for name, mask in masks.items():
        assert mask.dtype == torch.bool
        assert mask.is_contiguous()
        assert reference.flat(mask) == flat[name], name
    assert floors == reference_floors


def alive_of(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def row_sums(mask):
    rows = mask.shape[0] if mask.dim() else 1
    return mask.reshape(rows, mask.numel() // rows).sum(1) if rows else torch.zeros(0, dtype=torch.int64)


@settings(max_examples=120, deadline=None)
@given(networks(), st.floats(0, 1), st.integers(0, 3), st.sampled_from((700, 1 << 20)))
@example(({"a": torch.tensor([0.0, -0.0, 0.0])}, {"a": torch.ones(3, dtype=torch.bool)}), 0.4, 0, 700)
def test_global(network, share, floor, block):
    scores, masks = network
    alive = alive_of(masks)
    least = sum(min(floor, n) for n in alive.values())
    count = round(share * (sum(alive.values()) - least))
    before = {name: (scores[name].clone(), masks[name].clone()) for name in scores}
    expected = reference.prune(scores, masks, count, "global", floor)
    with small_blocks(block):
        got = prune_smallest(scores, masks, count, min_keep=floor)
        same(got, expected)
        same(keep_largest(scores, masks, sum(alive.values()) - count, min_keep=floor), expected)
    assert sum(alive_of(got[0]).values()) == sum(alive.values()) - count
    for name, (score, mask) in before.items():
        assert scores[name].equal(score) or scores[name].isnan().equal(score.isnan())
        assert masks[name].equal(mask)


@settings(max_examples=50, deadline=None)
@given(networks(), SEED, st.sampled_from((700, 1 << 20)))
def test_layer(network, seed, block):
    scores, masks = network
    g = torch.Generator().manual_seed(seed)
    alive = alive_of(masks)
    counts = {name: int(torch.randint(0, n + 1, (), generator=g)) for name, n in alive.items()}
    expected = reference.prune(scores, masks, counts, "layer")
    with small_blocks(block):
        same(prune_smallest(scores, masks, counts, scope="layer"), expected)
        kept = {name: alive[name] - counts[name] for name in counts}
        same(keep_largest(scores, masks, kept, scope="layer"), expected)


@settings(max_examples=80, deadline=None)
@given(networks(), SEED, st.sampled_from((700, 1 << 20)))
def test_neuron(network, seed, block):
    scores, masks = network
    g = torch.Generator().manual_seed(seed)
    alive = {name: row_sums(mask) for name, mask in masks.items()}
    counts = {name: (torch.rand(n.shape, generator=g) * (n + 1)).long() for name, n in alive.items()}
    expected = reference.prune(scores, masks, counts, "neuron")
    with small_blocks(block):
        same(prune_smallest(scores, masks, counts, scope="neuron"), expected)
        kept = {name: alive[name] - counts[name] for name in counts}
        same(keep_largest(scores, masks, kept, scope="neuron"), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", ["normal", "small integers", "tiny", "rising"])
def test_threads_and_blocks_change_nothing(dtype, values):
    """Several blocks, and a tensor that is read block by block."""
    scores = {"a": draw(1, dtype, (400, 500), values), "b": draw(2, dtype, (100, 1001), values, "transposed")}
    masks = {name: draw(3, torch.float32, s.shape) > -1 for name, s in scores.items()}
    alive = torch.cat([s[masks[n]] for n, s in scores.items()])
    order = alive.double().sort(stable=True).indices
    for count in (1, len(alive) // 10, len(alive) - 7):
        expected = torch.ones(len(alive), dtype=torch.bool).scatter_(0, order[:count], False)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with small_blocks(1 << 15):
                kept, _ = prune_smallest(scores, masks, count)
            assert torch.cat([kept[n][masks[n]] for n in scores]).equal(expected)
            assert not any((kept[n] & ~masks[n]).any() for n in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_the_real_size(dtype):
    score = draw(1, dtype, (5 << 20,))
    expected = score.double().sort(stable=True).indices[: 1 << 20].sort().values
    torch.set_num_threads(2)
    kept, _ = prune_smallest({"a": score}, {"a": torch.ones(score.shape, dtype=torch.bool)}, 1 << 20)
    assert (~kept["a"]).nonzero().squeeze(1).equal(expected)


def test_ties_across_blocks_go_in_order():
    block = 5000
    n = 2 * block + 5
    scores = {"a": torch.ones(n), "b": torch.ones(3)}
    masks = {name: torch.ones(s.shape, dtype=torch.bool) for name, s in scores.items()}
    for count in (0, 1, block, block + 1, n, n + 2, n + 3):
        with small_blocks(block):
            got, _ = prune_smallest(scores, masks, count)
        kept = torch.cat([got["a"], got["b"]])
        assert not kept[:count].any()
        assert kept[count:].all()


def test_dtypes_compare_by_true_value():
    scores = {
        "half": torch.tensor([0.1, 2.0], dtype=torch.float16),  # 0.0999755859375
        "brain": torch.tensor([0.1, 3.0], dtype=torch.bfloat16),  # 0.10009765625
        "single": torch.tensor([0.1, 0.09998], dtype=torch.float32),  # 0.100000001490116
        "double": torch.tensor([0.1, 1e-300], dtype=torch.float64),
    }
    masks = {name: torch.ones(2, dtype=torch.bool) for name in scores}
    kept, _ = keep_largest(scores, masks, 4)
    assert {name: m.tolist() for name, m in kept.items()} == {
        "half": [False, True], "brain": [True, True], "single": [True, False], "double": [False, False],
    }  # fmt: skip


def test_the_floor_is_reported_where_it_binds_and_the_total_stays_exact():
    scores = {"low": torch.tensor([1.0, 2.0, 3.0]), "high": torch.tensor([10.0, 20.0, 30.0, 40.0])}
    masks = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    kept, floors = prune_smallest(scores, masks, 3, min_keep=2)
    assert floors == ("low",)
    assert kept["low"].tolist() == [False, True, True]
    assert kept["high"].tolist() == [False, False, True, True]
    kept, floors = prune_smallest(scores, masks, 3, min_keep=1)
    assert floors == ("low",)
    assert kept["low"].tolist() == [False, False, True]
    assert kept["high"].tolist() == [False, True, True, True]
    assert prune_smallest(scores, masks, 2, min_keep=1)[1] == ()


def ones(**shapes):
    scores = {name.replace("_", "."): torch.rand(shape) for name, shape in shapes.items()}
    return scores, {name: torch.ones(s.shape, dtype=torch.bool) for name, s in scores.items()}


def rows_of(*counts):
    return {"fc1.weight": torch.tensor(counts)}


@pytest.mark.parametrize(
    ("call", "counts", "scope", "floor", "said"),
    [
        (prune_smallest, 7, "global", 0, r"cannot prune 7 of 6 alive weights$"),
        (keep_largest, -1, "global", 0, r"cannot keep -1 of 6 alive weights$"),
        (keep_largest, 0, "global", 1, r"cannot keep 0 of 6 alive weights: min_keep=1 keeps at least 1 of them"),
        (prune_smallest, {"fc1.weight": 7}, "layer", 0, r"cannot prune 7 of 6 alive weights in 'fc1.weight'$"),
        (prune_smallest, {"fc1.weight": 6}, "layer", 1, r"cannot prune 6 of 6 .* in 'fc1.weight': min_keep=1"),
        (keep_largest, rows_of(1, 4), "neuron", 0, r"cannot keep 4 of 3 alive weights in 'fc1.weight\[1\]'"),
        (prune_smallest, rows_of(-1, 0), "neuron", 0, r"cannot prune -1 of 3 alive weights in 'fc1.weight\[0\]'"),
        (prune_smallest, rows_of(0, 3), "neuron", 2, r"cannot prune 3 of 3 .*\[1\]': min_keep=2 keeps at least 2"),
        (prune_smallest, rows_of(1, 1, 1), "neuron", 0, r"must be .*\(2,\), got torch.int64 of shape \(3,\)"),
        (prune_smallest, rows_of(1.0, 1.0), "neuron", 0, r"got torch.float32"),
        (prune_smallest, {"fc2.weight": 1}, "layer", 0, r"missing \['fc1.weight'\], unexpected \['fc2.weight'\]"),
        (prune_smallest, 1, "global", -1, r"min_keep must be at least 0, got -1"),
    ],
)
def test_refused_counts(call, counts, scope, floor, said):
    scores, masks = ones(fc1_weight=(2, 3))
    with pytest.raises(ValueError, match=said):
        call(scores, masks, counts, scope=scope, min_keep=floor)


@pytest.mark.parametrize(
    ("counts", "scope"),
    [(True, "global"), (1.0, "global"), (2, "layer"), ({"a": 1.5}, "layer"), ({"a": True}, "layer")],
)
def test_counts_of_the_wrong_type(counts, scope):
    with pytest.raises(TypeError):
        prune_smallest(*ones(a=(2, 3)), counts, scope=scope)


def test_mismatched_masks():
    scores, masks = ones(a=(2, 3), b=(4,))
    with pytest.raises(ValueError, match=r"masks must have .* missing \['b'\], unexpected \['c'\]"):
        prune_smallest(scores, {"a": masks["a"], "c": masks["b"]}, 1)
    with pytest.raises(ValueError, match=r"masks\['b'\] must have the shape of its scores, \(4,\), got \(5,\)"):
        prune_smallest(scores, {**masks, "b": torch.ones(5, dtype=torch.bool)}, 1)
    with pytest.raises(TypeError):
        prune_smallest(scores, {**masks, "b": torch.ones(4)}, 1)
    with pytest.raises(TypeError):
        prune_smallest({**scores, "b": torch.ones(4, dtype=torch.int64)}, masks, 1)


def test_order_is_that_of_the_scores():
    scores, masks = {"a": torch.ones(2), "b": torch.ones(2)}, {n: torch.ones(2, dtype=torch.bool) for n in "ba"}
    kept, _ = prune_smallest(scores, masks, 2)
    assert list(kept) == ["a", "b"]
    assert not kept["a"].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
def test_nan_is_refused_by_name_where_alive(dtype, sign, scope):
    for count in (0, 1):
        counts = {
            "global": count,
            "layer": {"a": count, "b": count},
            "neuron": {"a": torch.tensor([count, 0]), "b": torch.tensor([0, count])},
        }[scope]
        scores = {name: torch.rand(2, 3).to(dtype) for name in "ab"}
        masks = {name: torch.ones(2, 3, dtype=torch.bool) for name in "ab"}
        scores["b"][1, 0] = torch.nan
        scores["b"] = torch.copysign(scores["b"], torch.tensor(sign, dtype=dtype))
        with pytest.raises(ValueError, match="NaN among the alive scores of 'b'"):
            prune_smallest(scores, masks, counts, scope=scope)
        masks["b"][1, 0] = False
        prune_smallest(scores, masks, counts, scope=scope)


def test_nothing_to_choose_from():
    assert prune_smallest({}, {}, 0) == ({}, ())
    scores, masks = ones(a=(0, 4), b=(3, 0), c=())
    masks = {name: torch.zeros_like(m) for name, m in masks.items()}
    kept, _ = prune_smallest(scores, masks, 0, min_keep=1)
    assert {n: (m.shape, int(m.sum())) for n, m in kept.items()} == {n: (s.shape, 0) for n, s in scores.items()}


def test_scores_of_parameters_carry_no_gradient():
    layer = torch.nn.Linear(4, 3)
    masks = {"weight": torch.ones(3, 4, dtype=torch.bool)}
    kept, _ = prune_smallest({"weight": layer.weight}, masks, 5)
    assert int(kept["weight"].sum()) == 7
    assert not kept["weight"].requires_grad
