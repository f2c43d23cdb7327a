"""SiPP's allocation: golden values, nested bisection beside the closed form, sampling by Monte Carlo, exact counts."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sipp as slow
from test_sipp import GOLDEN, D, g1, g2, linear
from torch import nn

from sparsight.model.masks import counts, dense
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.restart import carry_on
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.bounds import draws_for, eps_rand, log_term, root, slope
from sparsight.pruning.sipp.groups import Groups, share_out, whole
from sparsight.pruning.sipp.keep_ratio import keep_budget, keep_ratio
from sparsight.pruning.sipp.sampling import draw, draws_for_distinct, expected_distinct, probabilities, reweighting
from sparsight.pruning.sipp.score import SiPP, silent
from sparsight.pruning.sipp.sensitivities import Facts
from sparsight.recipes.sipp import sipp
from sparsight.records.identity import describe
from sparsight.runs.run import run
from sparsight.train.stop import FixedEpochs, LossPlateau
from sparsight.types import Scored
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

ALL = [SiPPDet, SiPPRand, SiPPHybrid]


def joined(reduction):
    """The golden file's two layers, a convolution and a linear one, as one set of scores."""
    (conv, x), (fc, y) = g2(GOLDEN["G2_conv"]["cases"][0]), g1()
    parts = {}
    for name, layer, at in (("conv", conv, x), ("fc", fc, y)):
        found = SiPP(reduction)(layer, dense(layer), [(at, None)])
        parts[name] = (found["weight"], found.facts["weight"])
    scores = Scored(
        {n: s for n, (s, _) in parts.items()},
        {n: f for n, (_, f) in parts.items()},
        reduction=reduction,
        points=2,
        wanted=2,
    )
    return scores, {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}


def spiky():
    k = torch.arange(40, dtype=D)
    layer = linear(torch.stack([0.6**k, 1 + 0.1 * torch.sin(k), (-1) ** k * (1 + 0.5 * torch.cos(0.3 * k))]))
    x = torch.stack([1 + 0.3 * torch.sin(0.7 * n + 1.3 * k) for n in range(3)])
    return SiPP()(layer, dense(layer), [(x, None)]), dense(layer)


