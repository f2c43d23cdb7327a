"""What the recipe leaves of each layer: the counts of the formula, exactly, and enough behind convolutions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from reference import sipp as slow
from torch import nn

from sparsight.model.masks import counts, dense
from sparsight.pruning.sipp.allocate import SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.score import SiPP
from sparsight.recipes.sipp import sipp
from sparsight.runs.run import run
from sparsight.types import Data, Split


def wide_kernels():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def one_dimension():
    return nn.Sequential(
        nn.Conv1d(2, 12, 9, stride=2), nn.BatchNorm1d(12), nn.ReLU(), nn.Conv1d(12, 24, 5), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


def strided():
    def block(a, b):
        return nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()

    parts = (*block(1, 12), *block(12, 16), *block(16, 16), *block(16, 32))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


NETWORKS = {wide_kernels: (1, 20, 20), one_dimension: (2, 120), strided: (1, 28, 28)}


def made(network, **options):
    """(levels, scores of each) of a recipe on noise; trained for an epoch a level."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = network()
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(160, *NETWORKS[network], generator=g), torch.randint(10, (160,), generator=g)
    data = Data(name="noise", train=Split(x[:120], y[:120]), validation=Split(x[120:], y[120:]))
    recipe = sipp(epochs=1, control=False, batch_size=120, points=60, lr=0.01, **options)
    seen = []

    def score(at, masks, batches):
        scores = recipe.scoring.scorer(at, masks, batches)
        seen.append((scores, masks, {n: p.detach().clone() for n, p in at.named_parameters()}))
        return scores

    watched = dataclasses.replace(recipe, score=dataclasses.replace(recipe.scoring, scorer=score))
    return list(run(watched, model, data)), seen


def kept(level):
    return {layer.name: layer.kept for layer in level.record.layers if layer.name in level.masks}


def asked(density, total):
    return math.floor(density * total + 0.5)


def by_epsilon(scores, masks, budget, delta=1e-16, constant=3.0):
    """Weights of each layer if sum eps_rand(m) / rows is least: two bisections on a numeric derivative, all at once."""
    alpha, full, share, names = [], [], [], []
    for name, s in scores.items():
        facts = scores.facts[name]
        sign = torch.where(facts.positive, 1.0, -1.0) * masks[name]
        sums, nonzero = slow.groups(sign.flatten(1).numpy(), s.flatten(1).double().numpy())
        log = math.log(8 * (facts.patches + 1) * facts.kernel / delta)
        alpha.append(2 * constant * log * sums)
        full.append(nonzero)
        share.append(np.full(len(sums), 1 / len(s)))
        names += [name] * len(sums)
    alpha, full, share = np.concatenate(alpha), np.concatenate(full).astype(float), np.concatenate(share)
    some = full > 0
    a, top, of = alpha[some], full[some], share[some]

    def eps(m):
        u = a / (3 * m)
        return (u + np.sqrt(u * u + 6 * u)) / 2

    def m_of(price):
        low, high = np.full(len(a), 1e-6), top.copy()
        for _ in range(60):
            middle = (low + high) / 2
            gain = of * (eps(middle * (1 - 1e-5)) - eps(middle * (1 + 1e-5))) / (2e-5 * middle)
            low, high = np.where(gain > price, middle, low), np.where(gain > price, high, middle)
        return low

    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if m_of(math.exp(middle)).sum() > budget else (low, middle)
    m = np.zeros(len(full))
    m[some] = m_of(math.exp(low))
    rounded = np.floor(m)
    largest = np.argsort(rounded - m, kind="stable")[: budget - int(rounded.sum())]
    rounded[largest] += 1
    return {name: int(rounded[np.array(names) == name].sum()) for name in scores}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("variant", [None, "rand"])
def test_layers_keep_what_epsilon_gives_them(network, variant):
    options = {"variant": variant} if variant else {}
    (_, level), seen = made(network, levels=1, target_density=0.06, **options)
    scores, before, _ = seen[0]
    total = counts(before)[1]
    found, expected = kept(level), by_epsilon(scores, before, asked(0.06, total))
    assert sum(found.values()) == asked(0.06, total)
    for name, count in expected.items():
        assert abs(found[name] - count) <= 1, name  # remainders may be equal to within the bisections
    last = list(level.masks.values())[-1]
    assert bool(last.any(1).all())  # every class has an input
    assert last.sum() >= 0.06 * last.numel()


@pytest.mark.parametrize("network", NETWORKS)
def test_det_ranks_by_the_mean_over_patches(network):
    (_, level), seen = made(network, levels=1, target_density=0.06, variant="det")
    scores, before, _ = seen[0]
    assert scores.reduction == "mean"
    values = torch.cat([s.flatten() for s in scores.values()])
    edge = values.sort(descending=True).values[asked(0.06, counts(before)[1]) - 1]
    for name, mask in level.masks.items():
        assert torch.equal(mask, scores[name] >= edge), name
    maximum = made(network, levels=1, target_density=0.06, variant="det", reduction="max")[0][-1]
    last = list(level.masks)[-1]
    assert kept(level)[last] > 1.5 * kept(maximum)[last]  # where layers are ranked together, patches count


