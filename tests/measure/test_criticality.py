"""Mean-field theory against golden values, Monte Carlo and closed forms; networks against what theory says of them."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sparsight
from sparsight.measure.criticality import (
    NAMED,
    CriticalStart,
    NoEdgeOfChaos,
    activation_of,
    chi,
    collapse_density,
    correlation_map,
    critical_density,
    edge_of_chaos,
    fixed_point,
    initialise_,
    phase_of,
    second_moments,
    smallest_stable_sigma_b,
    theorem1_bound,
    variance_map,
    variance_slope,
)
from sparsight.measure.criticality import edge as edge_module
from sparsight.measure.criticality.meanfield import root
from sparsight.measure.criticality.quadrature import grid
from sparsight.model import masks
from sparsight.pruning import MBP, IllConditioned, conditioning
from sparsight.zoo import networks as zoo

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "robust_pai_golden.json").read_text())


def leaky(u: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(u, 0.2)


ACTIVATIONS = {**NAMED, "leaky_relu_0.2": leaky}


def close(value: float, expected: float, tolerance: float = 1e-10) -> bool:
    return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)


# -- integrals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN["moments"])
def test_moments(name):
    found = grid(ACTIVATIONS[name])
    for row in GOLDEN["moments"][name]:
        phi_sq, dphi_sq = second_moments(found, row["q"])
        assert close(phi_sq, row["E_phi2"], 1e-12)
        assert close(dphi_sq, row["E_dphi2"], 1e-12)


@pytest.mark.parametrize("q", [1e-6, 0.3, 2.0, 500.0])
def test_relu_is_exact(q):
    phi_sq, dphi_sq = second_moments(torch.relu, q)
    assert close(phi_sq, q / 2, 1e-14)
    assert close(dphi_sq, 0.5, 1e-14)


@pytest.mark.parametrize(("low", "high"), [(-0.3, 0.71), (-1 / 3, 17 / 7), (0.1, 0.100001)])
def test_kinks_anywhere_are_found(low, high):
    def clipped(u: torch.Tensor) -> torch.Tensor:
        return F.hardtanh(u, low, high)

    q = 1.7

    def below(u: float) -> float:
        return math.erfc(-u / math.sqrt(2 * q)) / 2

    assert close(second_moments(clipped, q)[1], below(high) - below(low), 1e-13)
    assert torch.allclose(grid(clipped).kinks, torch.tensor([low, high], dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_bend_without_a_kink_is_found_too():
    assert grid(lambda u: F.elu(u - 0.3)).kinks.tolist() == pytest.approx([0.3], abs=1e-6)
    assert grid(torch.tanh).kinks.tolist() == []
    assert 0.25 in grid(torch.tanh, kinks=(0.25,)).kinks


@pytest.mark.parametrize(
    "activation", [torch.tanh, F.silu, F.elu, nn.SELU(), nn.LeakyReLU(0.3), nn.Hardtanh(-0.4, 0.9)]
)
def test_monte_carlo(activation):
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = (math.sqrt(0.8) * z).requires_grad_()
    phi = activation(u)
    (slope,) = torch.autograd.grad(phi.sum(), u)
    phi_sq, dphi_sq = second_moments(activation, 0.8)
    for samples, expected in ((phi.detach() ** 2, phi_sq), (slope**2, dphi_sq)):
        assert abs(float(samples.mean()) - expected) < 5 * float(samples.std()) / math.sqrt(len(z))
    rise = (variance_map(activation, 0.81, 1.3) - variance_map(activation, 0.79, 1.3)) / 0.02
    assert close(variance_slope(activation, 0.8, 1.3), rise, 1e-3)


def test_modules_and_in_place_ones_are_used_without_a_trace():
    module = nn.PReLU(init=0.2)
    before = copy.deepcopy(module.state_dict())
    assert close(second_moments(module, 1.0)[1], (1 + module.weight.item() ** 2) / 2, 1e-12)
    assert module.weight.dtype is torch.float32
    assert torch.equal(module.weight, before["weight"])
    assert close(second_moments(nn.ReLU(inplace=True), 1.0)[0], 0.5, 1e-14)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (F.hardshrink, "jumps at -0.5"),
        (lambda u: u * (u > 0.3), "jumps at 0.3"),
        (lambda u: torch.softmax(u, 0), "depend on other elements"),
        (lambda u: u.sum(), "must be elementwise"),
        (torch.sqrt, "not finite near 0"),
    ],
)
def test_what_cannot_be_integrated_is_refused(activation, words):
    with pytest.raises(ValueError, match=words):
        grid(activation)


# -- the edge of chaos -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN["eoc"])
def test_edge_of_chaos(name):
    found = grid(ACTIVATIONS[name])
    for row in GOLDEN["eoc"][name][:: 3 if name == "sin" else 1]:
        edge = edge_of_chaos(found, sigma_b=row["sigma_b"])
        assert close(edge.sigma_w, row["sigma_w"])
        assert close(edge.q, row["q"])
        assert close(edge.chi, 1.0, 1e-12)
        assert close(edge.slope, row["dvar_dq"])
        assert edge.stable is row["variance_stable"]
        assert len(edge.solutions) == row["n_solutions"]
        assert edge.solutions[0].sigma_w == edge.sigma_w


def test_closed_forms():
    edge = edge_of_chaos(torch.relu)
    assert close(edge.sigma_w**2, 2.0, 1e-14)
    assert edge.stable
    for slope in (0.01, 0.2):
        expected = GOLDEN["eoc_closed_forms"]["leaky_relu(a)"][f"a={slope:g}"]
        assert close(edge_of_chaos(nn.LeakyReLU(slope)).sigma_w, expected, 1e-12)
    assert close(edge_of_chaos(torch.abs).sigma_w, 1.0, 1e-13)
    assert close(edge_of_chaos(NAMED["linear"]).sigma_w, 1.0, 1e-13)


@pytest.mark.parametrize("name", GOLDEN["eoc_closed_forms"]["sigma_b->0 limits (q->0)"])
def test_the_limit_without_biases(name):
    edge = edge_of_chaos(ACTIVATIONS[name]).solutions[0]
    assert close(edge.sigma_w, GOLDEN["eoc_closed_forms"]["sigma_b->0 limits (q->0)"][name], 1e-10)
    assert edge.q == 0
    assert edge.stable is (name not in ("gelu", "silu", "mish"))


@pytest.mark.parametrize("name", ["relu", "leaky-relu", "linear", "softplus"])
def test_no_edge_of_chaos(name):
    with pytest.raises(NoEdgeOfChaos, match="no edge of chaos at sigma_b = 0.1"):
        edge_of_chaos(NAMED[name], sigma_b=0.1)
    assert issubclass(NoEdgeOfChaos, ValueError)


def test_of_several_roots_the_smallest_stable_one(monkeypatch):
    """q - E[phi^2] / E[phi'^2] grows with q for all activations that we have tried: the choice is tested alone."""
    found = ((1.5, 0.1, False), (1.2, 0.2, True))
    points = [edge_module.EdgeOfChaos(sigma_w, 0.1, q, 1.0, 0.5, stable) for sigma_w, q, stable in found]
    points.append(edge_module.EdgeOfChaos(1.1, 0.1, 0.3, 1.0, 0.5, True))
    monkeypatch.setattr(edge_module, "_roots", lambda found, sigma_b: points)
    edge = edge_of_chaos(torch.tanh, sigma_b=0.1)
    assert (edge.sigma_w, edge.q, edge.stable) == (1.2, 0.2, True)
    assert edge.solutions == tuple(points)
    monkeypatch.setattr(edge_module, "_roots", lambda found, sigma_b: points[:1])
    assert not edge_of_chaos(torch.tanh, sigma_b=0.1).stable


def test_edge_refuses_a_negative_deviation():
    with pytest.raises(ValueError, match="sigma_b must be finite and at least 0, got -1"):
        edge_of_chaos(torch.tanh, sigma_b=-1)


@pytest.mark.parametrize("name", ["silu", "gelu", "mish"])
def test_smallest_stable_sigma_b(name):
    threshold = smallest_stable_sigma_b(NAMED[name])
    assert close(threshold, GOLDEN["variance_stability_threshold_sigma_b"][name], 1e-9)
    assert not edge_of_chaos(NAMED[name], threshold - 1e-4).stable
    assert edge_of_chaos(NAMED[name], threshold + 1e-4).stable


def test_where_every_sigma_b_is_stable():
    for name in ("tanh", "relu", "leaky-relu", "linear", "sigmoid"):
        assert smallest_stable_sigma_b(NAMED[name]) == 0
    assert edge_of_chaos(torch.sigmoid).stable
    assert edge_of_chaos(F.softshrink, smallest_stable_sigma_b(F.softshrink) + 1e-3).stable


def test_an_unstable_edge_is_warned_of():
    words = r"of silu at sigma_b = 0 \(sigma_w = 2\) is unstable: chi is 1 at the variance q = 0.* sigma_b >= 0.7451"
    with pytest.warns(UserWarning, match=words):
        CriticalStart(F.silu)(nn.Linear(3, 3))
    CriticalStart(F.silu, 0.7451)(nn.Linear(3, 3))


@pytest.mark.parametrize(
    "row", GOLDEN["chi_points"] + GOLDEN["chi_of_published_constants"], ids=lambda r: str(r["act"])
)
def test_chi_and_fixed_points(row):
    sigma_b = row.get("sigma_b", 0)
    found = grid(ACTIVATIONS[row["act"]])
    assert close(chi(found, row["sigma_w"], sigma_b), row["chi"])
    if "q" in row:
        assert close(fixed_point(found, row["sigma_w"], sigma_b), row["q"])


def test_fixed_points_at_the_ends():
    assert fixed_point(torch.relu, 2.0) == math.inf
    assert fixed_point(torch.relu, 1.0) == 0
    assert fixed_point(torch.relu, math.sqrt(2), start=3.0) == 3.0
    assert close(chi(torch.relu, 2.0), 2.0, 1e-12)


@pytest.mark.parametrize("row", GOLDEN["variance_recursion"], ids=lambda r: str(r["act"]))
def test_variance_recursion(row):
    found, q = grid(ACTIVATIONS[row["act"]]), row["q"][0]
    for expected in row["q"]:
        assert close(q, expected, 1e-12)
        q = variance_map(found, q, row["sigma_w"], row["sigma_b"])


# -- correlations ----------------------------------------------------------------------------------------------


def test_correlation_of_relu():
    found = grid(torch.relu)
    for c, expected in GOLDEN["correlation"]["relu"]:
        assert close(correlation_map(found, c, math.sqrt(2), q=1.0), expected, 1e-12)
    for c in (-1.0, -0.7, 0.999999):
        exact = (c * math.asin(c) + math.sqrt(1 - c * c)) / math.pi + c / 2
        assert close(correlation_map(found, c, math.sqrt(2), q=1.0), exact, 1e-12)


def test_correlation_trajectory_of_relu():
    found, c = grid(torch.relu), 0.1
    expected = dict(map(tuple, GOLDEN["correlation"]["relu_trajectory_from_0.1"]))
    for layer in range(1, 11):
        c = correlation_map(found, c, math.sqrt(2), q=1.0)
        assert close(c, expected.get(layer, c), 1e-11)


@pytest.mark.parametrize(("key", "ordered"), [("tanh_eoc_sigma_b_0.2", False), ("tanh_ordered_0.2_1.0", True)])
def test_correlation_of_tanh(key, ordered):
    sigma_w = 1.0 if ordered else edge_of_chaos(torch.tanh, sigma_b=0.2).sigma_w
    for c, expected in GOLDEN["correlation"][key]:
        assert close(correlation_map(torch.tanh, c, sigma_w, 0.2), expected, 1e-12)


def test_chi_is_the_slope_of_the_correlation_map_at_1():
    for sigma_w in (0.9, 1.304, 2.0):
        slope = (1 - correlation_map(torch.tanh, 1 - 1e-5, sigma_w, 0.2)) / 1e-5
        assert close(slope, chi(torch.tanh, sigma_w, 0.2), 1e-4)


def test_correlation_of_a_kink_by_monte_carlo():
    g = torch.Generator().manual_seed(1)
    z = torch.randn(2, 400_000, generator=g, dtype=torch.float64)
    c, q = -0.6, 0.7
    u, v = math.sqrt(q) * z[0], math.sqrt(q) * (c * z[0] + math.sqrt(1 - c * c) * z[1])

    def bent(u: torch.Tensor) -> torch.Tensor:
        return F.hardtanh(u, -0.3, 0.71)

    product = bent(u) * bent(v)
    expected = correlation_map(bent, c, 1.0, q=q) * second_moments(bent, q)[0]
    assert abs(float(product.mean()) - expected) < 5 * float(product.std()) / math.sqrt(len(u))


@pytest.mark.parametrize(("c", "words"), [(1.1, r"in \[-1, 1\], got 1.1"), (0.5, r"variance must be in \(0, inf\)")])
def test_correlation_errors(c, words):
    with pytest.raises(ValueError, match=words):
        correlation_map(torch.relu, c, 1.0)


# -- networks --------------------------------------------------------------------------------------------------


def deep(activation=torch.tanh, depth: int = 20, width: int = 200, inputs: int = 200) -> nn.Module:
    return zoo.mlp((inputs,), 10, hidden=(width,) * depth, activation=activation, seed=0)


def test_initialise_draws_the_variances_it_says():
    model = nn.Sequential(nn.Conv2d(6, 90, 3, groups=3), nn.BatchNorm2d(90), nn.Flatten(), nn.Linear(360, 300))
    model[1].weight.data.fill_(7)
    before = torch.get_rng_state()
    assert initialise_(model, 1.3, 0.4, seed=5) is model
    assert torch.equal(before, torch.get_rng_state())
    for layer, fan_in in ((model[0], 18), (model[3], 360)):
        assert float(layer.weight.detach().var()) * fan_in == pytest.approx(1.69, rel=0.1)
        assert float(layer.bias.detach().var()) == pytest.approx(0.16, rel=0.4)
    assert torch.equal(model[1].weight, torch.ones(90))
    again = initialise_(copy.deepcopy(model), 1.3, 0.4, generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(ValueError, match="sigma_w must be finite and at least 0, got -1"):
        initialise_(model, -1)
    with pytest.raises(ValueError, match="no linear or convolution layer"):
        initialise_(nn.ReLU(), 1.0)


@pytest.mark.parametrize(
    ("sigma_w", "sigma_b", "phase"), [(1.0, 0.2, "ordered"), (1.304146, 0.2, "edge"), (2.0, 0.2, "chaotic")]
)
def test_phase_of_a_network(sigma_w, sigma_b, phase):
    model = initialise_(deep(depth=6), sigma_w, sigma_b, seed=1)
    found = phase_of(model, torch.tanh)
    assert found.phase == phase
    assert found.chi == pytest.approx(chi(torch.tanh, sigma_w, sigma_b), abs=0.02)
    assert found.layers[2].sigma_w == pytest.approx(sigma_w, rel=0.02)
    assert found.layers[2].fan_in == 200
    assert not found.normalised
    assert found == phase_of(model)  # tanh is found in the forward


def test_pytorch_default_is_ordered_and_pruning_orders_more():
    model = nn.Sequential(*[part for _ in range(5) for part in (nn.Linear(300, 300), nn.ReLU())])
    for layer in model[::2]:
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=torch.Generator().manual_seed(0))
    found = phase_of(model)
    assert found.chi == pytest.approx(1 / 6, rel=0.02)
    assert found.depth == pytest.approx(6 / math.log(6), rel=0.02)
    half = {
        name: torch.rand(m.shape, generator=torch.Generator().manual_seed(2)) < 0.5
        for name, m in masks.dense(model).items()
    }
    assert phase_of(model, masks=half).chi == pytest.approx(1 / 12, rel=0.03)


def test_gradients_go_as_chi_says():
    """Squared gradients by pre-activations (biases) grow by chi from one layer to the one before it."""
    sigma_w, sigma_b = 1.1, 0.2
    expected = chi(torch.tanh, sigma_w, sigma_b)
    q = fixed_point(torch.tanh, sigma_w, sigma_b)
    model = initialise_(deep(depth=16, width=400), sigma_w, sigma_b, seed=3).double()
    scale = math.sqrt((q - sigma_b**2) / sigma_w**2)
    logs = []
    for x in scale * torch.randn(8, 1, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        model.zero_grad()
        model(x).sum().backward()  # of one input alone: a sum over several depends on their correlations
        sizes = [getattr(model, f"fc{i}").bias.grad.square().sum().item() for i in (2, 15)]
        logs.append(math.log(sizes[0] / sizes[1]) / 13)
    assert sum(logs) / 8 == pytest.approx(math.log(expected), abs=0.03)


@pytest.mark.parametrize(
    ("model", "expected"), [(zoo.mlp(seed=0), F.relu), (zoo.vanilla_cnn(activation=torch.tanh, seed=0), torch.tanh)]
)
def test_the_activation_of_a_network(model, expected):
    assert activation_of(model) is expected


def test_the_activation_has_to_be_told_where_there_are_several_or_none():
    with pytest.raises(ValueError, match=r"found relu, tanh; name it"):
        activation_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh()))
    with pytest.raises(ValueError, match="found none"):
        activation_of(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (lambda x: x * torch.sigmoid(x), F.silu),
        (lambda x: 1.7159 * torch.tanh(x * 2 / 3), lambda x: 1.7159 * torch.tanh(2 / 3 * x)),
        (lambda x: x.clamp(min=0), F.relu),
        (lambda x: F.softplus(x) - math.log(2), lambda x: F.softplus(x) - math.log(2)),
        (lambda x: torch.tanh(x).mul_(torch.tensor(0.5)), lambda x: torch.tanh(x) / 2),
        (nn.Softshrink(), F.softshrink),
        (lambda x: x.relu_(), F.relu),
    ],
)
def test_an_activation_is_the_whole_expression(activation, expected):
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    found = activation_of(zoo.mlp((4,), 3, hidden=(5, 5), activation=activation, seed=0))
    assert torch.allclose(found(x), expected(x), rtol=1e-12)