class TestGolden:
    @pytest.mark.parametrize("case", GOLDEN["G3_rand_allocation"]["cases"], ids=lambda c: f"{c['delta']}-{c['budget']}")
    def test_budget(self, case):
        scores, masks = joined("max")
        found = SiPPRand(count=case["budget"], delta=case["delta"], rounding="ceil").decide(scores, masks)
        assert np.allclose(found.groups.alpha, case["alpha"], rtol=1e-9)
        assert found.groups.nonzero.tolist() == case["cap_nnz"]
        assert np.allclose(found.m, case["m_continuous"], atol=1e-6)
        assert found.counts.tolist() == case["m_ceil"]
        m, multiplier = share_out(found.groups, case["budget"])
        assert multiplier == pytest.approx(case["lambda"], rel=1e-7)
        eps = eps_rand(found.groups.alpha, m)
        assert np.allclose(eps, case["eps_rand_at_m"], rtol=1e-7)
        assert (eps * found.groups.share).sum() == pytest.approx(case["objective"], rel=1e-8)

    @pytest.mark.parametrize(
        "case", GOLDEN["G3_det_allocation"]["cases"], ids=lambda c: f"{c['reduction']}-{c['budget']}"
    )
    def test_largest(self, case):
        scores, masks = joined(case["reduction"])
        kept = SiPPDet(count=case["budget"])(scores, masks)
        assert [m.flatten().nonzero().flatten().tolist() for m in kept.values()] == case["kept_flat_per_layer"]

    def test_largest_of_one_layer(self):
        layer, x = g1()
        masks = dense(layer)
        scores = SiPP()(layer, masks, [(x, None)])
        for budget, expected in GOLDEN["G1_linear"]["det_keep_flat_index_f*8+k"].items():
            kept = SiPPDet(count=int(budget))(scores, masks)["weight"]
            assert kept.flatten().nonzero().flatten().tolist() == expected

    @pytest.mark.parametrize("case", GOLDEN["G4_hybrid"]["cases"], ids=lambda c: f"{c['delta']}")
    def test_hybrid(self, case):
        scores, masks = spiky()
        allocator = SiPPHybrid(count=case["budget"], delta=case["delta"], rounding="ceil")
        found = allocator.decide(scores, masks)
        assert np.allclose(found.groups.sums, GOLDEN["G4_hybrid"]["S_groups"], atol=1e-11)
        assert np.allclose(found.m, case["m_continuous"], atol=1e-6)
        assert found.counts.tolist() == case["m_ceil"]
        assert np.allclose(found.eps_det, case["eps_det"], atol=1e-8)
        assert np.allclose(found.eps_rand, case["eps_rand"], atol=1e-8)
        assert found.random.tolist() == case["use_random"]
        strict = dataclasses.replace(allocator, delta=1e-16, rounding="largest").decide(scores, masks)
        assert not strict.random.any()
        assert strict.counts.sum() == case["budget"]

    def test_bounds(self):
        for alpha, m, eps, fall in GOLDEN["G5_eps_rand_table"]["rows"]:
            assert float(eps_rand(alpha, m)) == pytest.approx(eps, rel=1e-9)
            assert float(slope(alpha, eps)) == pytest.approx(fall, rel=1e-8)
        for row in GOLDEN["G10_closed_form"]["rows"]:
            assert float(draws_for(row["alpha"], row["eps"])) == pytest.approx(row["m"], rel=1e-9)
        for row in GOLDEN["G10_closed_form"]["cubic_roots"]:
            assert float(root(row["t"])) == pytest.approx(row["eps"], rel=1e-10)
        layers = GOLDEN["G1_linear"]
        assert float(log_term(1, 1, 1e-16)) == pytest.approx(layers["log_term_delta_1e-16"])

    def test_draws(self):
        case = GOLDEN["G7_calibration_and_reweighting"]
        q = np.array([case["p"]])
        for n, expected in case["expected_unique"].items():
            assert float(expected_distinct(np.log1p(-q), np.array([int(n)]))[0]) == pytest.approx(expected, abs=1e-9)
        for m, plateau in case["plateaus"].items():
            assert draws_for_distinct(q, np.array([int(m)])).tolist() == [plateau["N_min"]]
        scores, _ = spiky()
        row = torch.where(scores.facts["weight"].positive, scores["weight"], 0)[1:2].numpy()
        for m, plateau in case["p_flat_G4_neuron1_plus"].items():
            assert draws_for_distinct(probabilities(row), np.array([int(m)])).tolist() == [plateau["N_min"]]
        given = case["reweighting"]
        gamma = reweighting(np.array([given["counts"]]), np.array([given["N"]]), q)
        assert np.allclose(gamma, [given["gamma"]], atol=1e-9)

    @pytest.mark.parametrize("case", GOLDEN["G8_mlp_end_to_end_det"]["cases"], ids=lambda c: str(c["keep_ratio"]))
    def test_network(self, case):
        golden = GOLDEN["G8_mlp_end_to_end_det"]
        model, x, y = mlp_of_the_golden_file()
        masks = dense(model)
        assert keep_ratio(model, masks) == 1
        found = keep_budget(model, masks, case["keep_ratio"])
        assert (found.size, found.compressible) == (golden["total_size_nonzero_params"], golden["compressible"])
        assert found.count == case["budget"]
        assert found.density == case["budget"] / 77
        batches = [(x[:2], y[:2]), (x[2:], y[2:])]
        scores = SiPP("mean", propagate=True)(model, masks, batches)
        for name, key in (("0.weight", "sens_layer1"), ("2.weight", "sens_layer2")):
            assert torch.allclose(scores[name], torch.tensor(golden[key], dtype=D), atol=1e-11)
        before = SiPPDet(count=found.count)(SiPP("mean")(model, masks, batches), masks)
        assert flat(before) == case["keep_before_propagation"]
        plan = SiPPDet(count=found.count).plan(scores, masks)
        assert flat(plan.masks) == case["keep_after_zero_gradient_propagation"]
        assert sum(g.c for g in plan.groups) == 77 - counts(plan.masks)[0]
        pruned = carry_on(copy.deepcopy(model), {}, plan)
        zeroed = [(pruned[i].bias == 0).nonzero().flatten().tolist() for i in (0, 2)]
        assert zeroed == case["bias_indices_zeroed"]


