"""Rescaling after pruning: golden factors, chi back at 1, where it explodes, where it is refused, and two recipes."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsight
from sparsight import SNIP, Global, Magnitude, Random, Shrink, recipes, run
from sparsight.measure.criticality import CriticalStart, NoEdgeOfChaos, edge_of_chaos, initialise_, phase_of
from sparsight.model import masks
from sparsight.model.functional import tapped
from sparsight.pruning import Rescale
from sparsight.pruning.rescale import FromStart, Rescaled, ScoredAt
from sparsight.types import Allocation, Data, Split
from sparsight.zoo import networks as zoo

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "robust_pai_golden.json").read_text())


def tiny() -> nn.Module:
    found = GOLDEN["tiny_mlp"]
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    for layer, weight, bias in zip(model[::2], found["W"], found["b"], strict=True):
        layer.weight.data = torch.tensor(weight, dtype=torch.float64)
        layer.bias.data = torch.tensor(bias, dtype=torch.float64)
    return model


def snip_mask(model: nn.Module) -> dict[str, torch.Tensor]:
    found = GOLDEN["tiny_mlp"]
    batch = (torch.tensor(found["X"], dtype=torch.float64), torch.tensor(found["y"]))
    everything = masks.dense(model)
    return Global(count=26, min_keep=0)(SNIP()(model, everything, [batch]), everything)


@pytest.mark.parametrize(
    ("rescale", "key"),
    [
        (Rescale(gain=1.0), "rho_rows_gain1_paper_literal"),
        (Rescale(activation=torch.tanh, sigma_b=0.2), "rho_rows_gain_sigma_w"),
        (Rescale("layer", sigma_b=0.2), "rho_layer_gain_sigma_w"),
    ],
)
def test_golden_factors(rescale, key):
    model = tiny()
    before, mask = copy.deepcopy(model.state_dict()), snip_mask(model)
    factors = rescale.factors(model, mask)
    for found, expected in zip(factors.values(), GOLDEN["tiny_mlp"]["rescale_tanh_snip26"][key], strict=True):
        assert torch.allclose(found.reshape(-1), torch.tensor(expected, dtype=torch.float64).reshape(-1), rtol=1e-12)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    made = rescale(copy.deepcopy(model), before, Allocation(mask))
    masks.verify(made, mask)
    for name, factor in factors.items():
        assert torch.allclose(made.get_parameter(name), before[name] * mask[name] * factor, rtol=1e-14)
    for i in (0, 2, 4):
        assert torch.equal(made[i].bias, before[f"{i}.bias"])


def wide(activation, depth: int = 6, width: int = 500) -> nn.Module:
    return zoo.mlp((width,), width, hidden=(width,) * depth, activation=activation, seed=0)


def slope(model: nn.Module, scale: float, depth: int, width: int = 500) -> float:
    """chi as gradients by pre-activations measure it, from the first layer to the last hidden one."""
    logs = []
    for x in scale * torch.randn(6, 1, width, generator=torch.Generator().manual_seed(9)):
        model.zero_grad()
        model(x).sum().backward()
        sizes = [getattr(model, f"fc{i}").bias.grad.double().square().sum().item() for i in (1, depth)]
        logs.append(math.log(sizes[0] / sizes[1]) / (depth - 1))
    return math.exp(sum(logs) / len(logs))


@pytest.mark.parametrize("by", ["neuron", "layer"])
@pytest.mark.parametrize("scorer", [Random(seed=1), Magnitude()], ids=["random", "magnitude"])
@pytest.mark.parametrize(("activation", "sigma_b"), [(F.relu, 0.0), (torch.tanh, 0.2)])
def test_chi_is_1_again(by, scorer, activation, sigma_b):
    """Where masks do not depend on the data: as the weights' variance says, and as gradients measure it."""
    edge = edge_of_chaos(activation, sigma_b=sigma_b)
    model = CriticalStart(activation, sigma_b, seed=2)(wide(activation))
    everything = masks.dense(model)
    mask = Global(0.1)(scorer(model, everything), everything)
    assert phase_of(model, activation, masks=mask).chi < 0.8
    made = Rescale(by, sigma_b=sigma_b)(model, copy.deepcopy(model.state_dict()), Allocation(mask))
    assert phase_of(made, activation).chi == pytest.approx(1, abs=0.02)
    scale = math.sqrt((edge.q - sigma_b**2) / edge.sigma_w**2)
    assert slope(made, scale, 6) == pytest.approx(1, abs=0.1)


