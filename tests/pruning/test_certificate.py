"""Certificates: the bounds hold as often as they say, the errors are the true ones, and what is void is refused."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from reference import sipp as slow
from torch import nn
from torch.nn import functional as F

from sparsight.model.masks import counts, dense
from sparsight.pruning.restart import carry_on
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.certificate import Certificate, certify, pruning_of
from sparsight.pruning.sipp.certificate.measure import why_no_chain
from sparsight.pruning.sipp.score import SiPP, silent
from sparsight.records.record import from_json, to_json
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp, resnet8

D = torch.float64


def network(seed=0, width=24, dtype=D):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 6)).to(dtype)


def gaussian(n, seed):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed), dtype=D)


def made(model, x, kind=SiPPDet, density=0.9, **options):
    masks = dense(model)
    scores = SiPP()(model, masks, [x])
    allocator = kind(density, **options)
    return scores, allocator.plan(scores, masks), allocator.decide(scores, masks) if kind is not SiPPDet else None


class TestNumbers:
    def test_bounds_and_errors_are_those_of_the_definitions(self):
        model, x, held = network(), gaussian(60, 0), gaussian(40, 1)
        scores, plan, _ = made(model, x, density=0.8)
        found = certify(model, plan.masks, scores, [held], constant=2.0)
        for i, (name, at) in enumerate({"0.weight": held, "2.weight": model[1](model[0](held)).detach()}.items()):
            weight, mask = model.get_parameter(name).detach(), plan.masks[name]
            layer = found.layers[i]
            s = np.where(mask, 0, slow.sensitivities(weight, [p[None] for p in inputs_of(model, i, x)]))
            lost, _ = slow.groups(weight, s)
            mass = at.abs() @ weight.abs().T
            error = ((at @ (weight - weight * mask).T).abs() / mass).numpy()
            for row, neuron in enumerate(layer.neurons):
                assert neuron.plus == pytest.approx(2 * lost[row], abs=1e-9)
                assert neuron.minus == pytest.approx(2 * lost[row + len(weight)], abs=1e-9)
                assert neuron.bound == max(neuron.plus, neuron.minus)
                assert (neuron.kept, neuron.total) == (int(mask[row].sum()), weight.shape[1])
                assert neuron.measured == pytest.approx(error[:, row].max(), abs=1e-12)
                assert neuron.mean == pytest.approx(error[:, row].mean(), abs=1e-12)
                assert (neuron.kind, neuron.patches) == ("deterministic", 40)
            assert layer.measured == max(n.measured for n in layer.neurons)
            assert layer.bound == max(n.bound for n in layer.neurons)
            assert (layer.kept, layer.total) == (int(mask.sum()), mask.numel())
        outputs, pruned = model(held).detach(), carry_on(copy.deepcopy(model), {}, plan)(held).detach()
        relative = ((pruned - outputs).abs() / outputs.abs()).amax(1)
        assert found.network.measured == pytest.approx(float(relative.max()), rel=1e-9)
        assert found.network.mean == pytest.approx(float(relative.mean()), rel=1e-9)
        assert found.density == pytest.approx(counts(plan.masks)[0] / counts(plan.masks)[1])

    def test_confidence(self):
        model, x = network(), gaussian(30, 0)
        scores, plan, _ = made(model, x)
        found = certify(model, plan.masks, scores, [gaussian(5, 1)], delta=1e-3)
        edges = 16 * 24 + 24 * 6
        assert found.delta_points == pytest.approx(edges * math.exp(-10))
        assert (found.delta_draws, found.delta) == (0.0, found.delta_points)
        assert found.points_needed == math.ceil(3 * math.log(edges / 1e-3))
        assert any("needs 40" in line for line in found.says)
        scores, plan, decision = made(model, x, SiPPRand, 0.5)
        found = certify(model, plan.masks, scores, [gaussian(5, 1)], decision=decision, delta=1e-3)
        assert found.delta_draws in (0.0, 1e-3)
        assert found.delta == pytest.approx(found.delta_points + found.delta_draws)

    def test_nothing_pruned_nothing_lost(self):
        model, x = network(), gaussian(60, 0)
        found = certify(model, dense(model), SiPP()(model, dense(model), [x]), [gaussian(20, 1)])
        assert all(n.bound == n.measured == 0 for layer in found.layers for n in layer.neurons)
        assert (found.network.bound, found.network.measured, found.network.within) == (0.0, 0.0, 20)

    def test_convolutions_and_reweighting(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular")).to(D)
        x = torch.rand(12, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=D)
        scores, plan, decision = made(model, x[:6], SiPPRand, 0.6)
        found = certify(model, plan.masks, scores, [x[6:]], decision=decision)
        gamma = plan.multipliers["0.weight"]
        pruned = copy.deepcopy(model)
        pruned[0].weight.data *= gamma
        absolute = copy.deepcopy(model)
        absolute[0].weight.data.abs_()
        absolute[0].bias.data.zero_()
        error = ((pruned(x[6:]) - model(x[6:])).abs() / absolute(x[6:])).detach()
        for row, neuron in enumerate(found.layers[0].neurons):
            assert neuron.measured == pytest.approx(float(error[:, row].max()), abs=1e-12)
            assert neuron.patches == 6 * 9

    def test_records_survive_json(self):
        model, x = network(), gaussian(30, 0)
        scores, plan, _ = made(model, x, density=0.1)
        found = certify(model, plan.masks, scores, [gaussian(5, 1)])
        assert from_json(Certificate, to_json(found), "certificate") == found
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.delta = 0.0


def inputs_of(model, i, x):
    return (x if i == 0 else model[1](model[0](x)).detach()).numpy()


class TestGuarantee:
    def test_deterministic_bounds_on_gaussian_inputs(self):
        """With the points that delta asks for, no run of many may break a bound more often than delta says."""
        broken, delta = 0, 0.1
        for seed in range(12):
            model = network(seed)
            points = math.ceil(3 * math.log((16 * 24 + 24 * 6) / delta))
            scores, plan, _ = made(model, gaussian(points, 100 + seed), density=0.95)
            found = certify(model, plan.masks, scores, [gaussian(300, 500 + seed)], delta=delta)
            assert found.delta <= delta + 1e-9
            broken += any(layer.violations for layer in found.layers)
        assert broken <= 3  # P(more than 3 of 12 at 0.1) is 0.03

    def test_sampling_bounds_on_real_activations(self):
        """Digits: for one input the bounds of all sampled groups together fail with probability delta at most."""
        data = digits()
        model = mlp((1, 8, 8), 10, hidden=(40,), seed=0)
        masks = dense(model)
        scores = SiPP()(model, masks, [data.train.x[:150]])
        failures = events = 0
        for seed in range(12):
            decision = SiPPRand(0.8, delta=0.2, exact=False, seed=seed).decide(scores, masks)
            assert decision.random.any()
            found = certify(model, decision.masks, scores, [data.validation.x[:50]], decision=decision, delta=0.2)
            failures += sum(layer.violations for layer in found.layers)
            events += 50
        assert failures <= 0.2 * events

    def test_bernstein_holds_for_one_group(self):
        """|z_hat - z| > eps z in at most delta of the draws, where the bound is the smaller of the two."""
        g = torch.Generator().manual_seed(0)
        layer = nn.Linear(400, 1, bias=False, dtype=D)
        layer.weight.data = 1 + 0.1 * torch.rand(1, 400, generator=g, dtype=D)
        x = 1 + 0.3 * torch.rand(60, 400, generator=g, dtype=D)
        masks = dense(layer)
        scores = SiPP()(layer, masks, [x[:40]])
        broken = vacuous = 0
        for seed in range(40):
            decision = SiPPRand(0.6, delta=0.5, exact=False, seed=seed).decide(scores, masks)
            found = certify(layer, decision.masks, scores, [x[40:41]], decision=decision, delta=0.2, constant=1.2)
            neuron = found.layers[0].neurons[0]
            assert neuron.kind == "random"
            broken += neuron.violations
            vacuous += neuron.bound >= 1
        assert vacuous == 0
        assert broken <= 14  # P(more than 14 of 40 at 0.2) is below 0.01

    def test_the_composed_bound_holds(self):
        """Few weights of tiny sensitivity: the outputs stay within what the layers' bounds compose to."""
        g = torch.Generator().manual_seed(1)
        model = network(3)
        for layer in (model[0], model[2]):
            layer.weight.data.abs_()
            layer.weight.data[torch.rand(layer.weight.shape, generator=g) < 0.2] *= 1e-5
            layer.bias.data.abs_()
        x = torch.rand(200, 16, generator=g, dtype=D)
        scores, plan, _ = made(model, x[:100], density=0.85)
        found = certify(model, plan.masks, scores, [x[100:]])
        assert found.network.within == 100
        assert found.network.violations == 0
        assert 0 < found.network.measured <= found.network.bound < 0.05
        assert "have a bound below 1" in found.network.says

    def test_no_bound_where_a_sign_may_turn(self):
        """Hidden layers that are all zero before pruning, and are not after it."""
        model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
        model[0].weight.data = torch.tensor([[1.0, 1, 1, -1, -1, -1.5]]).repeat(4, 1)
        g = torch.Generator().manual_seed(0)
        x, held = torch.rand(300, 6, generator=g), torch.rand(200, 6, generator=g)
        masks = dense(model)
        scores = SiPP()(model, masks, [x])
        pruned = dense(model)
        pruned["0.weight"][:, 5] = False
        found = certify(model, pruned, scores, [held]).network
        dead = int((model[0](held) <= 0).all(1).sum())
        assert dead > 50
        assert found.bound == math.inf
        assert (found.within, found.violations) == (0, 0)

    def test_nothing_changes_where_nothing_was_pruned_and_an_output_is_0(self):
        model = nn.Sequential(nn.Linear(2, 2, bias=False))
        model[0].weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
        x = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
        found = certify(model, dense(model), SiPP()(model, dense(model), [x]), [x])
        assert (found.network.bound, found.network.within) == (0.0, 2)

    def test_a_small_row_is_bounded_like_any_other(self):
        model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
        model[0].weight.data = torch.tensor([[1.0, 2, 3, 4], [1e-8, 2e-8, 3e-8, 4e-8]])
        x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + 0.1
        scores, pruned = SiPP()(model, dense(model), [x]), dense(model)
        pruned["0.weight"][1] = False
        small = certify(model, pruned, scores, [x]).layers[0].neurons[1]
        assert small.bound >= 1
        assert (small.measured, small.patches) == (pytest.approx(1.0), 60)