def flat(masks):
    return [mask.flatten().nonzero().flatten().tolist() for mask in masks.values()]


def mlp_of_the_golden_file():
    model = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)).to(D)
    i, j, n = (torch.arange(size, dtype=D) for size in (7, 8, 4))
    model[0].weight.data = torch.sin(1.7 * i[:, None] + 2.3 * j + 0.5)
    model[0].bias.data = 0.8 + 0.2 * torch.cos(i + 0.2)
    model[2].weight.data = torch.cos(1.1 * i[:3, None] + 1.9 * i + 0.4)
    model[2].bias.data = 0.1 * (i[:3] + 1)
    x = 0.6 + 0.5 * torch.cos(1.1 * n[:, None] + 0.6 * j + 0.3)
    return model, x, torch.arange(4) % 3


# -- budgets ---------------------------------------------------------------------------------------------------


def some_groups(seed, n):
    g = np.random.default_rng(seed)
    edges = g.integers(0, 30, n)
    sums = np.where(edges > 0, g.uniform(0.5, 12, n), 0.0)
    return Groups(sums, edges, sums * 10.0 ** g.uniform(-1, 3, n), 1.0 / g.integers(1, 40, n))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.02, 0.98), st.sampled_from(["reference", "bernstein"]))
def test_the_closed_form_is_what_nested_bisection_finds(seed, share, bound):
    groups = some_groups(seed, 6)
    budget = round(share * groups.nonzero.sum())
    m, _ = share_out(groups, budget, bound)
    assert m.sum() == pytest.approx(budget, abs=1e-7)
    if budget not in (0, groups.nonzero.sum()):
        expected = slow.share_out(groups.alpha, groups.nonzero, groups.share, budget, bound)
        assert np.allclose(m, expected, atol=1e-3)
    rounded = whole(m, groups.nonzero, budget)
    assert rounded.sum() == budget
    assert (rounded >= 0).all()
    assert (rounded <= groups.nonzero).all()
    assert (np.abs(rounded - m) < 1 + 1e-6).all()


def test_many_groups_of_any_scale_at_any_budget():
    g = np.random.default_rng(0)
    n = 10_000
    edges = g.integers(0, 600, n)
    sums = np.where(edges > 0, g.uniform(1, 13, n), 0.0)
    groups = Groups(sums, edges, sums * 10.0 ** g.uniform(-6, 6, n), 1.0 / g.integers(1, 4000, n))
    for budget in (1, 17, n, int(edges.sum()) // 2, int(edges.sum()) - 1):
        m, _ = share_out(groups, budget)
        assert m.sum() == pytest.approx(budget, rel=1e-9)
        assert whole(m, edges, budget).sum() == budget
    with pytest.raises(ValueError, match="budget must be from 0"):
        share_out(groups, int(edges.sum()) + 1)


@given(st.floats(1e-3, 1e6), st.floats(0.5, 1e6))
def test_bounds_and_their_inverses(alpha, m):
    for bound in ("reference", "bernstein"):
        eps = float(eps_rand(alpha, m, bound))
        assert eps == pytest.approx(slow.eps_rand(alpha, m, bound), rel=1e-9)
        assert float(draws_for(alpha, eps, bound)) == pytest.approx(m, rel=1e-6)
        assert float(eps_rand(alpha, 2 * m, bound)) < eps
    assert 1 - 1e-12 <= float(eps_rand(alpha, m, "bernstein") / eps_rand(alpha, m)) <= math.sqrt(2) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=20), st.data())
def test_draws_are_the_first_on_their_plateau(weights, data):
    q = np.array(weights) / sum(weights)
    m = data.draw(st.integers(0, len(q) - 1))
    found = int(draws_for_distinct(q[None], np.array([m]))[0])
    assert found == slow.least_draws(q.tolist(), m)


# -- what allocators promise -----------------------------------------------------------------------------------