def test_a_piece_of_a_forward_is_no_activation():
    with pytest.raises(ValueError, match=r"found clamp\(x, min=0\), sigmoid; name it"):
        activation_of(nn.Sequential(zoo.mlp((4,), 3, activation=lambda x: x.clamp(min=0), seed=0), nn.Sigmoid()))
    with pytest.raises(ValueError, match="found sigmoid after the last layer alone"):
        activation_of(nn.Sequential(nn.Linear(2, 2), nn.GLU(), nn.Linear(1, 2), nn.Sigmoid()))

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.a(x / 2) * torch.sigmoid(self.b(x / 2)))

    with pytest.raises(ValueError, match="found sigmoid, which multiplies another signal"):
        activation_of(Gated())


def test_a_normalised_network_says_so():
    assert phase_of(zoo.resnet8(seed=0)).normalised


def test_a_residual_network_says_so():
    assert phase_of(zoo.resnet8((1, 8, 8), norm=False, seed=0)).residual
    assert not phase_of(zoo.mlp((4,), 3, seed=0)).residual


def test_what_has_no_phase_or_cannot_be_drawn_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].bias.data[0] = math.nan
    with pytest.raises(ValueError, match="the bias of '2.weight' has values that are not finite"):
        phase_of(model)
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(ValueError, match="cannot draw '2.weight', which is computed from other parameters"):
        initialise_(model, 1.0)


