"""What `analyze` says: agreement with slow float64 arithmetic, and the same bits however it is run."""

import csv
import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import sample as reference
from safetensors.torch import save_file
from torch import Tensor, nn

import sparsight
from sparsight.analysis import Analysis, Summary, analyze, stream
from sparsight.analysis.page import page
from sparsight.analysis.records import QUANTILES, Row
from sparsight.analysis.tensor_kinds import kind_of
from sparsight.analysis.text import as_csv, grid, headline, neuron_table, ordered, table, wrapped
from sparsight.checkpoint import CheckpointError, open_checkpoint
from sparsight.measure.pq import power_sums, prune_count, retained_bound
from sparsight.records.record import dumps, from_json, to_json

PAIRS = ((0.5, 1.0), (1.0, 2.0), (0.3, 1.7))
P, Q = tuple(p for p, _ in PAIRS), tuple(q for _, q in PAIRS)
ETAS = (0.0, 0.01, 0.3)


def slow_index(x: np.ndarray, p: float, q: float) -> float:
    """PQ index in float64 by its definition, after a scaling that changes nothing."""
    x = np.abs(x.astype(np.float64)).ravel()
    if not len(x) or x.max() == 0:
        return 0.0
    x = x / x.max()
    low, high = ((math.fsum((x**e).tolist()) / len(x)) ** (1 / e) for e in (p, q))
    return max(1 - low / high, 0.0)


def double(x: Tensor) -> np.ndarray:
    return x.double().numpy()


def agree(s: Summary, x: np.ndarray, tolerance: float) -> None:
    assert (s.count, s.zeros) == (x.size, int((x == 0).sum()))
    x = x[x != 0]
    assert s.alive == len(x)
    assert s.defined == bool(len(x))
    for m in s.measures:
        assert m.index == pytest.approx(slow_index(x, m.p, m.q), abs=tolerance)
        if not s.defined:
            continue
        for k in m.keeps:
            bound = len(x) * (1 + k.eta) ** (-m.q / (m.q - m.p)) * (1 - m.index) ** (m.p * m.q / (m.q - m.p))
            assert k.bound == pytest.approx(bound, rel=1e-12)
            assert k.share == k.bound / len(x)
            assert k.prune == prune_count(len(x), k.bound)
            assert k.exact_low <= k.exact <= k.exact_high
            if k.eta:
                least, most = reference.droppable(x, m.p, k.eta)
                assert k.exact_low <= 1 - least / len(x) + 1e-12
                assert k.exact_high >= 1 - most / len(x) - 1e-12
            else:
                assert k.exact == 1.0
    assert abs(s.gini - reference.gini(x if len(x) else np.zeros(1))) <= s.gini_error + 1e-9