def case(seed=0, dead=False):
    """A small network's scores; with `dead`, half of its inputs are always zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
    x = torch.rand(20, 12, generator=torch.Generator().manual_seed(seed))
    if dead:
        x[:, ::2] = 0
    masks = dense(model)
    return model, masks, SiPP()(model, masks, [(x, None)])


@pytest.mark.parametrize("kind", ALL)
class TestEveryAllocator:
    def test_keeps_everything_at_density_one(self, kind):
        _, masks, scores = case(dead=True)
        plan = kind(density=1.0).plan(scores, masks)
        assert counts(plan.masks)[0] == counts(masks)[0]
        assert plan.multipliers is None

    @pytest.mark.parametrize("density", [0.0, 0.05, 0.4, 0.7, 0.97])
    def test_repeated_calls_agree_and_change_nothing(self, kind, density):
        _, masks, scores = case(dead=True)
        before = {name: score.clone() for name, score in scores.items()}
        if kind is SiPPDet and density == 0:
            return  # a weight of every tensor stays, by default
        first, second = (kind(density=density).plan(scores, masks) for _ in range(2))
        assert flat(first.masks) == flat(second.masks)
        assert [g.c for g in first.groups] == [g.c for g in second.groups]
        for name, score in scores.items():
            assert torch.equal(score, before[name])
            assert bool(masks[name].all())
        assert sum(g.c for g in first.groups) == sum(g.d for g in first.groups) - counts(first.masks)[0]
        if first.multipliers is not None:
            for name, gamma in first.multipliers.items():
                assert torch.equal(gamma > 0, first.masks[name])
                assert torch.equal(gamma, second.multipliers[name])

    def test_a_density_above_the_present_one_keeps_all_that_is_alive(self, kind):
        _, masks, scores = case()
        half = SiPPDet(0.5)(scores, masks)
        plan = kind(0.501).plan(scores, half)
        assert flat(plan.masks) == flat(half)
        assert plan.multipliers is None
        with pytest.raises(ValueError, match=r"cannot keep 137 of 136 alive weights"):
            kind(count=137).plan(scores, half)

    def test_dead_inputs_go_first(self, kind):
        _, masks, scores = case(dead=True)
        live = sum(int((score > 0).sum()) for score in scores.values())
        total = sum(score.numel() for score in scores.values())
        for count in (live // 2, live, live + 10, total):
            plan = kind(count=count).plan(scores, masks)
            dead = sum(int((mask & (scores[name] == 0)).sum()) for name, mask in plan.masks.items())
            assert dead == max(0, count - live)

    def test_stays_inside_the_masks_unless_it_recovers(self, kind):
        _, masks, scores = case()
        half = SiPPDet(0.5)(scores, masks)
        assert all(not bool((m & ~half[n]).any()) for n, m in kind(0.4)(scores, half).items())
        assert kind(0.4).monotone
        assert flat(kind(0.4, recover=True)(scores, half)) == flat(kind(0.4)(scores, masks))
        assert not kind(0.4, recover=True).monotone

    def test_is_a_value(self, kind):
        allocator = kind(0.2)
        assert dataclasses.replace(allocator) == allocator
        assert describe(kind(0.2)) == describe(allocator)
        with pytest.raises(dataclasses.FrozenInstanceError):
            allocator.density = 0.5

    def test_refusals(self, kind):
        _, masks, scores = case()
        with pytest.raises(ValueError, match=r"density must be in \[0, 1\]"):
            kind(density=1.5)
        with pytest.raises(ValueError, match="count"):
            kind(count=-1)
        with pytest.raises(ValueError, match=r"cannot keep 9,999 of 272 alive weights"):
            kind(count=9999).plan(scores, masks)
        bad = dict(scores) | {"2.weight": torch.full_like(scores["2.weight"], float("nan"))}
        with pytest.raises(ValueError, match=r"2.weight"):
            kind(0.5).plan(bad, masks)
        with pytest.raises(ValueError, match=r"2.weight"):
            kind(0.5).plan({"0.weight": scores["0.weight"]}, masks)

    def test_scores_of_others(self, kind):
        model, masks, _ = case()
        plan = kind(0.5).plan(Magnitude()(model, masks), masks)
        assert abs(counts(plan.masks)[0] - 136) <= (0 if kind is SiPPDet else 42)


def test_counts_are_exact():
    _, masks, scores = case()
    for count in range(0, 272, 13):
        assert counts(SiPPDet(count=count, min_keep=0)(scores, masks))[0] == count
        for kind in (SiPPRand, SiPPHybrid):
            assert kind(count=count).decide(scores, masks).counts.sum() == count
        assert SiPPRand(count=count, rounding="ceil").decide(scores, masks).counts.sum() >= count


def test_expected_distinct_edges_are_the_counts():
    _, masks, scores = case()
    found = SiPPRand(0.5, exact=False).decide(scores, masks)
    for name, score in scores.items():
        for side, want, draws in zip(
            (True, False), found.groups.split(name, found.counts), found.groups.split(name, found.draws), strict=True
        ):
            own = torch.where(scores.facts[name].positive == side, score, 0).double().numpy()
            q = probabilities(own)
            some = draws > 0
            distinct = expected_distinct(np.log1p(-q[some]), draws[some])
            assert (np.ceil(distinct - 1e-9) == np.minimum(want[some], (q[some] > 0).sum(1) - 1)).all()


def with_facts(s, mean, size):
    shape = torch.ones_like(s, dtype=torch.bool)
    return Scored({"w": s}, {"w": Facts(shape, mean, size, 1, 1)}, reduction="max", points=1, wanted=1)


def test_ties_are_settled_by_the_secondary_keys():
    s = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.5]])
    mean, size = torch.tensor([[0.2, 0.9, 0.2, 0.2, 1.0]]), torch.tensor([[1.0, 0.1, 3.0, 1.0, 9.0]])
    scores, masks = with_facts(s, mean, size), {"w": torch.ones(1, 5, dtype=torch.bool)}
    order = [1, 2, 3, 0, 4]  # the largest mean, then the largest weight, then the higher index
    for count in range(1, 6):
        assert sorted(order[:count]) == flat(SiPPDet(count=count)(scores, masks))[0]
        if count < 5:
            hybrid = SiPPHybrid(count=count, delta=1e-300).decide(scores, masks)
            assert not hybrid.random.any()
            assert sorted(order[:count]) == flat(hybrid.masks)[0]
    assert flat(SiPPDet(count=2)({"w": s}, masks))[0] == [2, 3]  # without facts: the lower index goes


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(0, 3))
def test_ranking_by_several_keys_is_a_sort(seed, count, min_keep):
    g = torch.Generator().manual_seed(seed)
    shapes = {"a": (4, 5), "b": (2, 3, 5), "c": (2, 5)}
    keys = [{n: torch.randint(0, 3, s, generator=g).float() for n, s in shapes.items()} for _ in range(3)]
    facts = {n: Facts(keys[0][n] >= 0, keys[1][n], keys[2][n], 1, 1) for n in shapes}
    scores = Scored(keys[0], facts, reduction="max", points=1, wanted=1)
    masks = {n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()}
    names = list(shapes)
    ranked = [
        (*(float(key[n].flatten()[i]) for key in keys), p, i)
        for p, n in enumerate(names)
        for i in range(masks[n].numel())
    ]
    chosen = set()
    for p in range(3):
        own = sorted(r for r in ranked if r[3] == p)
        chosen |= set(own[len(own) - min_keep :])
    if count < len(chosen):
        with pytest.raises(ValueError, match="cannot keep"):
            SiPPDet(count=count, min_keep=min_keep)(scores, masks)
        return
    rest = sorted(set(ranked) - chosen)
    chosen |= set(rest[len(rest) - (count - len(chosen)) :])
    kept = flat(SiPPDet(count=count, min_keep=min_keep)(scores, masks))
    assert kept == [sorted(r[4] for r in chosen if r[3] == p) for p in range(3)]


# -- sampling --------------------------------------------------------------------------------------------------


def test_moments_of_the_golden_estimator():
    golden, q = GOLDEN["G9_random_estimator_moments"], np.array([GOLDEN["G7_calibration_and_reweighting"]["p"]])
    runs, n = 40_000, golden["N"]
    rows = np.repeat(q, runs, 0)
    counted = draw(rows, np.full(runs, n), np.random.default_rng(0))
    assert (counted.sum(1) == n).all()
    assert (counted[:, q[0] == 0] == 0).all()
    gamma = reweighting(counted, np.full(runs, n), rows)
    variance = np.array(golden["Var_gamma_j"])
    some = q[0] > 0
    assert np.allclose(gamma.mean(0)[some], 1, atol=5 * np.sqrt(variance.max() / runs))
    assert np.allclose(gamma.var(0), variance, rtol=0.05)
    layer, x = g1()
    products = (layer.weight[0].detach().clamp(min=0) * x[0].clamp(min=0)).numpy()
    z = gamma @ products
    assert products.sum() == pytest.approx(golden["z"], abs=1e-11)
    assert z.mean() == pytest.approx(golden["E_zhat"], abs=5 * math.sqrt(golden["Var_zhat"] / runs))
    assert z.var() == pytest.approx(golden["Var_zhat"], rel=0.05)
    distinct = (counted > 0).sum(1)
    assert distinct.mean() == pytest.approx(3.150074147146, abs=0.02)


def test_the_multipliers_are_one_in_expectation():
    scores, masks = spiky()
    plans = [SiPPRand(0.4, delta=0.5, exact=False, seed=seed).plan(scores, masks) for seed in range(120)]
    gamma = torch.stack([plan.multipliers["weight"] for plan in plans])
    decision = SiPPRand(0.4, delta=0.5, exact=False).decide(scores, masks)
    frequent = scores["weight"] > 0.05
    error = gamma.std(0) / math.sqrt(len(plans))
    assert ((gamma.mean(0) - 1).abs() < 6 * error + 1e-6)[frequent].all()
    kept = torch.tensor([float(plan.masks["weight"].sum()) for plan in plans]).mean()
    assert decision.counts.sum() - 6 < kept <= decision.counts.sum()


def test_seeds():
    scores, masks = spiky()
    assert flat(SiPPRand(0.4, seed=1)(scores, masks)) != flat(SiPPRand(0.4, seed=2)(scores, masks))


def test_a_sample_of_a_sample_draws_other_numbers():
    """With the same seed: else what was drawn often is drawn often again, and the product's mean is not 1."""
    _, masks, scores = case(dead=True)
    assert scores["0.weight"][0, 0] == 0  # so that without it every group has the same probabilities
    fewer = {name: mask.clone() for name, mask in masks.items()}
    fewer["0.weight"][0, 0] = False
    first, again = (SiPPRand(0.3, delta=0.5).plan(scores, m).multipliers for m in (masks, fewer))
    assert not torch.equal(first["0.weight"], again["0.weight"])
    assert torch.equal(first["2.weight"], again["2.weight"])