# -- collapse --------------------------------------------------------------------------------------------------


def test_collapse_predictor():
    golden = GOLDEN["collapse_predictor"]
    names = [str(i) for i in range(golden["L"])]
    counts = dict.fromkeys(names, golden["N"] ** 2)
    for row in golden["rows"]:
        scales = {name: row["chi"] ** ((golden["L"] - i) / 2) for i, name in enumerate(names)}
        for tail, key in (("product", "product"), ("normal", "half_normal")):
            density, first = critical_density(scales, counts, tail=tail)
            assert abs(1 - density - row[key]) < golden["tolerance"]
            assert first == (names[0] if row["chi"] < 1 else names[-1])


@pytest.mark.parametrize("row", GOLDEN["mbp_collapse_predictor"]["rows"], ids=str)
def test_magnitude_collapse_predictor(row):
    layers = row["layers"][:-1] * 100 if row["layers"][-1] == "x100" else row["layers"]
    counts = {str(i): layer[0] for i, layer in enumerate(layers)}
    scales = {str(i): layer[1] ** -0.5 for i, layer in enumerate(layers)}
    density, first = critical_density(scales, counts, tail="normal")
    assert abs(1 - density - row["s_cr"]) < 1e-9
    assert layers[int(first)][1] == row["first_dead_fan_in"]


