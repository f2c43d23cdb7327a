from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsight.measure.pq.bound import snapped_floor
from sparsight.pruning.allocate.counts import at_most, share, with_floor
from sparsight.pruning.allocate.fixed import Global, Shrink, Uniform
from sparsight.pruning.allocate.n_of_m import NofM
from sparsight.pruning.allocate.sap import SAP
from sparsight.recipes import sap

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pqi_golden.json").read_text())
SHAPES = {"fc1.weight": (5, 6), "fc2.weight": (4, 5), "fc3.weight": (3, 4)}


def network(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """The golden network: w = scale x sin(k), k = 1..62."""
    weights, k = {}, 1
    for (name, shape), scale in zip(SHAPES.items(), (1.0, 0.5, 2.0), strict=True):
        n = math.prod(shape)
        values = [scale * math.sin(i) for i in range(k, k + n)]
        weights[name] = torch.tensor(values, dtype=torch.float64).abs().reshape(shape).to(dtype)
        k += n
    return weights


def ones(scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()}


def kept(masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "case", GOLDEN["networks"]["mlp3"]["sap"], ids=lambda c: f"{c['scope']}-{c['p']}-{c['q']}-{c['eta']}-{c['gamma']}"
)
def test_golden_network(case, dtype):
    scores = network(dtype)
    masks = ones(scores)
    allocator = SAP(case["p"], case["q"], case["eta"], case["gamma"], case["beta"], case["scope"], min_keep=0)
    for iteration in case["iterations"]:
        plan = allocator.plan(scores, masks)
        masks = plan.masks
        assert kept(masks) == iteration["remaining"]
        assert sum(g.c for g in plan.groups) == iteration["pruned_total"]
        if "groups" in iteration:
            for mine, golden in zip(plan.groups, iteration["groups"], strict=True):
                assert (mine.name, mine.d, mine.c) == (golden["group"], golden["d"], golden["c"])
                tolerance = 1e-12 if dtype is torch.float64 else 2e-6
                assert mine.index == pytest.approx(golden["pqi"] or 0.0, abs=tolerance)
                assert mine.r == pytest.approx(golden["r"] or 0.0, rel=10 * tolerance, abs=10 * tolerance)
        if "mask_after" in iteration:
            bits = {n: "".join("01"[int(b)] for b in m.reshape(-1)) for n, m in masks.items()}
            assert bits == iteration["mask_after"]


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda v: v["id"])
def test_golden_vectors(vector):
    if "x" in vector:
        x = torch.tensor(vector["x"], dtype=torch.float64)
    else:
        assert vector["formula"].startswith("x[i]=1/(i+1)"), vector["formula"]
        x = 1 / torch.arange(1, 101, dtype=torch.float64)
    mask = torch.tensor(vector.get("mask", [1] * len(x)), dtype=torch.bool)
    for case in vector["prune"]:
        settings_ = {key: case[key] for key in ("p", "q", "eta", "gamma", "beta")}
        plan = SAP(**settings_, min_keep=0).plan({"x": x.abs()}, {"x": mask})
        assert plan.groups[0].c == case["c_paper"], case
        if case["r"] is not None:
            assert plan.groups[0].r == pytest.approx(case["r"], rel=1e-12)
        if "kept" in case:
            assert plan.masks["x"].nonzero().flatten().tolist() == case["kept"]
        reference = SAP(**settings_, min_keep=0, rounding="reference").plan({"x": x.abs()}, {"x": mask})
        assert reference.groups[0].c == case["c_ref_formula"], case