def test_bounds_say_which_group_is_sampled():
    scores, masks = spiky()
    found = SiPPHybrid(0.5, delta=0.5).decide(scores, masks)
    inside = (found.counts > 0) & (found.counts < found.groups.nonzero)
    assert (found.random == (inside & (found.eps_det > found.eps_rand))).all()
    su = found.eps_det / 3
    logs = float(log_term(1, 1, 0.5))
    rule = found.counts * su**2 > logs / 3 * found.groups.sums * (1 + 2 * su)
    assert (rule[inside] == found.random[inside]).all()
    other = SiPPHybrid(0.5, delta=0.5, bound="bernstein").decide(scores, masks)
    assert (other.eps_rand[other.counts > 0] > 0).all()


# -- sizes, silent parameters, recipes -------------------------------------------------------------------------


def test_keep_ratios_count_all_parameters():
    model, _, _ = mlp_of_the_golden_file()
    masks = dense(model)
    assert keep_budget(model, masks, 0.0).count == 0
    assert keep_budget(model, masks, 1.0).count == 77
    assert keep_budget(model, masks, 0.05, size=100).count == 0
    assert keep_budget(model, masks, 0.5, size=100).count == 40
    masks["0.weight"][0] = False
    assert keep_budget(model, masks, 1.0).compressible == 69
    assert keep_ratio(model, masks) == pytest.approx(79 / 87)
    model[0].bias.data.zero_()
    assert keep_budget(model, masks, 1.0).uncompressible == 3
    for wrong in (1.1, "x"):
        with pytest.raises(ValueError, match="keep_ratio"):
            keep_budget(model, masks, wrong)  # pyright: ignore[reportArgumentType] - what users may pass