class TestWords:
    def test_vacuous_bounds_are_called_so(self):
        model, x = network(), gaussian(60, 0)
        scores, plan, _ = made(model, x, density=0.1)
        found = certify(model, plan.masks, scores, [gaussian(10, 1)])
        assert found.layers[0].vacuous == 24
        assert "says nothing about 0.weight: it is at least 1 for each of its 24 neurons" in found.layers[0].says
        assert "removing every weight would give an error of exactly 1" in found.layers[0].says
        assert any("vacuous" in line for line in found.says)
        assert "says nothing about the outputs" in found.network.says

    def test_networks_without_a_bound_say_why(self):
        model = resnet8((1, 8, 8), 10, seed=0).eval()
        masks, x = dense(model), torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        found = certify(model, masks, SiPP()(model, masks, [x]), [x])
        assert found.network.bound is None
        assert "There is no bound for the outputs" in found.network.says


def test_chains():
    def layers(model):
        return [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3), nn.Linear(12, 2)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.a(x)), 2)
            x = F.avg_pool2d(self.b(x).relu(), 2)
            return self.c(F.dropout(x.flatten(1), training=self.training))

    pooled = nn.Sequential(nn.Conv1d(1, 2, 3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(4, 2))
    for model in (network(), Functional()):
        assert why_no_chain(model, layers(model)) is None
    assert "averages numbers of both signs" in why_no_chain(pooled, [pooled[0], pooled[3]])
    model = network()
    assert "not among the layers with bounds" in why_no_chain(model, [model[0]])

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return x + self.a(x)

    parts = Parts()
    assert "paths join or split" in why_no_chain(parts, [parts.a])

    class Branches(Parts):
        def forward(self, x):
            return self.a(x) if x.sum() > 0 else x

    assert "cannot be traced" in why_no_chain(Branches(), [])

    class Sigmoid(Parts):
        def forward(self, x):
            return F.sigmoid(self.a(x))

    model = Sigmoid()
    assert "neither a layer" in why_no_chain(model, layers(model))


def test_reading_a_size_is_no_second_path():
    class Reads(nn.Module):
        def __init__(self, how) -> None:
            super().__init__()
            self.a, self.b, self.how = nn.Conv2d(1, 2, 3), nn.Linear(8, 2), how

        def forward(self, x):
            return self.b(self.how(self.a(x).relu()))

    for how in (
        lambda x: x.view(x.size(0), -1),
        lambda x: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
        lambda x: torch.relu_(x).flatten(1),
    ):
        model = Reads(how)
        assert why_no_chain(model, [model.a, model.b]) is None
    model = Reads(lambda x: x.view(x.size(0), -1) / x.size(1))
    assert "neither a layer" in why_no_chain(model, [model.a, model.b])
    model = Reads(lambda x: x.flatten(1) + x.flatten(1))
    assert "paths join or split" in why_no_chain(model, [model.a, model.b])


class TestPruningOf:
    def test_finds_the_mask(self):
        model, x = network(), gaussian(30, 0)
        _, plan, _ = made(model, x, density=0.3)
        pruned = carry_on(copy.deepcopy(model), {}, plan)
        found = pruning_of(model, pruned, dense(model))
        assert all(torch.equal(found[name], plan.masks[name]) for name in found)

    def test_refuses_a_network_that_was_trained_or_reweighted(self):
        model, x = network(), gaussian(30, 0)
        _, plan, _ = made(model, x, density=0.3)
        pruned = carry_on(copy.deepcopy(model), {}, plan)
        pruned[2].bias.data[1] += 1e-6
        with pytest.raises(ValueError, match=r"no bound covers this network: 1 of 6 values of '2.bias'"):
            pruning_of(model, pruned, dense(model))
        _, plan, _ = made(model, x, SiPPRand, 0.3)
        with pytest.raises(ValueError, match="trained or reweighted"):
            pruning_of(model, carry_on(copy.deepcopy(model), {}, plan), dense(model))
        with pytest.raises(ValueError, match="different parameters"):
            pruning_of(model, nn.Linear(2, 2), dense(model))

    def test_says_what_is_really_wrong(self):
        model = network()
        other = copy.deepcopy(model)
        other[0].bias.data[2] = 0
        with pytest.raises(ValueError, match=r"1 of 24 values of .0.bias. were set to 0, but bounds cover only"):
            pruning_of(model, other, dense(model))
        other[0].bias.data = model[0].bias.data.clone()
        for one in (model, other):
            one[0].weight.data[0, 0] = math.nan
        with pytest.raises(ValueError, match=r"1 of 384 values of '0.weight' are not finite before pruning"):
            pruning_of(model, other, dense(model))


def test_refusals():
    model, x = network(), gaussian(30, 0)
    masks = dense(model)
    scores = SiPP()(model, masks, [x])
    with pytest.raises(ValueError, match=r"needs the scores of SiPP\(reduction='max'\), got 'mean'"):
        certify(model, masks, SiPP("mean")(model, masks, [x]), [x])
    with pytest.raises(ValueError, match="got 'dict'"):
        certify(model, masks, dict(scores), [x])
    with pytest.raises(ValueError, match="at least one held-out batch"):
        certify(model, masks, scores, [])
    with pytest.raises(ValueError, match="delta"):
        certify(model, masks, scores, [x], delta=0.0)


class TestScoresOfOtherWeights:
    def test_of_the_pruned_network(self):
        model, x = network(), gaussian(30, 0)
        _, plan, _ = made(model, x, density=0.4)
        with pytest.raises(
            ValueError, match=r"scores belong to other weights: .*0.weight.* were 0 \(pruned\) when scored"
        ):
            certify(model, plan.masks, SiPP()(model, plan.masks, [x]), [x])

    def test_of_weights_that_have_changed_since(self):
        model, x = network(), gaussian(30, 0)
        scores, plan, _ = made(model, x)
        model[2].weight.data[1, 3] *= -1
        with pytest.raises(ValueError, match=r"belong to other weights: 1 of 144 in '2.weight' differ, and 0 of"):
            certify(model, plan.masks, scores, [x])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delta": 1.0}, "delta must be greater than 0 and less than 1, got 1.0"),
        ({"constant": 0.5}, "constant must be finite and at least 1, got 0.5"),
        ({"multipliers": {"zz": torch.ones(1)}}, "multipliers must be named after the parameters 0.weight.* got 'zz'"),
        ({"multipliers": {"0.weight": torch.ones(3)}}, r"'0.weight' must have its shape \(24, 16\), got \(3,\)"),
        ({"held": [torch.full((3, 16), math.nan, dtype=D)]}, "'0.weight': an input of its layer is not fin"),
    ],
)
def test_refusals_of_values(options, said):
    model, x = network(), gaussian(30, 0)
    scores, masks = SiPP()(model, dense(model), [x]), dense(model)
    with pytest.raises(ValueError, match=said):
        certify(model, masks, scores, options.pop("held", [x]), **options)