DTYPES = {torch.float64: 1e-12, torch.float32: 1e-8, torch.float16: 1e-8, torch.bfloat16: 1e-8}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(st.sampled_from([(1, 1), (1, 7), (5, 3), (4, 2, 3, 3), (40, 9), (3, 130), (7, 1)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    scales = [1.0, 0.02, 1e-4] + ([1e-30, 1e20] if dtype not in (torch.float16,) else [])
    x = rng.standard_normal(shape) * draw(st.sampled_from(scales))
    kind = draw(st.sampled_from(["plain", "zeros", "ties", "all zero", "wide"]))
    if kind == "zeros":
        x[rng.random(shape) < 0.6] = 0.0
    elif kind == "ties":
        x = np.sign(x) * draw(st.sampled_from([1.0, 0.1]))
    elif kind == "all zero":
        x = x * 0.0
    elif kind == "wide":
        x = x * 10.0 ** rng.integers(-3, 3, shape)
    if draw(st.integers(0, 9)) == 0 and dtype == torch.float32:
        x = rng.integers(0, 100, shape) * 2.0**-149  # denormals
    return torch.from_numpy(x).to(dtype)


@settings(max_examples=60, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3))
def test_agrees_with_slow_arithmetic(drawn: list[Tensor]):
    named = {f"t{i}.weight": x for i, x in enumerate(drawn)}
    found = analyze(named, P, Q, ETAS, rows=True)
    assert [t.name for t in found.tensors] == list(named)
    for t, x in zip(found.tensors, drawn, strict=True):
        agree(t.summary, double(x), DTYPES[x.dtype])
        for row, values in zip(t.rows, double(x).reshape(x.shape[0], -1), strict=True):
            for (p, q), index in zip(PAIRS, row.index, strict=True):
                assert index == pytest.approx(slow_index(values[values != 0], p, q), abs=DTYPES[x.dtype])
            assert row.zeros == int((values == 0).sum())
    assert found.whole is not None
    everything = np.concatenate([double(x).ravel() for x in drawn])
    agree(found.whole, everything, max(DTYPES[x.dtype] for x in drawn))


@settings(max_examples=40, deadline=None)
@given(tensors(), st.sampled_from(ETAS[1:]))
def test_exact_is_exact(x: Tensor, eta: float):
    found = analyze({"a.weight": x, "b.weight": x * 2}, P, Q, eta, exact=True)
    for s, values in ((found.tensors[0].summary, double(x)), (found.whole, np.concatenate([double(x), 2 * double(x)]))):
        assert s is not None
        assert s.gini_error == 0
        values = values[values != 0]
        assert not len(values) or s.gini == pytest.approx(
            reference.gini(values) if len(s.octaves) < 40 else s.gini, abs=1e-9
        )
        for m in s.measures if s.defined else ():
            least, most = reference.droppable(values, m.p, eta)
            dropped = round((1 - m.keeps[0].exact) * s.alive)
            assert least <= dropped <= most
            assert m.keeps[0].exact_low == m.keeps[0].exact_high


def test_few_weights_are_all_looked_at():
    x = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    for dtype in DTYPES:
        s = analyze({"x.weight": x.to(dtype)}, eta=0.1).tensors[0].summary
        assert (s.gini_error, s.draws) == (0.0, None)
        assert s.gini == pytest.approx(reference.gini_by_ranks(x.to(dtype).double().numpy()), abs=1e-12)
    more = analyze({"x.weight": torch.cat([x, x[:1]])}).tensors[0].summary
    assert more.draws == 1 << 14
    assert more.gini_error is not None
    assert 0 < more.gini_error < 0.04


# -- the same bits ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> dict[str, Tensor]:
    """Rows longer than a chunk and than a piece, short rows, one weight a row, all dtypes."""
    g = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    return {
        "long.weight": draw(3, 70_000).double(),
        "longest.weight": draw(2, 1_100_000),
        "short.weight": draw(20_000, 9).bfloat16(),
        "single.weight": draw(9_000, 1).half(),
        "usual.weight": draw(700, 512),
    }


def test_any_threads_budget_and_shards(large: dict[str, Tensor], tmp_path: Path):
    first = analyze(large, P[:2], Q[:2], 0.1, rows=True)
    by_name = {t.name: t for t in first.tensors}
    torch.set_num_threads(3)
    assert analyze(large, P[:2], Q[:2], 0.1, rows=True) == first
    torch.set_num_threads(1)
    save_file(large, tmp_path / "m.safetensors")
    wide = analyze(tmp_path, P[:2], Q[:2], 0.1, rows=True)
    for budget in (32 << 20, 1 << 30):
        assert analyze(tmp_path, P[:2], Q[:2], 0.1, rows=True, budget=budget) == wide
    assert {t.name: t for t in wide.tensors} == by_name


def test_records_made_while_others_are_still_read(tmp_path: Path):
    """Large tensors of short rows have theirs made by the thread that reads their last piece."""
    g = torch.Generator().manual_seed(2)
    tensors = {f"{i}.weight": torch.randn(1100, 1000, generator=g) for i in range(4)}
    tensors["1.weight"][77, 5] = torch.nan
    tensors["2.weight"] = tensors["2.weight"].bfloat16()
    save_file(tensors, tmp_path / "m.safetensors")
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for source in (tensors, tmp_path):
            some = analyze(source, P[:2], Q[:2], (0.0, 0.1), rows=True).tensors
            found.append(sorted(some, key=lambda t: t.name))  # a file has an order of its own
        exact = analyze(tensors, exact=True)
        assert exact.exact
        assert [t.name for t in exact.tensors] == ["0.weight", "2.weight", "3.weight"]
        assert [(e.name, e.why) for e in exact.listed] == [("1.weight", "it contains NaN or infinity")]
    torch.set_num_threads(1)
    assert all(f == found[0] for f in found)
    alone = [analyze({t.name: tensors[t.name]}, P[:2], Q[:2], (0.0, 0.1), rows=True).tensors[0] for t in found[0]]
    assert found[0] == alone


@given(
    x=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 30)), elements=st.floats(0, 8, width=16)),
    eta=st.sampled_from([0.0, 0.07]),
    gamma=st.sampled_from([0.3, 1.0, 2.5]),
    pair=st.sampled_from([(0.5, 1.0), (1.0, 2.0), (0.3, 1.9), (0.7, 3.0)]),
)
def test_what_is_said_of_neurons_is_what_is_said_of_rows(x, eta: float, gamma: float, pair: tuple[float, float]):
    w = torch.from_numpy(x)
    (tensor,) = analyze({"a.weight": w}, *pair, eta, gamma=gamma).tensors
    (said,) = tensor.neurons
    rows = [row[row != 0] for row in w if row.any()]
    assert said.count == len(w)
    assert said.undefined == len(w) - len(rows)
    index = [sparsight.pq_index(row, *pair) for row in rows]
    at = np.quantile(index, QUANTILES) if index else np.zeros(len(QUANTILES))
    assert said.index == pytest.approx(at, abs=1e-14)
    bounds = [retained_bound(len(row), i, *pair, eta) for row, i in zip(rows, index, strict=True)]
    counts = [prune_count(len(row), r, gamma, 0.9) for row, r in zip(rows, bounds, strict=True)]
    assert said.prune == (sum(counts),)