class TestSAP:
    @pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (math.nan, 1.0)])
    def test_refuses_exponents(self, p, q):
        with pytest.raises(ValueError, match="p"):
            SAP(p=p, q=q)

    @pytest.mark.parametrize(
        "bad", [{"eta": -0.1}, {"gamma": -1.0}, {"gamma": None}, {"beta": 1.1}, {"scope": "rows"}, {"min_keep": -1}]
    )
    def test_refuses_settings(self, bad):
        with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
            SAP(**bad)

    def test_defaults_are_those_of_the_recipe(self):
        options = inspect.signature(sap).parameters
        for name in ("p", "q", "eta", "gamma", "beta", "scope", "min_keep"):
            assert getattr(SAP(), name) == options[name].default
        assert (SAP().p, SAP().q) == (1.0, 2.0)

    def test_nan_is_refused_by_name(self):
        scores = network()
        scores["fc2.weight"][1, 2] = math.nan
        with pytest.raises(ValueError, match="fc2.weight"):
            SAP().plan(scores, ones(scores))
        masks = ones(scores)
        masks["fc2.weight"][1, 2] = False
        assert SAP().plan(scores, masks).groups[0].d == 61

    @pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
    def test_equal_and_zero_and_empty_groups_are_left_alone(self, scope):
        scores = {"a": torch.ones(3, 4), "b": torch.zeros(2, 3), "c": torch.zeros(0, 3)}
        plan = SAP(scope=scope, min_keep=0).plan({"a": scores["a"]}, ones({"a": scores["a"]}))
        assert sum(g.c for g in plan.groups) == 0
        plan = SAP(scope=scope, min_keep=0).plan(
            {"b": scores["b"], "c": scores["c"]}, ones({"b": scores["b"], "c": scores["c"]})
        )
        assert sum(g.c for g in plan.groups) == 0
        assert not any(g.defined for g in plan.groups)

    @pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
    @pytest.mark.parametrize("target", [0.95, 0.5, 0.2])
    def test_never_past_the_target(self, scope, target):
        scores = network()
        masks = ones(scores)
        goal = share(target, 62)
        allocator = SAP(1.0, 2.0, eta=0.3, scope=scope, target_density=target)
        for _ in range(12):
            before = sum(kept(masks).values())
            plan = allocator.plan(scores, masks)
            masks = plan.masks
            after = sum(kept(masks).values())
            assert before - after == sum(g.c for g in plan.groups)
            assert after >= goal
        free = SAP(1.0, 2.0, eta=0.3, scope=scope).plan(scores, ones(scores))
        limited = allocator.plan(scores, ones(scores))
        if 62 - sum(g.c for g in free.groups) <= goal:
            assert sum(kept(limited.masks).values()) == goal

    def test_global_floor_moves_the_cut_elsewhere_and_is_reported(self):
        scores = network()
        masks = ones(scores)
        removed = 0
        for _ in range(4):
            plan = SAP(1.0, 2.0, min_keep=3).plan(scores, masks)
            removed += plan.groups[0].c
            masks = plan.masks
        assert kept(masks)["fc2.weight"] == 3
        assert plan.floors == ("fc2.weight",)
        assert sum(kept(masks).values()) == 62 - removed

    @pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
    @pytest.mark.parametrize("kind", [SAP(1.0, 2.0, eta=9.0, min_keep=2), Shrink(0.9, min_keep=2)])
    def test_near_the_end_everything_above_the_floor_goes(self, kind, scope):
        """A network that collapses asks for more than the floor leaves: no reason to break off a run."""
        scores = {"a": torch.tensor([[1.0, 9.0, 4.0]]), "b": torch.tensor([[2.0, 7.0, 5.0, 6.0]])}
        masks = {name: torch.ones_like(x, dtype=torch.bool) for name, x in scores.items()}
        plan = dataclasses.replace(kind, scope=scope).plan(scores, masks)
        assert plan.masks["a"].tolist() == [[False, True, True]]
        assert plan.masks["b"].tolist() == [[False, True, False, True]]
        assert sum(group.c for group in plan.groups) == 3
        assert any(group.floor_bound for group in plan.groups)
        again = dataclasses.replace(kind, scope=scope).plan(scores, plan.masks)
        assert sum(group.c for group in again.groups) == 0
        assert all(torch.equal(again.masks[name], mask) for name, mask in plan.masks.items())

    def test_is_called_like_every_allocator(self):
        scores = network()
        assert kept(SAP(0.5, 1.0, min_keep=0)(scores, ones(scores))) == {
            "fc1.weight": 27,
            "fc2.weight": 15,
            "fc3.weight": 12,
        }


class TestGlobal:
    def test_density_rounds_half_up(self):
        scores = {"a": torch.arange(10.0)}
        assert int(Global(density=0.25)(scores, ones(scores))["a"].sum()) == 3
        assert int(Global(density=0.24)(scores, ones(scores))["a"].sum()) == 2

    def test_density_is_of_all_prunable_weights(self):
        scores = {"a": torch.arange(10.0)}
        masks = {"a": torch.arange(10) >= 4}
        assert Global(density=0.5)(scores, masks)["a"].nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
        with pytest.raises(ValueError, match="cannot keep 7 of 6 alive weights"):
            Global(count=7)(scores, masks)

    def test_recover_brings_pruned_weights_back(self):
        scores = {"a": torch.arange(10.0)}
        masks = {"a": torch.arange(10) < 5}
        assert Global(count=2, recover=True)(scores, masks)["a"].nonzero().flatten().tolist() == [8, 9]
        assert not Global(count=2, recover=True).monotone
        assert Global(count=2).monotone

    def test_floor(self):
        scores = {"a": torch.arange(4.0), "b": 10 + torch.arange(4.0)}
        plan = Global(count=3, min_keep=2).plan
        with pytest.raises(ValueError, match="min_keep"):
            plan(scores, ones(scores))
        plan = Global(count=5, min_keep=2).plan(scores, ones(scores))
        assert kept(plan.masks) == {"a": 2, "b": 3}
        assert plan.floors == ("a",)

    @pytest.mark.parametrize(
        "bad",
        [{}, {"density": 0.1, "count": 3}, {"density": 1.2}, {"density": math.nan}, {"count": -1}, {"count": 2.0}],
    )
    def test_refuses(self, bad):
        with pytest.raises((ValueError, TypeError), match="got|count"):
            Global(**bad)