def test_the_least_delta_has_its_number_of_points():
    model, x = network(), gaussian(30, 0)
    scores, _, decision = made(model, x, SiPPRand, 0.5)
    found = certify(model, decision.masks, scores, [x], decision=decision, delta=1e-320)
    assert found.points_needed == math.ceil(3 * (math.log(16 * 24 + 24 * 6) - math.log(1e-320)))


def test_an_unpruned_output_that_is_not_finite():
    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) / 0

    model, x = Divides(), torch.rand(4, 3)
    with pytest.raises(ValueError, match="output for held-out batch 0 is not finite"):
        certify(model, dense(model), SiPP()(model, dense(model), [x]), [x])


def test_models_that_write_to_their_input():
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x.sub_(0.5))

    model, x = Writes(), torch.rand(20, 4)
    before, masks = x.clone(), dense(model)
    scores = SiPP()(model, masks, [(x, x[:, 0].long())])
    silent(model, masks, [(x, torch.zeros(20, dtype=torch.long))])
    found = certify(model, masks, scores, [(x, None)])
    assert torch.equal(x, before)
    assert (found.network.measured, found.network.bound) == (0.0, None)


def test_measuring_changes_nothing():
    model, x = network().train(), gaussian(30, 0)
    masks = dense(model)
    scores, plan, decision = made(model, x, SiPPHybrid, 0.5)
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    certify(model, plan.masks, scores, [x], decision=decision)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.training
    assert torch.equal(random, torch.get_rng_state())
    assert masks.keys() == plan.masks.keys()
    assert not any(m._forward_hooks for m in model.modules())