def test_sums_are_those_of_power_sums(large: dict[str, Tensor]):
    """The streaming pass and `power_sums` give the same bits."""
    for t in analyze(large).tensors:
        sums = power_sums(large[t.name], (0.5, 1.0, 2.0), mask=large[t.name] != 0)
        assert t.summary.measures[0].index == sums.index(0.5, 1.0)
        assert t.summary.largest == sums.largest


def test_memory_is_bounded_by_blocks():
    assert stream.block_of(32 << 20) * 8 * max(torch.get_num_threads(), 1) <= 16 << 20
    assert stream.block_of(1 << 40) == stream.BLOCK
    with pytest.raises(ValueError, match="budget must be .* got 1,000"):
        analyze({"a.weight": torch.ones(2, 2)}, budget=1000)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    save_file({"a.weight": torch.ones(100, 100)}, path)
    entries = open_checkpoint(path).entries
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends inside 'a.weight'"):
        list(stream.stream(entries, (1.0,), few=None, keep_rows=False, budget=32 << 20))


# -- what is analysed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("layer1.0.conv1.weight", (8, 4, 3, 3), "weight"), ("fc.weight", (10, 4), "weight"),
        ("fc.bias", (10,), "bias"), ("rnn.bias_ih_l0", (10,), "bias"), ("rnn.weight_hh_l0", (10, 4), "weight"),
        ("bn1.weight", (8,), "norm"), ("model.norm.weight", (8,), "norm"), ("ln_f.weight", (8,), "norm"),
        ("encoder.LayerNorm.weight", (8,), "norm"), ("a.LayerNorm.bias", (8,), "bias"),
        ("bn1.running_mean", (8,), "buffer"), ("bn1.num_batches_tracked", (), "buffer"),
        ("model.embed_tokens.weight", (100, 8), "embedding"), ("transformer.wte.weight", (100, 8), "embedding"),
        ("embeddings.position_ids", (1, 512), "buffer"), ("temperature", (), "vector"),
    ],
)  # fmt: skip
def test_kinds(name: str, shape: tuple, kind: str):
    dtype = "int64" if name.endswith(("tracked", "ids")) else "float32"
    assert kind_of(name, shape, dtype) == kind


def test_what_cannot_be_analysed_is_listed_with_the_reason():
    found = analyze(
        {
            "a.weight": torch.randn(3, 3), "a.bias": torch.randn(3), "i": torch.ones(2, 2, dtype=torch.int64),
            "f8.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "nan.weight": torch.full((2, 2), math.nan),
            "inf.weight": torch.full((2, 2), math.inf), "none.weight": torch.empty(0, 3),
        }
    )  # fmt: skip
    assert [t.name for t in found.tensors] == ["a.weight"]
    assert found.whole is not None
    assert found.whole.count == 9
    why = {x.name: x.why for x in found.listed}
    assert "bias" in why["a.bias"]
    assert "float8_e4m3fn" in why["f8.weight"]
    assert "int64" in why["i"]
    assert why["nan.weight"] == why["inf.weight"] == "it contains NaN or infinity"
    assert "no weight" in why["none.weight"]