def test_the_letter_of_the_paper_is_the_edge_of_chaos_only_where_sigma_w_is_1():
    model = CriticalStart(F.relu, seed=2)(wide(F.relu))
    everything = masks.dense(model)
    mask = Global(0.2)(Random()(model, everything), everything)
    state = copy.deepcopy(model.state_dict())
    assert phase_of(Rescale(gain=1.0)(model, state, Allocation(mask)), F.relu).chi == pytest.approx(0.5, abs=0.01)
    assert phase_of(Rescale(gain="dense")(model, state, Allocation(mask)), F.relu).chi == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", ["random", "magnitude_gaussian"])
def test_population_factors(kind):
    model = initialise_(nn.Linear(1000, 1000, bias=False), 1.0, seed=4)
    everything = masks.dense(model)
    for row in GOLDEN["rescaling_population"][kind]:
        score = (Random() if kind == "random" else Magnitude())(model, everything)
        (factor,) = Rescale("layer", gain="dense").factors(model, Global(row["density"])(score, everything)).values()
        assert factor.item() == pytest.approx(row["factor"], rel=0.02)


def test_rows_that_are_as_they_should_be_are_left_alone():
    model = nn.Linear(4, 3, bias=False).double()
    model.weight.data = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]]).double()
    (factor,) = Rescale(gain=math.sqrt(2)).factors(model, masks.dense(model)).values()
    assert torch.allclose(factor.reshape(-1), torch.tensor([1.0, 1.0, math.sqrt(0.5)], dtype=torch.float64), rtol=1e-15)


def test_offsets_of_a_kernel():
    model = initialise_(nn.Conv2d(40, 6, 3, groups=2), 1.3, seed=0)
    everything = masks.dense(model)
    mask = Global(0.3)(Random()(model, everything), everything)
    made = Rescale("offset", gain=1.5)(model, copy.deepcopy(model.state_dict()), Allocation(mask))
    assert torch.allclose(made.weight.detach().square().sum(1), torch.full((6, 3, 3), 1.5**2 / 9), rtol=1e-5)
    made = Rescale("neuron", gain=1.5)(model, copy.deepcopy(model.state_dict()), Allocation(mask))
    assert torch.allclose(made.weight.detach().square().sum((1, 2, 3)), torch.full((6,), 1.5**2), rtol=1e-5)


def squared_gradients(model: nn.Module, batch) -> float:
    """log10 of the mean squared gradient by the first hidden layer's outputs, over that by the last one's."""
    seen = []

    def see(name, module, inputs, output) -> None:
        output.retain_grad()
        seen.append(output)

    model.double()
    with tapped({name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}, see):
        F.cross_entropy(model(batch[0].double())[:, :10], batch[1]).backward()
    return math.log10(seen[0].grad.square().mean().item() / seen[-2].grad.square().mean().item())


def test_by_neuron_explodes_with_saliency_masks_of_relu_and_by_data_does_not():
    depth, width = 40, 100
    model = CriticalStart(F.relu, seed=0)(wide(F.relu, depth, width))
    g = torch.Generator().manual_seed(1)
    batch = (torch.randn(100, width, generator=g), torch.randint(0, 10, (100,), generator=g))
    everything = masks.dense(model)
    mask = Global(0.1)(SNIP()(model, everything, [batch]), everything)
    state = copy.deepcopy(model.state_dict())
    fresh = (torch.randn(100, width, generator=g), batch[1])
    found = {
        "pruned": squared_gradients(sparsight.rewind(copy.deepcopy(model), state, Allocation(mask)), fresh),
        "neuron": squared_gradients(Rescale()(copy.deepcopy(model), state, Allocation(mask)), fresh),
        "data": squared_gradients(
            Rescale("data", batches=[batch])(copy.deepcopy(model), state, Allocation(mask)), fresh
        ),
    }
    assert found["pruned"] < -3
    assert found["neuron"] > 6
    assert abs(found["data"]) < 2