def test_silent_parameters_are_those_that_no_gradient_reaches():
    model, x, y = mlp_of_the_golden_file()
    masks = dense(model)
    masks["2.weight"][:, 3] = False
    state = copy.deepcopy(model.state_dict())
    found = silent(model, masks, [(x, y)])
    assert found["0.weight"][3].all()
    assert found["0.bias"].tolist() == [i == 3 for i in range(7)]
    assert not found["2.bias"].any()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="at least one batch"):
        silent(model, masks, [])


def test_as_a_scorer_of_other_allocators():
    _, masks, scores = case()
    after = Shrink(0.25)(scores, masks)
    assert counts(after)[0] == 272 - 68


def with_rounds(recipe, *rounds, score=None):
    """The recipe with a single level, of these rounds, and maybe another scorer."""
    scoring = recipe.scoring if score is None else dataclasses.replace(recipe.scoring, scorer=score)
    return dataclasses.replace(
        recipe, score=scoring, levels=(dataclasses.replace(recipe.levels[-1], prune=tuple(rounds)),)
    )


class TestRecipe:
    def test_levels_and_batches(self):
        recipe = sipp(levels=3, first_density=0.8, target_density=0.2)
        assert recipe.levels[0].prune == ()
        assert [round(level.prune[0].density, 12) for level in recipe.levels[1:]] == [0.8, 0.4, 0.2]
        assert (recipe.scoring.of, recipe.scoring.batches) == ("current", 1)
        assert len(sipp(untrained=True, levels=1).levels) == 1
        assert sipp(points=1000, batch_size=100).scoring.batches == 10

    def test_oneshot_scores_the_unpruned_network_at_every_level(self):
        recipe = sipp(order="oneshot", variant="rand", epochs=4)
        assert (recipe.scoring.of, recipe.rewind_epoch, recipe.scoring.scorer.masked) == ("dense", 4, False)
        assert recipe.levels[1].prune[0].recover
        recipe = sipp(order="oneshot", untrained=True)
        assert (recipe.scoring.of, recipe.rewind_epoch) == ("init", 0)

    @pytest.mark.parametrize("options", [{}, {"variant": "hybrid", "order": "oneshot", "bound": "bernstein"}])
    def test_run(self, options):
        recipe = sipp(levels=2, epochs=3, batch_size=50, lr=0.05, target_density=0.2, control=False, **options)
        dense_level, _, last = run(recipe, mlp((1, 8, 8), 10, hidden=(40,), seed=0), digits())
        assert abs(last.record.density - 0.2) < (1e-3 if not options else 0.03)
        assert last.record.validation_accuracy > 0.85
        assert dense_level.record.validation_accuracy > 0.85

    def test_untrained_and_propagated(self):
        recipe = sipp(levels=1, epochs=1, batch_size=50, untrained=True, variant="rand", propagate=True, control=False)
        (level,) = run(recipe, mlp((1, 8, 8), 10, hidden=(40,), seed=0), digits())
        assert level.record.level == 0
        assert 0.02 < level.record.density < 0.1
        removed = sum(group.c for group in level.record.groups)
        assert removed == level.record.total - level.record.kept

    @pytest.mark.parametrize("options", [{"variant": "rand"}, {"propagate": True}])
    def test_a_level_that_starts_below_its_density(self, options):
        short = {"levels": 2, "epochs": 1, "control": False, "untrained": True, "delta": 0.5}
        recipe = sipp(first_density=0.4, target_density=0.3999, **short, **options)
        first, second = run(recipe, mlp((1, 8, 8), 10, hidden=(20,), seed=0), digits())
        assert second.record.kept <= first.record.kept
        assert second.record.density > 0.2

    def test_every_level_draws_its_own_numbers(self):
        recipe = sipp(variant="rand", levels=3, untrained=True)
        assert len({level.prune[0].seed for level in recipe.levels}) == 3
        assert recipe.levels == sipp(variant="rand", levels=3, untrained=True).levels
        assert recipe.levels != sipp(variant="rand", levels=3, untrained=True, seed=1).levels

    @pytest.mark.parametrize("second", [SiPPRand(0.25, delta=0.5, seed=2), SiPPDet(0.25)])
    def test_the_factors_of_one_level_s_rounds_are_multiplied(self, second):
        model = mlp((1, 8, 8), 10, hidden=(20,), seed=0)
        seen = []

        def score(at, masks, batches):
            seen.append(({n: p.detach().clone() for n, p in at.named_parameters()}, SiPP()(at, masks, batches)))
            return seen[-1][1]

        one = sipp(untrained=True, levels=1, epochs=1, control=False, lr=0.0)
        first = SiPPRand(0.5, delta=0.5, seed=1)
        (level,) = run(with_rounds(one, first, second, score=score), model, digits())
        plan = first.plan(seen[0][1], dense(model))
        later = second.plan(seen[1][1], plan.masks)
        for name, gamma in plan.multipliers.items():
            halfway = seen[0][0][name] * gamma
            assert torch.equal(seen[1][0][name], halfway)
            factor = (later.multipliers or {}).get(name, 1) * later.masks[name]
            assert torch.allclose(level.weights[name], halfway * factor)

    def test_a_round_that_may_bring_weights_back_starts_without_earlier_factors(self):
        model = mlp((1, 8, 8), 10, hidden=(20,), seed=0)
        one = sipp(untrained=True, levels=1, epochs=1, control=False, lr=0.0, order="oneshot")
        rounds = (SiPPRand(0.5, delta=0.5), SiPPDet(0.25, recover=True))
        (level,) = run(with_rounds(one, *rounds), model, digits())
        (alone,) = run(with_rounds(one, *rounds[1:]), model, digits())
        assert all(torch.equal(value, alone.weights[name]) for name, value in level.weights.items())

    def test_stopping(self):
        recipe = sipp(levels=2, stop="loss-plateau", evaluate_every=0.5)
        assert {level.train.evaluate_every for level in recipe.levels} == {0.5}
        assert [level.train.stop for level in recipe.levels] == [FixedEpochs(), LossPlateau(), FixedEpochs()]
        assert {level.train.stop for level in sipp().levels} == {FixedEpochs()}
        untrained = sipp(levels=3, untrained=True, stop="loss-plateau")
        assert [level.train.stop for level in untrained.levels] == [FixedEpochs(), LossPlateau(), FixedEpochs()]
        assert {(level.train.epochs, level.train.batch_size) for level in recipe.levels} == {(3, None)}

    def test_a_single_level_has_the_target(self):
        recipe = sipp(levels=1, target_density=0.9)
        assert [level.prune[0].density for level in recipe.levels[1:]] == [0.9]

    def test_factors_are_for_the_weights_that_were_sampled(self):
        scores, masks = spiky()
        model = nn.Linear(40, 3, bias=False, dtype=D)
        plan = SiPPRand(0.4).plan(scores, masks)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        expected = before["weight"] * plan.multipliers["weight"]
        back = sipp(order="oneshot").levels[-1].restart
        assert torch.equal(back(model, before, plan).weight, torch.where(expected == 0, 0, expected))
        unweighted = sipp(start="rewind").levels[-1].restart(model, before, plan).weight
        assert torch.equal(unweighted, torch.where(plan.masks["weight"], before["weight"], 0))

    @pytest.mark.parametrize(
        "options",
        [
            {"order": "x"},
            {"variant": "x"},
            {"start": "x"},
            {"levels": 0},
            {"target_density": 0.9},
            {"first_density": 2.0},
            {"levels": 1, "target_density": 1.5},
            {"delta": 20.0},
            {"constant": 0.5},
            {"variant": "rand", "min_keep": 5},
            {"order": "oneshot", "rewind_epoch": 1},
            {"start": "fresh", "rewind_epoch": 1},
            {"stop": "x"},
        ],
    )
    def test_refusals(self, options):
        with pytest.raises(ValueError, match="got|unknown"):
            sipp(**options)