class TestUniform:
    def test_every_layer_and_every_row(self):
        scores = network()
        assert kept(Uniform(0.5)(scores, ones(scores))) == {"fc1.weight": 15, "fc2.weight": 10, "fc3.weight": 6}
        rows = Uniform(0.5, scope="neuron")(scores, ones(scores))
        assert {tuple(mask.sum(1).tolist()) for mask in rows.values()} == {(3,) * 5, (3,) * 4, (2,) * 3}

    def test_floor_keeps_the_total(self):
        scores = {"a": torch.arange(4.0), "b": torch.arange(40.0)}
        plan = Uniform(0.1, min_keep=1).plan(scores, ones(scores))
        assert kept(plan.masks) == {"a": 1, "b": 3}
        assert plan.floors == ("a",)
        with pytest.raises(ValueError, match="at least 3"):
            Uniform(0.1, min_keep=3).plan(scores, ones(scores))


class TestShrink:
    @pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
    def test_removes_the_floor_of_rate_times_alive(self, scope):
        scores = network()
        masks = ones(scores)
        for _ in range(4):
            plan = Shrink(0.2, scope).plan(scores, masks)
            for group in plan.groups:
                assert group.c == math.floor(round(0.2 * group.d, 9))
            masks = plan.masks

    def test_snap(self):
        scores = {"a": torch.arange(35.0)}  # 0.2 * 35 = 7.000000000000001; 0.7 * 10 = 7 in decimals
        assert int(Shrink(0.2)(scores, ones(scores))["a"].sum()) == 28
        scores = {"a": torch.arange(10.0)}
        assert 10 * (1 - 0.9) < 1
        assert int(Shrink(1 - 0.9)(scores, ones(scores))["a"].sum()) == 9


ALLOCATORS = {
    "global": Global(density=0.5),
    "uniform": Uniform(density=0.5),
    "uniform rows": Uniform(density=0.5, scope="neuron"),
    "shrink rows": Shrink(rate=0.5, scope="neuron"),
    "sap rows": SAP(scope="neuron"),
    "2:4": NofM(),
}


class TestEvery:
    @pytest.mark.parametrize("allocator", ALLOCATORS.values(), ids=ALLOCATORS)
    def test_tensors_and_rows_without_weights(self, allocator):
        empty = {"rows": torch.empty(3, 0), "none": torch.empty(0, 4), "vector": torch.empty(0)}
        scores = {**empty, "fc": torch.arange(1.0, 17).reshape(2, 8)}
        plan = allocator.plan(scores, ones(scores))
        assert {name: mask.shape for name, mask in plan.masks.items()} == {n: s.shape for n, s in scores.items()}
        assert kept(plan.masks) == {"rows": 0, "none": 0, "vector": 0, "fc": 16 - sum(group.c for group in plan.groups)}

    @pytest.mark.parametrize("allocator", ALLOCATORS.values(), ids=ALLOCATORS)
    def test_refuses_masks_of_other_tensors(self, allocator):
        scores = {"fc": torch.rand(2, 8)}
        others = {**scores, "other": torch.rand(3)}
        for wrong, masks, said in (
            (scores, ones(others), r"missing \[\], unexpected \['other'\]"),
            (others, ones(scores), r"missing \['other'\], unexpected \[\]"),
            ({}, ones(scores), r"missing \[\], unexpected \['fc'\]"),
            ({"fc": torch.ones(8, 2)}, ones(scores), r"shape of its scores, \(8, 2\), got \(2, 8\)"),
        ):
            with pytest.raises(ValueError, match=said):
                allocator(wrong, masks)


class TestCounting:
    def test_share_reads_decimals(self):
        assert share(0.145, 100) == 15
        assert share(0.5, 5) == 3
        assert share(0.0, 7) == 0
        assert share(1.0, 10**12) == 10**12

    def test_whole(self):
        assert snapped_floor(44 * (1 - 41 / 44), 44) == 3
        assert snapped_floor(2.9999, 44) == 2

    @given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 120))
    def test_at_most(self, counts, limit):
        after = at_most(counts, limit)
        assert sum(after.values()) == min(limit, sum(counts.values()))
        total = sum(counts.values())
        for name, count in counts.items():
            assert after[name] <= count
            if total > limit:
                assert abs(after[name] - count * limit / total) < 1

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6), st.integers(0, 4))
    def test_floor_is_exact_or_refused(self, pairs, min_keep):
        alive = {str(i): max(a, b) for i, (a, b) in enumerate(pairs)}
        removed = {str(i): min(a, b) for i, (a, b) in enumerate(pairs)}
        room = sum(a - min(min_keep, a) for a in alive.values())
        if sum(removed.values()) > room:
            with pytest.raises(ValueError, match="at most"):
                with_floor(alive, removed, min_keep)
            return
        after = with_floor(alive, removed, min_keep)
        assert sum(after.values()) == sum(removed.values())
        assert all(alive[n] - after[n] >= min(min_keep, alive[n]) for n in alive)
        assert all(after[n] >= 0 for n in alive)
        slow = {n: min(removed[n], max(0, alive[n] - min_keep)) for n in alive}
        while sum(slow.values()) < sum(removed.values()):  # the first of the groups that keep most
            slow[max(alive, key=lambda n: alive[n] - slow[n])] += 1
        assert after == slow