def test_theorem_1():
    for row in GOLDEN["theorem1_bound"]["rows"]:
        assert close(theorem1_bound(math.exp(-8 * row["kappa"]), row["L"], row["N"]), row["bound"], 1e-12)
        assert close(theorem1_bound(math.exp(8 * row["kappa"]), row["L"], row["N"]), row["bound"], 1e-12)
    assert theorem1_bound(1.0, 100, 100) == 1
    assert theorem1_bound(1 - 1e-9, 100, 100) == 1
    with pytest.raises(ValueError, match="must be > 0, .* got 0"):
        theorem1_bound(0, 100, 100)
    with pytest.raises(ValueError, match="chi must be > 0, depth and width at least 1, all finite, got inf, 100, 100"):
        theorem1_bound(math.inf, 100, 100)


def test_collapse_read_off_scores():
    scores = {"a": torch.tensor([1.0, 9.0, 8.0]), "b": torch.tensor([3.0, 2.0]), "c": torch.tensor([5.0])}
    assert collapse_density(scores) == (3 / 6, "b")
    kept = sparsight.Global(count=3, min_keep=0)(
        scores, {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    )
    assert not kept["b"].any()
    with pytest.raises(ValueError, match="must hold at least one tensor"):
        collapse_density({})
    with pytest.raises(ValueError, match="the scores of 'b' contain NaN"):
        collapse_density({**scores, "b": torch.tensor([1.0, math.nan])})


def test_critical_density_refuses():
    with pytest.raises(ValueError, match="at least 1 weight each"):
        critical_density({"a": 1.0}, {"a": 0})
    with pytest.raises(ValueError, match="scale of 'a' must be .* got nan"):
        critical_density({"a": math.nan}, {"a": 3})
    with pytest.raises(ValueError, match="tail must be one of 'product', 'normal'"):
        critical_density({"a": 1.0}, {"a": 3}, tail="x")


def test_a_layer_of_one_weight_does_not_die_at_once():
    density, first = critical_density({"scale": 1.0, "large": 1.0}, {"scale": 1, "large": 10_000})
    assert first == "scale"
    assert 0.4 < density < 0.6


def batch(inputs: int, n: int = 100) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(7)
    return [(torch.randn(n, inputs, generator=g), torch.randint(0, 10, (n,), generator=g))]


def test_an_ill_conditioned_network_is_warned_of_with_layer_and_density():
    model = initialise_(deep(depth=30, width=60, inputs=60), 1.0, 0.3, seed=0)
    state = copy.deepcopy(model.state_dict())
    with pytest.warns(IllConditioned, match=r"'fc\d+.weight' is expected to lose its last weight at density 0\.\d+"):
        found = conditioning(model, batch(60))
    assert not found.well_conditioned
    assert found.weakest in ("fc1.weight", "fc2.weight", "fc3.weight", "fc4.weight")
    assert found.chi == pytest.approx(0.70, abs=0.06)
    assert 0.2 < found.critical_density < 0.7
    assert abs(found.critical_density - found.measured_density) < 0.25
    scores = sparsight.SNIP()(model, masks.dense(model), batch(60))
    empty = sparsight.Global(found.measured_density, min_keep=0)(scores, masks.dense(model))
    assert not empty[found.first_empty].any()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_network_at_the_edge_is_well_conditioned():
    model = initialise_(deep(depth=12, width=200), edge_of_chaos(torch.tanh, sigma_b=0.2).sigma_w, 0.2, seed=0)
    found = conditioning(model, batch(200))
    assert found.well_conditioned
    assert found.critical_density < 0.02


# -- fan-in normalised magnitude -------------------------------------------------------------------------------


def test_mbp_takes_the_scale_of_initialisation_out():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 400))
    initialise_(model, 1.0, seed=0)
    all_of_it = masks.dense(model)
    scores = MBP()(model, all_of_it)
    assert torch.equal(scores["0.weight"], model[0].weight.detach().abs() * math.sqrt(27))
    kept = sparsight.Global(0.1)(scores, all_of_it)
    assert [float(mask.double().mean()) for mask in kept.values()] == pytest.approx([0.1, 0.1], abs=0.04)
    plain = sparsight.Global(0.1)(sparsight.Magnitude()(model, all_of_it), all_of_it)
    assert float(plain["0.weight"].double().mean()) > 0.2


@pytest.mark.parametrize(
    ("f", "a", "b", "expected"),
    [
        (lambda x: x * x - 2, 0.0, 2.0, math.sqrt(2)),
        (lambda x: math.log(x) + 20, 1e-12, 1.0, math.exp(-20)),
        (lambda x: math.tanh(x) - 0.5, -3.0, 40.0, math.atanh(0.5)),
        (lambda x: x - 3, 3.0, 7.0, 3.0),
        (lambda x: 1 + x * x, -1.0, 3.0, -1.0),  # signs alike, as rounding may make them: the end nearer to 0
    ],
)
def test_roots_to_the_last_bits(f, a, b, expected):
    assert root(f, a, b) == pytest.approx(expected, rel=4e-15)