def test_by_data_restores_each_layers_output():
    model = initialise_(nn.Sequential(nn.Linear(30, 80), nn.ReLU(), nn.Linear(80, 40)), 1.2, 0.3, seed=0)
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    everything = masks.dense(model)
    mask = Global(0.4)(Random()(model, everything), everything)
    made = Rescale("data", batches=[(x, None)])(
        copy.deepcopy(model), copy.deepcopy(model.state_dict()), Allocation(mask)
    )
    for i in (0, 2):
        before, after = (net[: i + 1](x) - net[i].bias for net in (model, made))
        assert after.square().mean().item() == pytest.approx(before.square().mean().item(), rel=1e-5)
    assert not any(module._forward_hooks for module in made.modules())


def test_what_no_signal_reaches_is_named():
    model = initialise_(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)), 1.0, seed=0)
    mask = {**masks.dense(model), "0.weight": torch.zeros(6, 5, dtype=torch.bool)}
    with pytest.warns(UserWarning, match="no signal gets through: 0.weight, 2.weight"):
        factors = Rescale("data").factors(model, mask, [(torch.ones(2, 5), None)])
    assert [f.item() for f in factors.values()] == [1, 1]


@pytest.mark.parametrize(
    ("model", "words"),
    [(zoo.resnet8((1, 8, 8), seed=0), "'bn' normalises"), (zoo.resnet8((1, 8, 8), norm=False, seed=0), "residual")],
)
def test_where_it_does_not_apply_it_warns_and_does_nothing(model, words):
    everything = masks.dense(model)
    mask = Global(0.5)(Magnitude()(model, everything), everything)
    state = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match=words):
        made = Rescale()(copy.deepcopy(model), state, Allocation(mask))
    expected = sparsight.rewind(copy.deepcopy(model), state, Allocation(mask))
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), expected.parameters(), strict=True))


class Own(nn.Module):
    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.c, self.between = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.between(self.b, F.relu(self.a(x)))))


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (lambda b, x: F.layer_norm(b(x), (4,)), "not rescaled: layer_norm in the forward normalises"),
        (lambda b, x: b(x) * torch.rsqrt(b(x).pow(2).mean(1, keepdim=True)), "not rescaled: rsqrt in the forward norm"),
        (lambda b, x: x + F.relu(b(x)), "not rescaled: the network is residual"),
        (lambda b, x: b(x) if x.sum() > 0 else x, "the forward of Own cannot be traced"),
    ],
)
def test_what_a_forward_hides(between, words):
    model = Own(between)
    with pytest.warns(UserWarning, match=words):
        factors = Rescale(gain=1.0).factors(model, masks.dense(model))
    assert bool(factors) is ("traced" in words)


def test_transposed_convolutions_are_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 1, 3))
    before = model[2].weight.detach().clone()
    for act in (
        lambda: Rescale(gain=1.0).factors(model, masks.dense(model)),
        lambda: initialise_(model, 1.0),
        lambda: phase_of(model),
    ):
        with pytest.warns(UserWarning, match="transposed convolutions.*2.weight"):
            act()
    assert torch.equal(model[2].weight, before)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"by": "row"}, "by must be one of 'neuron', 'layer', 'offset', 'data'"),
        ({"gain": "he"}, "gain must be 'eoc', 'dense' or a number greater than 0, got 'he'"),
        ({"gain": 0.0}, "gain must be .* got 0.0"),
        ({"gain": None}, "gain must be 'eoc', 'dense' or a number greater than 0, got None"),
    ],
)
def test_errors(fields, words):
    with pytest.raises(ValueError, match=words):
        Rescale(**fields)


