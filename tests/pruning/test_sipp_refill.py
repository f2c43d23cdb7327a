"""Refilling: the budget is met by weights that are alive, as an ordinary backward pass sees it."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from test_sipp_layers import NETWORKS, made, one_dimension, strided, wide_kernels
from torch import nn
from torch.nn import functional

from sparsight.cli.recipes import names
from sparsight.model.masks import counts, dense
from sparsight.pruning.restart import carry_on
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.score import SiPP
from sparsight.recipes.sipp import sipp


def case(network, kind):
    """A network, the batches that are scored on, and its scores, which can tell what is dead."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
    g = torch.Generator().manual_seed(0)
    batches = [(torch.rand(40, *NETWORKS[network], generator=g), torch.randint(10, (40,), generator=g))] * 2
    reduction = "mean" if kind is SiPPDet else "max"
    return model, batches, SiPP(reduction, points=40, propagate=True)(model, dense(model), batches)


def dead(model, plan, batches):
    """How many kept weights have a gradient of exactly 0 in the pruned network, summed in no batch."""
    pruned = carry_on(copy.deepcopy(model), {}, plan).eval()
    some = {name: torch.zeros_like(mask) for name, mask in plan.masks.items()}
    for x, y in batches:
        pruned.zero_grad()
        functional.cross_entropy(pruned(x), y).backward()
        for name, parameter in pruned.named_parameters():
            if name in some:
                some[name] |= parameter.grad != 0
    return sum(int((plan.masks[name] & ~some[name]).sum()) for name in some)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [SiPPDet, SiPPRand, SiPPHybrid])
def test_the_budget_is_met_by_weights_that_are_alive(network, kind):
    model, batches, scores = case(network, kind)
    total = counts(dense(model))[1]
    budget = math.floor(0.2 * total + 0.5)
    plain = kind(0.2).plan(dict(scores), dense(model)) if kind is SiPPDet else kind(0.2).plan(scores, dense(model))
    without, again, refilled = (kind(0.2, refill=r).plan(scores, dense(model)) for r in (False, True, True))
    assert counts(without.masks)[0] < budget  # some of it is dead
    assert counts(refilled.masks)[0] == budget
    assert dead(model, refilled, batches) == 0
    assert all(torch.equal(refilled.masks[name], again.masks[name]) for name in again.masks)
    assert sum(group.d - group.c for group in refilled.groups) == budget
    if kind is SiPPDet:
        assert dead(model, plain, batches) > 0
        assert refilled.multipliers is None or not set(refilled.multipliers) & set(refilled.masks)
    else:
        factors = refilled.multipliers or {}
        assert all(torch.equal(factors.get(name, mask) > 0, mask) for name, mask in refilled.masks.items())
        assert kind is SiPPHybrid or set(refilled.masks) <= set(factors)


@pytest.mark.parametrize("density", [0.02, 0.06])
def test_a_network_that_falls_apart_is_put_together(density):
    model, batches, scores = case(strided, SiPPDet)
    total = counts(dense(model))[1]
    kept = {r: SiPPDet(density, refill=r).plan(scores, dense(model)) for r in (False, True)}
    assert counts(kept[False].masks)[0] < 0.6 * density * total
    assert counts(kept[True].masks)[0] == math.floor(density * total + 0.5)
    assert dead(model, kept[True], batches) == 0


def test_where_too_few_can_live_all_that_do_are_kept():
    layer = nn.Sequential(nn.Linear(6, 4, bias=False))
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    x[:, 2:] = 0
    masks, batches = dense(layer), [(x, torch.arange(30) % 4)]
    for kind in (SiPPDet, SiPPRand, SiPPHybrid):
        scores = SiPP(points=30, propagate=True)(layer, masks, batches)
        plan = kind(count=13, refill=True).plan(scores, masks)
        assert plan.masks["0.weight"].tolist() == [[True, True, False, False, False, False]] * 4


def test_what_is_set_aside_leaves_the_floor_of_its_layer():
    model, batches, scores = case(one_dimension, SiPPDet)
    plan = SiPPDet(0.03, min_keep=12, refill=True).plan(scores, dense(model))
    assert all(int(mask.sum()) >= 12 for mask in plan.masks.values())
    assert counts(plan.masks)[0] == math.floor(0.03 * counts(dense(model))[1] + 0.5)
    assert dead(model, plan, batches) == 0


@pytest.mark.parametrize("kind", [SiPPDet, SiPPRand, SiPPHybrid])
def test_scores_that_cannot_tell_what_is_dead_are_refused(kind):
    model = wide_kernels()
    masks = dense(model)
    scores = SiPP(points=10)(model, masks, [torch.rand(10, 1, 20, 20)])
    for given in (scores, dict(scores)):
        with pytest.raises(ValueError, match=r"refill needs the scores of SiPP\(propagate=True\)"):
            kind(0.1, refill=True).plan(given, masks)


@pytest.mark.parametrize("options", [{}, {"variant": "det"}, {"variant": "rand", "order": "oneshot"}])
def test_every_level_of_the_recipe_has_its_density(options):
    levels, _ = made(one_dimension, levels=2, first_density=0.4, target_density=0.15, refill=True, **options)
    less, _ = made(one_dimension, levels=2, first_density=0.4, target_density=0.15, propagate=True, **options)
    total = levels[0].record.total
    assert [level.record.kept for level in levels[1:]] == [math.floor(d * total + 0.5) for d in (0.4, 0.15)]
    assert less[-1].record.kept < levels[-1].record.kept


def test_samples_are_not_drawn_again():
    model, _, scores = case(wide_kernels, SiPPRand)
    first, refilled = (SiPPRand(0.2, refill=r).plan(scores, dense(model)) for r in (False, True))
    for name, mask in refilled.masks.items():
        gamma, before = refilled.multipliers[name][mask], first.multipliers[name][mask]
        assert bool(((gamma == before) | (gamma == 1)).all())  # those that joined are whole
    with pytest.raises(ValueError, match="refill needs exact=True"):
        SiPPRand(0.2, refill=True, exact=False)


def test_refilling_propagates():
    recipe = sipp(levels=1, refill=True)
    assert recipe.scoring.scorer.propagate
    assert recipe.levels[-1].prune[0].refill
    assert not sipp(levels=1).scoring.scorer.propagate
    assert dataclasses.replace(recipe.levels[-1].prune[0], refill=False) == sipp(levels=1).levels[-1].prune[0]
    assert "sipp" in names()