def test_patterns():
    state = {"a.weight": torch.ones(2, 2), "a.bias": torch.ones(2), "b.weight": torch.ones(2, 2)}
    found = analyze(state, include=["*.bias"], exclude="b.*")
    assert [t.name for t in found.tensors] == ["a.weight", "a.bias"]
    assert found.listed[0].why == "excluded"
    with pytest.raises(ValueError, match=r"'nope\*' matches no tensor"):
        analyze(state, include="nope*")


def test_tied_tensors_count_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.emb = nn.Embedding(5, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.b.weight, self.head.weight = self.a.weight, self.emb.weight

    found = analyze(Tied())
    assert [(t.name, t.aliases) for t in found.tensors] == [("a.weight", ("b.weight",))]
    w = torch.randn(4, 4)
    assert [t.aliases for t in analyze({"x": w, "y": w}).tensors] == [("y",)]


def test_a_module_is_measured_as_sap_would():
    """Global counts are those of the allocator."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 10))
    masks = sparsight.dense(model)
    scores = {n: model.get_parameter(n).detach() for n in masks}
    plan = sparsight.SAP(p=0.5, q=1.0).plan({n: s.abs() for n, s in scores.items()}, masks)
    found = analyze(model)
    assert found.whole is not None
    assert found.whole.measures[0].keeps[0].prune == plan.groups[0].c
    assert found.whole.measures[0].index == plan.groups[0].index


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 50), (3, 10_000)], ids=str)
def test_zeros_are_pruned_weights(zero: float, dtype: torch.dtype, shape: tuple[int, int], tmp_path: Path):
    """What a pruned network says is what its alive weights say alone, in memory and from a file."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=g).to(dtype)
    gone = torch.rand(shape, generator=g) < 0.7
    gone[1] = True  # a neuron that is pruned whole
    pruned = x.masked_fill(gone, zero)
    save_file({"a.weight": pruned}, tmp_path / "m.safetensors")
    found = analyze({"a.weight": pruned}, P, Q, ETAS, exact=True, rows=True)
    alone = analyze({"a.weight": x[~gone].view(1, -1)}, P, Q, ETAS, exact=True)
    assert analyze(tmp_path / "m.safetensors", P, Q, ETAS, exact=True, rows=True).tensors == found.tensors
    for mine, other in ((found.tensors[0].summary, alone.tensors[0].summary), (found.whole, alone.whole)):
        assert mine is not None
        assert other is not None
        assert (mine.zeros, mine.alive) == (int(gone.sum()), other.count)
        assert mine.gini == pytest.approx(other.gini, abs=1e-9)
        assert mine.hoyer == pytest.approx(other.hoyer, abs=1e-9)
        for m, n in zip(mine.measures, other.measures, strict=True):
            assert m.index == pytest.approx(n.index, abs=1e-9)
            assert m.index == pytest.approx(sparsight.pq_index(x, m.p, m.q, mask=~gone), abs=1e-9)
            assert [k.prune for k in m.keeps] == [k.prune for k in n.keeps]
            assert [k.share for k in m.keeps] == pytest.approx([k.share for k in n.keeps], abs=1e-9)
            assert [k.exact for k in m.keeps] == pytest.approx([k.exact for k in n.keeps], abs=1e-9)
    assert not found.tensors[0].rows[1].defined
    assert found.tensors[0].neurons[0].undefined == 1


def test_a_saved_network_has_the_index_that_its_run_recorded(tmp_path: Path):
    from sparsight import execute
    from sparsight.recipes import sap

    run = execute(sap(levels=2, epochs=1, batch_size=64, control=False), data="digits", out=tmp_path / "run", threads=1)
    chosen = run.levels[-1]
    assert chosen.kept < chosen.total
    for path in (tmp_path / "run" / "levels" / f"{chosen.level:03d}" / "model.safetensors", tmp_path / "run"):
        found = analyze(path, [p for p, _ in chosen.pq_pairs], [q for _, q in chosen.pq_pairs])
        if path.is_dir() and run.record.chosen.level != chosen.level:
            continue
        assert found.whole is not None
        assert [m.index for m in found.whole.measures] == pytest.approx(chosen.pq, abs=1e-9)
        assert found.whole.alive == chosen.kept


@pytest.mark.parametrize("value", [5.0, 0.1, 1e-30])
def test_equal_magnitudes_beside_zeros_have_index_0(value: float):
    x = torch.zeros(4, 9)
    x[0, ::2], x[1], x[3, 4] = value, -value, value
    found = analyze({"a.weight": x}, P, Q, rows=True)
    assert found.whole is not None
    assert [m.index for m in found.whole.measures] == [0.0] * 3
    assert [r.index for r in found.tensors[0].rows] == [(0.0,) * 3] * 4
    x[2, 2] = 2 * value
    assert all(m.index > 1e-3 for m in analyze({"a.weight": x}, P, Q).tensors[0].summary.measures)


def test_scopes():
    state = {"a.weight": torch.randn(3, 4)}
    assert analyze(state, scopes=("layer",)).whole is None
    assert analyze(state, scopes=("global", "layer")).tensors[0].neurons == ()
    with pytest.raises(ValueError, match="scopes must be among .*, got 'row'"):
        analyze(state, scopes=("row",))  # type: ignore[arg-type]


def test_exact_numbers_without_what_they_are_for_are_refused():
    with pytest.raises(ValueError, match="--exact and --no-sample"):
        analyze({"a.weight": torch.randn(3, 4)}, exact=True, sample=False)


def test_the_sample_may_be_left_out():
    s = analyze({"a.weight": torch.randn(3, 4)}, eta=0.1, sample=False).tensors[0].summary
    assert s.gini is None
    assert s.measures[0].keeps[0].exact is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 2.0, "q": 1.0}, "p=2.0, q=1.0"), ({"p": (0.5, 1, 2), "q": (1, 2)}, "p and q must have equally many"),
        ({"p": ()}, "p and q must have at least one"), ({"eta": -1.0}, "eta must be .*got -1.0"),
        ({"gamma": math.nan}, "gamma must be .*got nan"), ({"beta": 1.5}, "beta must be .*got 1.5"),
    ],
)  # fmt: skip
def test_refusals(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        analyze({"a.weight": torch.ones(2, 2)}, **arguments)


def test_other_things_are_refused(tmp_path: Path):
    with pytest.raises(TypeError, match="got int"):
        analyze(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a tensor, got list"):
        analyze({"a": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        analyze(tmp_path / "nothing")


# -- saying it -------------------------------------------------------------------------------------------------


@pytest.fixture
def some() -> Analysis:
    g = torch.Generator().manual_seed(0)
    state = {f"l{i}.weight": torch.randn(20, 30, generator=g) ** (2 * i + 1) for i in range(3)}
    return analyze({**state, "l0.bias": torch.ones(3), "=cmd().weight": torch.ones(2, 2)}, P, Q, (0.0, 0.1))


def test_json_round_trip(some: Analysis):
    assert from_json(Analysis, to_json(some)) == some
    assert dumps(some) == dumps(from_json(Analysis, to_json(some)))


def test_table(some: Analysis):
    lines = table(some).splitlines()
    assert lines[0].split() == ["tensor", "shape", "dtype", "weights", "zeros"]
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-"})
    assert lines[rule - 1].split()[-2:] == ["Hoyer", "Gini"]
    names = [line.split()[0] for line in lines[rule + 1 :] if line and line[0] != " "]
    assert names[:5] == ["l2.weight", "l1.weight", "l0.weight", "=cmd().weight", "all"]
    assert any("l0.bias (a bias)" in line for line in lines)
    assert "… and 3 more tensors" in table(some, most=1)
    assert ordered(some.tensors, "name")[0].name == "=cmd().weight"


LONG = "encoder.transformer.blocks.0.attention.self.multi_head_projection_with_a_long_name.query.default.weight"
WIDE = {
    "usual": lambda: analyze({"a.weight": torch.randn(4, 5), "a.bias": torch.ones(4)}, eta=(0.0, 0.1)),
    "one eta": lambda: analyze({"a.weight": torch.randn(4, 5)}),
    "long names": lambda: analyze({LONG: torch.randn(4, 5), f"{LONG}.bias": torch.ones(3)}, eta=(0.0, 0.1)),
    "many pairs and eta": lambda: analyze({"a.weight": torch.randn(4, 5)}, P, Q, (0, 1e-4, 0.01, 0.125, 1.5)),
    "without a sample": lambda: analyze({"a.weight": torch.randn(4, 5)}, P, Q, ETAS, sample=False),
    "zeros alone": lambda: analyze({"a.weight": torch.zeros(4, 5)}, P, Q, ETAS),
    "drawn": lambda: analyze({"a.weight": torch.randn(300, 400), "b.bias": torch.ones(3)}, eta=0.1),
    "thousands of millions": lambda: huge(
        analyze({"model.layers.31.self_attn.q_proj.weight": torch.randn(9, 9)}, eta=0.1)
    ),
    "many dimensions": lambda: analyze({"a.weight": torch.randn(2, 3, 4, 5, 6, 7)}, eta=0.1),
}


def huge(a: Analysis) -> Analysis:
    """The same of many more weights, few of which are left."""

    def grown(s: Summary) -> Summary:
        keeps = [replace(k, prune=123_456_789_012) for k in s.measures[0].keeps]
        return replace(
            s, count=678_901_234_567, zeros=678_901_234_000, measures=(replace(s.measures[0], keeps=(*keeps,)),)
        )

    assert a.whole is not None
    return replace(a, whole=grown(a.whole), tensors=tuple(replace(t, summary=grown(t.summary)) for t in a.tensors))


@pytest.mark.parametrize("kind", WIDE)
def test_text_fits_a_terminal(kind: str):
    """No line is longer than 80, and every cell stands in one line whole."""
    found = WIDE[kind]()
    text = f"{wrapped(headline(found))}\n{table(found)}"
    assert max(map(len, text.splitlines())) <= 80
    for row in grid(found):
        assert all(cell in text for cell in row[1:])
    joined = text.replace(".\n", ".")
    assert all(t.name in joined for t in found.tensors)
    listed = " ".join(text.split()).replace(". ", ".")
    assert all(x.name in listed and x.why in listed for x in found.listed)
    assert "neuron" in neuron_table(replace(found.tensors[0], rows=(Row(0, True, (0.5,) * len(found.pairs)),)), found)


def test_the_headline_says_how_much_is_zero():
    x = torch.randn(10, 10)
    for zeros, said in ((0, "100 weights, 0 % of them zero"), (25, "25.0 % of them zero"), (100, "100 % of them zero")):
        pruned = x.clone()
        pruned.view(-1)[:zeros] = 0.0
        found = analyze({"a.weight": pruned})
        assert said in headline(found)
        assert said in page(found)


def test_csv(some: Analysis):
    rows = list(csv.DictReader(io.StringIO(as_csv(some))))
    assert [r["tensor"] for r in rows] == ["l0.weight", "l1.weight", "l2.weight", "'=cmd().weight", "l0.bias", "*"]
    assert float(rows[1]["pq_index_0.5_1"]) == some.tensors[1].summary.measures[0].index
    assert rows[4]["why_not"] == "a bias"
    assert all(None not in r and None not in r.values() for r in rows)


def test_exact_zeros_and_denormals_are_counted_beside_the_rest():
    """Of all weights, whether a tensor has few or is made exact."""
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    x[0], x[1] = 0.0, 1e-41
    for every in (x, x.double(), torch.cat([x[:1], x[:1]]), x[1:2], x.repeat(5, 1)):
        (found,) = analyze({"a.weight": every}, exact=True).tensors
        whole = analyze({"a.weight": every, "b.weight": every + 0.0}, exact=True).whole
        alive = every[every != 0].abs().double()
        octaves = Counter((torch.frexp(alive).exponent - 1).tolist())
        assert found.summary.zeros == int((every == 0).sum())
        assert sum(n for _, n in found.summary.octaves) == len(alive)
        assert dict(found.summary.octaves) == octaves
        assert whole is not None
        assert [(e, n // 2) for e, n in whole.octaves] == [*found.summary.octaves]