def test_by_data_without_data():
    model = tiny()
    with pytest.raises(ValueError, match="rescaling by data needs batches"):
        Rescale("data")(model, model.state_dict(), Allocation(masks.dense(model)))
    with pytest.raises(ValueError, match="rescaling by data needs at least one batch"):
        Rescale("data").factors(model, masks.dense(model))


def test_excluded_layers_and_other_multipliers():
    model = tiny()
    everything, state = masks.dense(model), copy.deepcopy(model.state_dict())
    assert list(Rescale(gain=1.0, exclude=("0.*",)).factors(model, everything)) == ["2.weight", "4.weight"]
    with pytest.raises(ValueError, match=r"'1.\*' in exclude matches no layer: the layers are 0.weight, 2.w"):
        Rescale(gain=1.0, exclude=("1.*",)).factors(model, everything)
    with pytest.raises(TypeError, match="exclude must be a tuple of patterns"):
        Rescale(exclude="0.weight")
    plan = Allocation(everything, multipliers={"0.weight": torch.full((5, 4), 3.0).double()})
    made = Rescale(gain=1.0)(model, state, plan)
    assert torch.allclose(made[0].weight.square().sum(1), torch.ones(5).double())


# -- recipes ---------------------------------------------------------------------------------------------------


def data() -> Data:
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(64, 20, generator=g), torch.arange(64) % 4)
    return Data(name="mine", train=split, validation=split)


def first(recipe, model: nn.Module):
    return next(iter(run(recipe, model, data())))


SHORT = {"epochs": 1, "batch_size": 32, "lr": 1e-12, "control": False}


def test_sbp_scores_and_trains_critical_weights():
    model = zoo.mlp((20,), 4, hidden=(30, 30), activation=torch.tanh, seed=0)
    recipe = recipes.sbp(density=0.3, sigma_b=0.2, weight_decay=0.0, **SHORT)
    assert recipe.name == "sbp"
    (level,) = recipe.levels
    assert isinstance(level.restart, FromStart)
    result = first(recipe, model)
    assert level.restart.start.activation is None
    at = level.restart.start(copy.deepcopy(model))
    for name, mask in result.masks.items():
        assert torch.allclose(result.weights[name], at.get_parameter(name).detach() * mask, atol=1e-9)
    assert result.record.kept == round(0.3 * result.record.total)
    assert phase_of(at).phase == "edge"
    assert first(recipe, model).record.id == result.record.id


def test_sbp_with_own_weights_is_snip():
    model = zoo.mlp((20,), 4, hidden=(30, 30), seed=0)
    ours, snip = (
        first(make(density=0.3, **SHORT), model)
        for make in (lambda **k: recipes.sbp(activation="own", **k), recipes.snip)
    )
    assert all(torch.equal(ours.masks[n], snip.masks[n]) for n in snip.masks)
    assert all(torch.equal(ours.weights[n], snip.weights[n]) for n in snip.weights)


@pytest.mark.parametrize("by", ["data", "neuron", "layer", "offset"])
def test_sbp_sr_rescales(by):
    model = zoo.mlp((20,), 4, hidden=(30, 30), seed=0)
    recipe = recipes.sbp_sr(density=0.3, rescale=by, weight_decay=0.0, **SHORT)
    assert isinstance(recipe.levels[0].restart, Rescale)
    result, plain = first(recipe, model), first(recipes.sbp(density=0.3, weight_decay=0.0, **SHORT), model)
    for name, mask in plain.masks.items():
        assert torch.equal(result.masks[name], mask)
        ratio = (result.weights[name] / plain.weights[name])[mask]
        assert ratio.min() > 0
        assert by in ("neuron", "offset") or torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)
    assert any(not torch.allclose(result.weights[n], plain.weights[n]) for n in plain.weights)