def test_the_mean_is_a_mean_over_the_patches_of_a_convolution():
    model, (x,) = wide_kernels(), [torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))]
    found = SiPP("mean", points=3)(model, dense(model), [x])["0.weight"]
    points = [slow.patches(p.numpy(), (5, 5), (1, 1), (0, 0), (1, 1)) for p in x]
    weight = model[0].weight.detach().flatten(1).numpy()[:1]
    positive, negative = np.maximum(weight, 0), np.maximum(-weight, 0)
    shares = []
    for a in points:
        z = np.where(weight > 0, a @ positive.T, a @ negative.T)
        shares.append((np.abs(weight) * a / z).mean(0))
    assert np.allclose(found.flatten(1)[0].numpy(), np.max(shares, 0), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "oneshot"},
        {"variant": "rand"},
        {"variant": "rand", "order": "oneshot"},
        {"variant": "det"},
        {"bound": "bernstein"},
        {"delta": 0.5},
    ],
)
def test_every_level_has_exactly_its_density(options):
    levels, _ = made(strided, levels=3, first_density=0.5, target_density=0.0503, **options)
    total = levels[0].record.total
    for level, density in zip(levels[1:], (0.5, math.sqrt(0.5 * 0.0503), 0.0503), strict=True):
        assert level.record.kept == asked(density, total)
        assert sum(group.d - group.c for group in level.record.groups) == level.record.kept


def test_oneshot_keeps_what_epsilon_gives_at_every_level():
    levels, seen = made(one_dimension, levels=2, first_density=0.3, target_density=0.08, order="oneshot")
    for level, density, (scores, _, _) in zip(levels[1:], (0.3, 0.08), seen, strict=True):
        whole = dense(one_dimension())
        for name, count in by_epsilon(scores, whole, asked(density, counts(whole)[1])).items():
            assert abs(kept(level)[name] - count) <= 1


# -- exact counts of samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SiPPRand, SiPPHybrid])
@pytest.mark.parametrize("delta", [0.5, 1e-16])
def test_every_sampled_group_keeps_its_count(kind, delta):
    model = wide_kernels()
    masks = dense(model)
    scores = SiPP(points=20)(model, masks, [torch.rand(20, 1, 20, 20, generator=torch.Generator().manual_seed(3))])
    sampled = differ = 0
    for density in (0.03, 0.15, 0.3):
        drawn = kind(density, delta=delta, exact=False).decide(scores, masks)
        found = kind(density, delta=delta).decide(scores, masks)
        assert np.array_equal(drawn.counts, found.counts)
        assert np.array_equal(drawn.random, found.random)
        assert counts(found.masks)[0] == asked(density, counts(masks)[1])
        for name, mask in found.masks.items():
            facts = scores.facts[name]
            for positive, want, random, draws in zip(
                (True, False),
                found.groups.split(name, found.counts),
                found.groups.split(name, found.random),
                found.groups.split(name, found.draws),
                strict=True,
            ):
                side = (facts.positive == positive).flatten(1)
                now, first = mask.flatten(1) & side, drawn.masks[name].flatten(1) & side
                assert now.sum(1).tolist() == want.tolist()
                old, new = (d.multipliers[name].flatten(1) for d in (drawn, found))
                score = scores[name].flatten(1)
                for row in range(len(mask)):
                    gone, come = first[row] & ~now[row], now[row] & ~first[row]
                    assert not (bool(gone.any()) and bool(come.any()))
                    if bool(gone.any()):  # the least sensitive of the sampled
                        assert score[row][gone].max() <= score[row][now[row]].min()
                    if bool(come.any()):  # the most sensitive of what was left out, as they are
                        rest = side[row] & ~now[row]
                        assert not bool(rest.any()) or score[row][come].min() >= score[row][rest].max()
                        assert bool((new[row][come] == 1).all())
                    stay = now[row] & first[row]
                    assert torch.equal(old[row][stay], new[row][stay])
                    moved = bool(gone.any() or come.any())
                    assert (draws[row] > 0) == (bool(random[row]) and not moved)
                    sampled, differ = sampled + int(random[row]), differ + moved
    assert kind is SiPPHybrid or sampled > 100
    assert kind is SiPPHybrid or differ > 20


def test_samples_as_the_published_code_leaves_them():
    model = wide_kernels()
    masks = dense(model)
    scores = SiPP(points=20)(model, masks, [torch.rand(20, 1, 20, 20, generator=torch.Generator().manual_seed(3))])
    kept = [counts(SiPPRand(0.2, exact=False, seed=seed)(scores, masks))[0] for seed in range(5)]
    assert len(set(kept)) > 1
    assert {counts(SiPPRand(0.2, seed=seed)(scores, masks))[0] for seed in range(5)} == {asked(0.2, counts(masks)[1])}