def test_sbp_sr_leaves_residual_networks_as_they_are():
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(16, 1, 8, 8, generator=g), torch.arange(16) % 4)
    images = Data(name="images", train=split, validation=split)
    model = zoo.build("stable-resnet8", images, 0)
    fields = {**SHORT, "batch_size": 16, "density": 0.3}
    with pytest.warns(UserWarning, match="not rescaled: 'bn' normalises"):
        result = next(iter(run(recipes.sbp_sr(**fields), model, images)))
    plain = next(iter(run(recipes.sbp(**fields), model, images)))
    assert all(torch.equal(result.weights[n], plain.weights[n]) for n in plain.weights)


@pytest.mark.parametrize("make", [recipes.sbp, recipes.sbp_sr])
@pytest.mark.parametrize("activation", ["auto", "own"])
def test_the_ablations(make, activation):
    model = zoo.mlp((20,), 4, hidden=(30, 30), seed=0)
    fields = {**SHORT, "density": 0.3, "activation": activation, "weight_decay": 0.0}
    plain, shuffled = first(make(**fields), model), first(make(shuffle=True, **fields), model)
    for name, mask in plain.masks.items():
        assert mask.sum() == shuffled.masks[name].sum()
    assert any(not torch.equal(plain.masks[n], shuffled.masks[n]) for n in plain.masks)
    fresh = first(make(reinitialise=True, **fields), model)
    for name, mask in plain.masks.items():
        assert torch.equal(fresh.masks[name], mask)
        assert not torch.allclose(fresh.weights[name][mask], plain.weights[name][mask], rtol=0.01)


@pytest.mark.parametrize("make", [recipes.sbp, recipes.sbp_sr])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"activation": "foo"}, "activation must be 'auto', 'own' or one of relu, .*, got 'foo'"),
        (
            {"activation": "softplus"},
            "softplus has no edge of chaos at sigma_b = 0: no variance q up to 10000 is a fixed",
        ),
        ({"sigma_b": -1.0}, "sigma_b must be finite and at least 0, got -1.0"),
        ({"sigma_b": math.nan}, "sigma_b must be finite and at least 0, got nan"),
    ],
)
def test_recipes_refuse_early(make, fields, words):
    with pytest.raises(ValueError, match=words):
        make(**fields)


def test_fresh_weights_of_ones_own_are_rescaled_too():
    model = zoo.mlp((20,), 4, hidden=(30, 30), seed=0)
    fields = {**SHORT, "density": 0.3, "activation": "own", "reinitialise": True, "weight_decay": 0.0}
    result, plain = first(recipes.sbp_sr(**fields), model), first(recipes.sbp(**fields), model)
    for name, mask in plain.masks.items():
        sizes = (result.weights[name] ** 2).sum(1)
        assert torch.allclose(sizes[mask.any(1)], torch.tensor(2.0), rtol=1e-4)
        signs = result.weights[name].sign() == plain.weights[name].sign()
        assert bool(signs.all())


def test_relu_with_biases_takes_the_slope_that_has_chi_1():
    model = CriticalStart(F.relu, sigma_b=0.1)(zoo.mlp((300,), 10, hidden=(300,) * 3, seed=0))
    assert phase_of(model).layers[1].sigma_w == pytest.approx(math.sqrt(2), rel=0.02)
    with pytest.raises(NoEdgeOfChaos):
        CriticalStart(F.softplus)(model)


def test_rescaled_needs_scores_that_saw_the_network():
    scores = {"a": torch.rand(3, 3)}
    with pytest.raises(TypeError, match=r"Rescaled needs scores from ScoredAt, got \{'a'"):
        Rescaled(Shrink(0.5), Rescale("data")).plan(scores, {"a": torch.ones(3, 3, dtype=torch.bool)})


def test_scored_at_leaves_the_model_alone():
    model = zoo.mlp((20,), 4, hidden=(30,), seed=0)
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = ScoredAt(Magnitude(), CriticalStart(seed=3))(model, masks.dense(model), ())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.equal(scores["fc1.weight"], before["fc1.weight"].abs())
