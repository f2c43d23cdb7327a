"""Information and gradient flow against golden values, slow references and what must not change them."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import flow as reference
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sparsight.measure import flow as s
from sparsight.model.hold import apply_
from sparsight.model.loss import cross_entropy
from sparsight.model.masks import all_kept, dense
from sparsight.numerics.stratified import stratified
from sparsight.types import Split
from sparsight.zoo import networks as zoo
from sparsight.zoo.networks.resnet import PreActivationResNet

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "infcop_golden.json").read_text())
G1, G3, G4 = GOLDEN["G1_relu_mlp_4_5_3_3"], GOLDEN["G3_tanh_mlp_3_4_2_uneven_batches"], GOLDEN["G4_dead_units"]
NAMES = {"signed": "signed_mean", "abs": "abs_mean", "rms": "rms"}
SITES = {"pre": "pre", "post_act": "post"}
STATISTICS = ("norm", "mean_abs", "mean_abs_live")
EXACT = 1e-12


# -- networks and data -------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Linear layers fc1, fc2, ... in float64 with an activation, as a function, between them."""

    def __init__(self, weights, biases, activation=F.relu):
        super().__init__()
        self.activation, self.depth = activation, len(weights)
        for i, (w, b) in enumerate(zip(weights, biases, strict=True), start=1):
            layer = nn.Linear(len(w[0]), len(w), dtype=torch.float64)
            layer.load_state_dict({"weight": tensor(w), "bias": tensor(b)})
            self.add_module(f"fc{i}", layer)

    def forward(self, x):
        for i in range(1, self.depth + 1):
            x = getattr(self, f"fc{i}")(x)
            x = self.activation(x) if i < self.depth else x
        return x


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


def batch(case):
    return tensor(case["inputs"]), torch.tensor(case["labels"])


def cut(whole, *sizes):
    x, y = whole
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def g1(pruned=False):
    model = Chain(G1["weights"], G1["biases"])
    if pruned:
        apply_(model, g1_masks())
    return model


def g1_masks():
    return {f"fc{i}.weight": torch.tensor(m, dtype=torch.bool) for i, m in enumerate(G1["masks"], start=1)}


def g3():
    return Chain(G3["weights"], G3["biases"], torch.tanh)


def g4():
    weights, biases = copy.deepcopy(G1["weights"]), copy.deepcopy(G1["biases"])
    weights[0][1] = [0.0] * 4
    biases[0][1], biases[0][2] = 0.25, -10.0
    return Chain(weights, biases)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Attention(nn.Module):
    """A small transformer on tokens: two encoder layers, the mean token classified."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, activation="gelu")
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.blocks(self.embed(tokens)).mean(1))


@cache
def networks():
    """Each kind of network, with the batches it takes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "mlp": (zoo.mlp((1, 4, 4), 3, hidden=(7, 5), seed=0), (1, 4, 4)),
            "cnn": (zoo.cnn((1, 8, 8), 3, width=0.05, seed=0), (1, 8, 8)),
            "resnet": (PreActivationResNet(1, (4, 8, 8, 12), (2, 2, 2, 2), 3), (1, 8, 8)),
            "transformer": (Attention(), None),
        }
    found = {}
    for name, (model, shape) in made.items():
        g = torch.Generator().manual_seed(1)
        x = torch.randint(0, 11, (12, 5), generator=g) if shape is None else torch.randn(12, *shape, generator=g)
        found[name] = model, cut((x, torch.randint(0, 3, (12,), generator=g)), 5, 4, 3)
    return found


KINDS = ("mlp", "cnn", "resnet", "transformer")


# -- golden values -----------------------------------------------------------------------------------------------


GOLDEN_IF = [
    ("dense", g1, G1, G1["dense"]),
    ("pruned", lambda: g1(pruned=True), G1, G1["pruned"]),
    ("tanh", g3, G3, G3),
    ("dead", g4, G1, G4),
]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("model", "data", "expected"), [c[1:] for c in GOLDEN_IF], ids=[c[0] for c in GOLDEN_IF])
def test_information_flow_is_golden(model, data, expected, site):
    expected, whole = expected[SITES[site]], batch(data)
    batches = cut(whole, 4, 4, len(whole[1]) - 8)
    for reduction, name in NAMES.items():
        flow = s.information_flow(model(), batches, reduction=reduction, site=site)
        torch.testing.assert_close(flow.values, tensor(expected[name]), rtol=0, atol=EXACT)
    flow = s.information_flow(model(), batches, reduction="matrix", site=site)
    assert flow.pairs == tuple((f"fc{i}", f"fc{i + 1}") for i in range(1, len(expected["rho"]) + 1))
    torch.testing.assert_close(flow.values, tensor(expected["rms"]), rtol=0, atol=EXACT)
    for got, rho in zip(flow.matrices, expected["rho"], strict=True):
        torch.testing.assert_close(got, tensor(rho), rtol=0, atol=EXACT)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("model", "data", "expected"), [c[1:] for c in GOLDEN_IF[:3]], ids=["dense", "pruned", "tanh"])
def test_flow_within_each_class_is_golden(model, data, expected, site):
    """sum over classes of (share of the class) x mean |rho| within it, put together from measurements of each."""
    x, y = batch(data)
    total = torch.zeros((), dtype=torch.float64)
    for label in y.unique():
        mine = y == label
        flow = s.information_flow(model(), [(x[mine], y[mine])], reduction="abs", site=site)
        total = total + flow.values * float(mine.double().mean())
    expected = expected[SITES[site]]["class_conditional_abs_mean"]
    torch.testing.assert_close(total, tensor(expected), rtol=0, atol=EXACT)


@pytest.mark.parametrize("site", SITES)
def test_dead_units_are_counted_and_say_nothing(site):
    expected = G4[SITES[site]]
    flow = s.information_flow(g4(), [batch(G1)], reduction="abs", site=site)
    live = [sum(layer) for layer in expected["live_units"]]
    assert flow.units == {"fc1": 5, "fc2": 3, "fc3": 3}
    assert [flow.units[name] - flow.dead[name] for name in flow.units] == live
    shares = [
        flow.units[a] * flow.units[b] / ((flow.units[a] - flow.dead[a]) * (flow.units[b] - flow.dead[b]))
        for a, b in flow.pairs
    ]
    torch.testing.assert_close(flow.values * tensor(shares), tensor(expected["abs_mean_live"]), rtol=0, atol=EXACT)


def gradient_cases():
    ones = {name: torch.ones_like(mask) for name, mask in g1_masks().items()}
    return {
        "dense": (g1(), ones, G1, G1["dense"]["gf"]),
        "pruned, unmasked": (g1(pruned=True), ones, G1, G1["pruned"]["gf_unmasked"]),
        "pruned, masked": (g1(pruned=True), g1_masks(), G1, G1["pruned"]["gf_masked"]),
        "masks act on dense weights": (g1(), g1_masks(), G1, G1["pruned"]["gf_masked"]),
        "tanh": (g3(), dense(g3()), G3, G3["gf"]),
    }


@pytest.mark.parametrize("case", gradient_cases())
def test_gradient_flow_is_golden(case):
    model, masks, data, expected = gradient_cases()[case]
    whole, size = batch(data), expected["batch_size"]
    batches = list(zip(whole[0].split(size), whole[1].split(size), strict=True))
    assert len(batches) == expected["n_batches"]
    for statistic in STATISTICS:
        flow = s.gradient_flow(model, masks, batches, statistic=statistic)
        assert flow.names == tuple(masks)
        torch.testing.assert_close(flow.values, tensor(expected["full_gradient"][statistic]), rtol=0, atol=EXACT)
        assert flow.loss == pytest.approx(expected["loss_full"], abs=EXACT)
        if statistic == "mean_abs_live":
            continue
        each = torch.stack([s.gradient_flow(model, masks, [one], statistic=statistic).values for one in batches])
        sizes = tensor([float(len(y)) for _, y in batches])
        plain, weighted = each.mean(0), (sizes[:, None] * each).sum(0) / sizes.sum()
        stale = each[-1] * len(batches) / (len(batches) - 1)
        for got, name in [
            (plain, "batch_mean_unweighted"),
            (weighted, "batch_mean_weighted_by_size"),
            (stale, "reference_bug_compatible"),
        ]:
            torch.testing.assert_close(got, tensor(expected[name][statistic]), rtol=0, atol=EXACT)
    total = s.gradient_flow(model, masks, batches, statistic="total")
    assert (total.names, total.values.shape) == (("total",), (1,))
    assert float(total.values) == pytest.approx(expected["full_gradient"]["sq_total"], abs=EXACT)


@pytest.mark.parametrize("site", SITES)
def test_distances_of_information_flow_are_golden(site):
    expected = G1["distance_pruned_vs_dense"][SITES[site]]
    for reduction, name in NAMES.items():
        now, then = (
            s.information_flow(model, [batch(G1)], reduction=reduction, site=site) for model in (g1(pruned=True), g1())
        )
        for norm, key in (("l2", "l2"), ("linf", "linf"), ("relative", "rel_l2")):
            assert s.flow_distance(now, then, norm=norm) == pytest.approx(expected[name][key], rel=1e-10)
            assert s.flow_distance(now.values, then.values, norm) == s.flow_distance(now, then, norm)
    now, then = (
        s.information_flow(model, [batch(G1)], reduction="matrix", site=site) for model in (g1(pruned=True), g1())
    )
    per_pair = expected["rho_matrix"]["fro_per_pair"]
    assert s.flow_distance(now, then) == pytest.approx(expected["rho_matrix"]["mean_rel_fro"], rel=1e-12)
    assert s.flow_distance(now, then, "l2") == pytest.approx(math.hypot(*per_pair), rel=1e-12)
    for i, (a, b) in enumerate(zip(now.matrices, then.matrices, strict=True)):
        assert s.flow_distance(a.flatten(), b.flatten(), "l2") == pytest.approx(per_pair[i], rel=1e-12)
        relative = expected["rho_matrix"]["rel_fro_per_pair"][i]
        assert s.flow_distance(a.flatten(), b.flatten()) == pytest.approx(relative, rel=1e-12)


def test_distances_of_gradient_flow_are_golden():
    expected, batches = G1["distance_pruned_vs_dense"]["gf"], cut(batch(G1), 4, 4, 4)
    ones = dense(g1())
    for statistic in ("mean_abs", "norm"):
        full = [
            s.gradient_flow(g1(pruned=True), g1_masks(), batches, statistic=statistic),
            s.gradient_flow(g1(), ones, batches, statistic=statistic),
        ]
        each = [
            [s.gradient_flow(model, masks, [one], statistic=statistic).values for one in batches]
            for model, masks in ((g1(pruned=True), g1_masks()), (g1(), ones))
        ]
        means = [torch.stack(values).mean(0) for values in each]
        stale = [values[-1] * 1.5 for values in each]
        for (now, then), name in [
            (full, "full_gradient"),
            (means, "batch_mean_unweighted"),
            (stale, "reference_bug_compatible"),
        ]:
            assert s.flow_distance(now, then, "l2") == pytest.approx(expected[f"{name}.{statistic}"]["l2"], rel=1e-10)
            assert s.flow_distance(now, then) == pytest.approx(expected[f"{name}.{statistic}"]["rel_l2"], rel=1e-10)
    norms = s.gradient_flow(g1(pruned=True), g1_masks(), [batches[-1]]).values * 1.5
    means = s.gradient_flow(g1(), ones, [batches[-1]], statistic="mean_abs").values * 1.5
    literal = expected["reference_literal_norm_now_minus_meanabs_reference"]["l2"]
    assert s.flow_distance(norms, means, "l2") == pytest.approx(literal, rel=1e-10)
    own = s.gradient_flow(g1(), ones, [batches[-1]]).values * 1.5
    assert s.flow_distance(own, means, "l2") == pytest.approx(2.497371, abs=1e-6)  # from itself


# -- slow references ---------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    widths=st.lists(st.integers(1, 5), min_size=3, max_size=4).filter(lambda widths: widths[-1] > 1),
    n=st.integers(2, 9),
    act=st.sampled_from(["relu", "tanh"]),
    seed=st.integers(0, 2**31),
)
def test_random_networks_agree_with_the_reference(widths, n, act, seed):
    shapes = list(zip(widths[1:], widths, strict=False))
    weights = [normal(*shape, seed=seed + i).tolist() for i, shape in enumerate(shapes)]
    biases = [normal(out, seed=seed + 10 + i).tolist() for i, (out, _) in enumerate(shapes)]
    x = normal(n, widths[0], seed=seed + 20)
    y = torch.randint(0, widths[-1], (n,), generator=torch.Generator().manual_seed(seed))
    masks = [(normal(*shape, seed=seed + 30 + i) > -0.7).tolist() for i, shape in enumerate(shapes)]
    weights = [
        [[v * k for v, k in zip(*rows, strict=True)] for rows in zip(w, m, strict=True)]
        for w, m in zip(weights, masks, strict=True)
    ]
    model = Chain(weights, biases, F.relu if act == "relu" else torch.tanh)
    batches = cut((x, y), n // 2, n - n // 2)
    runs = [reference.forward(weights, biases, row, act) for row in x.tolist()]
    for site, part in (("pre", 0), ("post_act", 1)):
        layers = [[run[part][i] for run in runs] for i in range(len(weights))]
        expected = [reference.rho(a, b) for a, b in itertools.pairwise(layers)]
        for reduction in NAMES:
            flow = s.information_flow(model, batches, reduction=reduction, site=site)
            want = tensor([reference.reduced(rho, reduction) for rho in expected])
            torch.testing.assert_close(flow.values, want, rtol=0, atol=1e-9)
    named = {f"fc{i}.weight": torch.tensor(m) for i, m in enumerate(masks, start=1)}
    loss, grads = reference.gradients(weights, biases, x.tolist(), y.tolist(), act)
    for what in (*STATISTICS, "total"):
        flow = s.gradient_flow(model, named, batches, statistic=what)
        want = [reference.statistic(g, m, what) if any(map(any, m)) else 0.0 for g, m in zip(grads, masks, strict=True)]
        want = [math.fsum(want)] if what == "total" else want
        torch.testing.assert_close(flow.values, tensor(want), rtol=1e-10, atol=1e-12)
        assert flow.loss == pytest.approx(loss, rel=1e-12)


def test_maps_are_averaged_and_read_where_asked():
    """conv - norm - relu - conv - norm - relu - mean - linear, against maps averaged and correlated by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).double().eval()  # fmt: skip
    for norm in (model[1], model[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.uniform_(-1, 1)
    x = normal(8, 1, 7, 7)
    step, maps = x, []
    with torch.no_grad():
        for layer in model:
            step = layer(step.clone())
            maps.append(step.clone())
    for site, (a, b) in {"pre": (0, 3), "post_norm": (1, 4), "post_act": (2, 5)}.items():
        layers = [reference.pooled(maps[a].tolist()), reference.pooled(maps[b].tolist()), maps[8].tolist()]
        rhos = [reference.rho(one, other) for one, other in itertools.pairwise(layers)]
        flow = s.information_flow(model, x.split(3), reduction="matrix", site=site)
        assert flow.pairs == (("0", "3"), ("3", "8"))
        for got, want in zip(flow.matrices, rhos, strict=True):
            torch.testing.assert_close(got, tensor(want), rtol=0, atol=1e-11)


class Branch(nn.Module):
    """A stem without a norm; its shortcut, with one of as many channels, runs before the next layer of the way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shortcut = nn.Conv2d(1, 3, 3), nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.stem(x)
        beside = self.shortcut(x)
        return torch.relu(self.norm(self.conv(x)) + beside)


def test_the_norm_of_a_shortcut_is_not_that_of_the_layer_before_it():
    """The stem has none, and is read as it is; the activation behind the sum is the last layer's."""
    torch.manual_seed(0)
    model, x = Branch().double().eval(), normal(9, 1, 7, 7)
    with torch.no_grad():
        stem = model.stem(x)
        body = model.norm(model.conv(stem))
        out = torch.relu(body + model.shortcut(stem))
    for site, last in (("post_norm", body), ("post_act", out)):
        rho = reference.rho(reference.pooled(stem.tolist()), reference.pooled(last.tolist()))
        flow = s.information_flow(model, [x], reduction="matrix", site=site)
        assert flow.pairs == (("stem", "conv"),)
        torch.testing.assert_close(flow.matrices[0], tensor(rho), rtol=0, atol=1e-11)


def test_a_sine_is_an_activation():
    torch.manual_seed(0)
    first, second, x = nn.Linear(3, 4).double(), nn.Linear(4, 2).double(), normal(9, 3)

    class Sine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return self.second(torch.sin(3 * self.first(x)))

    with torch.no_grad():
        bent = torch.sin(3 * first(x))
        rho = reference.rho(bent.tolist(), second(bent).tolist())
    flow = s.information_flow(Sine(), [x], reduction="matrix", site="post_act")
    torch.testing.assert_close(flow.matrices[0], tensor(rho), rtol=0, atol=1e-11)


def test_norm_in_eval_mode_changes_no_correlation_but_their_signs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(75, 2)).double()
    model[1].weight.data.copy_(tensor([1.0, -2.0, 0.5]))
    x = normal(9, 1, 7, 7)
    before, after = (
        s.information_flow(model, [x], reduction="matrix", site=site).matrices[0] for site in ("pre", "post_norm")
    )
    torch.testing.assert_close(after, tensor([1.0, -1.0, 1.0])[:, None] * before, rtol=0, atol=EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_activation_in_place_does_not_change_what_was_read_before_it(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 3)).to(dtype)
    other, x = copy.deepcopy(model), batch(G1)[0].to(dtype).split(5)
    for layer in (other[1], other[3]):
        layer.inplace = True
    for site in ("pre", "post_act"):
        for reduction in ("rms", "signed"):
            one, two = (s.information_flow(m, x, reduction=reduction, site=site) for m in (model, other))
            assert torch.equal(one.values, two.values)
    pre, post = (s.information_flow(other, x, site=site) for site in ("pre", "post_act"))
    assert s.flow_distance(post, post) == 0.0 < s.flow_distance(post.values, pre.values)


def test_tokens_are_averaged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double()
    x = normal(10, 6, 3)
    with torch.no_grad():
        first = model[0](x)
        layers = [first.mean(1).tolist(), model(x).mean(1).tolist()]
        bent = F.gelu(first).mean(1).tolist()
    flow = s.information_flow(model, x.split(4), reduction="matrix")
    torch.testing.assert_close(flow.matrices[0], tensor(reference.rho(*layers)), rtol=0, atol=1e-11)
    flow = s.information_flow(model, x.split(4), reduction="matrix", site="post_act")
    torch.testing.assert_close(flow.matrices[0], tensor(reference.rho(bent, layers[1])), rtol=0, atol=1e-11)


# -- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(12,), (1,) * 12, (5, 7), (11, 1)])
@pytest.mark.parametrize("reduction", [*NAMES, "matrix"])
def test_a_large_mean_hides_nothing(sizes, reduction):
    """Mean 1000, deviation 0.01: E[a^2] - E[a]^2 would leave 6 digits of 16, and none in float32."""
    weights, biases = copy.deepcopy(G1["weights"]), copy.deepcopy(G1["biases"])
    weights[0] = [[0.01 * w for w in row] for row in weights[0]]
    biases[0] = [1000.0] * 5
    model, whole = Chain(weights, biases), batch(G1)
    runs = [reference.forward(weights, biases, row, "relu")[0] for row in whole[0].tolist()]
    rhos = [reference.rho([r[i] for r in runs], [r[i + 1] for r in runs]) for i in range(2)]
    flow = s.information_flow(model, cut(whole, *sizes), reduction=reduction)
    want = [reference.reduced(rho, "rms" if reduction == "matrix" else reduction) for rho in rhos]
    torch.testing.assert_close(flow.values, tensor(want), rtol=0, atol=1e-10)
    narrow = s.information_flow(model.float(), [(x.float(), y) for x, y in cut(whole, *sizes)], reduction=reduction)
    torch.testing.assert_close(narrow.values, tensor(want), rtol=0, atol=1e-2)


def test_a_constant_unit_far_from_zero_is_dead():
    weights, biases = copy.deepcopy(G1["weights"]), copy.deepcopy(G1["biases"])
    weights[0][3], biases[0][3] = [1e-9] * 4, 12345.678
    for dtype in (torch.float64, torch.float32):
        model, whole = Chain(weights, biases).to(dtype), batch(G1)
        flow = s.information_flow(model, [(x.to(dtype), y) for x, y in cut(whole, 5, 7)], reduction="matrix")
        assert flow.dead == {"fc1": 1, "fc2": 0, "fc3": 0}
        assert not flow.matrices[0][3].any()
        assert flow.finite


def test_activations_that_are_not_finite_spoil_their_pairs_alone():
    model, (x, y) = g1(), batch(G1)
    model.fc3.bias.data[0] = math.inf
    for reduction in (*NAMES, "matrix"):
        flow = s.information_flow(model, [(x, y)], reduction=reduction)
        assert flow.values.isfinite().tolist() == [True, False]
        assert not flow.finite
        assert math.isnan(s.flow_distance(flow, flow))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_their_order_do_not_matter(kind):
    model, batches = networks()[kind]
    model = copy.deepcopy(model).double()
    batches = [(x.double() if x.is_floating_point() else x, y) for x, y in batches]
    whole = tuple(torch.cat(part) for part in zip(*batches, strict=True))
    masks = all_kept(model)
    for site in ("pre", "post_norm", "post_act"):
        for reduction in ("rms", "signed"):
            one, some, back, single = (
                s.information_flow(model, given, reduction=reduction, site=site)
                for given in ([whole], batches, reversed(batches), cut(whole, *[1] * 12))
            )
            assert one.samples == some.samples == 12
            for other in (some, back, single):
                assert other.pairs == one.pairs
                torch.testing.assert_close(other.values, one.values, rtol=0, atol=1e-8)
    one = s.gradient_flow(model, masks, [whole])
    for parts in (batches, reversed(batches), cut(whole, *[1] * 12)):
        torch.testing.assert_close(s.gradient_flow(model, masks, parts).values, one.values, rtol=1e-8, atol=1e-12)


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that is made inside."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            self.entries = max(self.entries, x.numel() if isinstance(x, torch.Tensor) else 0)
        return out


def test_the_signed_mean_builds_no_matrix():
    units = 100
    model = nn.Sequential(*(nn.Conv1d(units, units, 1, groups=units) for _ in range(2))).double()
    x = normal(8, units, 1)
    with Largest() as signed:
        flow = s.information_flow(model, [x], reduction="signed")
    with Largest() as matrix:
        full = s.information_flow(model, [x], reduction="matrix")
    assert signed.entries <= 8 * units
    assert matrix.entries == units**2
    torch.testing.assert_close(flow.values[0], full.matrices[0].mean(), rtol=0, atol=EXACT)


# -- symmetries --------------------------------------------------------------------------------------------------


def test_units_in_another_order_change_nothing():
    model, other, x = g1(), g1(), [batch(G1)]
    order = torch.tensor([3, 0, 4, 1, 2])
    for name in ("weight", "bias"):
        getattr(other.fc1, name).data = getattr(model.fc1, name).data[order]
    other.fc2.weight.data = model.fc2.weight.data[:, order]
    for site in ("pre", "post_norm", "post_act"):
        for reduction in (*NAMES, "matrix"):
            one, two = (s.information_flow(m, x, reduction=reduction, site=site) for m in (model, other))
            torch.testing.assert_close(one.values, two.values, rtol=0, atol=EXACT)
    torch.testing.assert_close(two.matrices[0], one.matrices[0][order], rtol=0, atol=EXACT)
    masks = dense(model)
    for statistic in (*STATISTICS, "total"):
        one, two = (s.gradient_flow(m, masks, x, statistic=statistic).values for m in (model, other))
        torch.testing.assert_close(one, two, rtol=0, atol=EXACT)


@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_scaling_a_unit_up_and_down_again_changes_no_correlation(seed):
    """relu(c a) = c relu(a) for c > 0: rows of fc1 times c, columns of fc2 through c, and the network is the same."""
    c = (3 * normal(5, seed=seed)).exp()
    model, other = g1(), g1()
    other.fc1.weight.data *= c[:, None]
    other.fc1.bias.data *= c
    other.fc2.weight.data /= c
    for site in ("pre", "post_act"):
        for reduction in (*NAMES, "matrix"):
            one, two = (s.information_flow(m, [batch(G1)], reduction=reduction, site=site) for m in (model, other))
            assert s.flow_distance(two, one) < 1e-9


def test_flipping_a_unit_flips_its_row_alone():
    model, other = g3(), g3()  # tanh(-a) = -tanh(a)
    for part in (other.fc1.weight, other.fc1.bias):
        part.data[2] *= -1
    other.fc2.weight.data[:, 2] *= -1
    sign = torch.ones(4, 1, dtype=torch.float64)
    sign[2] = -1
    for site in ("pre", "post_act"):
        one, two = (s.information_flow(m, [batch(G3)], reduction="matrix", site=site) for m in (model, other))
        torch.testing.assert_close(two.matrices[0], sign * one.matrices[0], rtol=0, atol=EXACT)
        for reduction in ("rms", "abs"):
            a, b = (s.information_flow(m, [batch(G3)], reduction=reduction, site=site) for m in (model, other))
            torch.testing.assert_close(a.values, b.values, rtol=0, atol=EXACT)
        a, b = (s.information_flow(m, [batch(G3)], reduction="signed", site=site) for m in (model, other))
        assert abs(float(a.values - b.values)) > 1e-3
    one, two = (s.gradient_flow(m, dense(m), [batch(G3)]) for m in (model, other))
    torch.testing.assert_close(one.values, two.values, rtol=0, atol=EXACT)


def test_masks_of_ones_are_no_masks_and_pruned_weights_have_no_pull():
    model, whole = g1(), batch(G1)
    loss = F.cross_entropy(model(whole[0]), whole[1])
    grads = torch.autograd.grad(loss, [model.fc1.weight, model.fc2.weight, model.fc3.weight])
    flow = s.gradient_flow(model, dense(model), [whole])
    torch.testing.assert_close(flow.values, torch.stack([g.norm() for g in grads]), rtol=0, atol=EXACT)
    none = {name: torch.zeros_like(mask) for name, mask in dense(model).items()}
    for statistic in (*STATISTICS, "total"):
        assert not s.gradient_flow(model, none, [whole], statistic=statistic).values.any()
    assert flow.alive == {"fc1.weight": 20, "fc2.weight": 15, "fc3.weight": 9}


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_at_no_distance_from_itself(kind):
    model, batches = networks()[kind]
    for reduction in (*NAMES, "matrix"):
        one, two = (s.information_flow(net, batches, reduction=reduction) for net in (model, copy.deepcopy(model)))
        assert one.finite
        assert all(s.flow_distance(one, two, norm) == 0.0 for norm in ("relative", "l2", "linf"))
    one, two = (s.gradient_flow(net, all_kept(net), batches) for net in (model, copy.deepcopy(model)))
    assert all(s.flow_distance(one, two, norm) == 0.0 for norm in ("relative", "l2", "linf"))


# -- which layers ------------------------------------------------------------------------------------------------


class Backwards(nn.Module):
    """Layers registered in another order than they run."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.idle, self.middle = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x):
        return self.last(F.relu(self.middle(F.relu(self.first(x)))))


def test_pairs_follow_the_order_of_execution():
    flow = s.information_flow(Backwards(), [torch.randn(5, 3)])
    assert flow.pairs == (("first", "middle"), ("middle", "last"))


def test_pairs_may_be_given():
    model, x = g1(), [batch(G1)]
    flow = s.information_flow(model, x, pairs=[("fc1", "fc3"), ("fc1", "fc2")], site="post_act")
    whole = s.information_flow(model, x, site="post_act")
    assert flow.pairs == (("fc1", "fc3"), ("fc1", "fc2"))
    torch.testing.assert_close(flow.values[1], whole.values[0])
    assert set(flow.units) == {"fc1", "fc2", "fc3"}
    twice = s.information_flow(model, x, pairs=[("fc1", "fc2")] * 2, reduction="signed")
    once = s.information_flow(model, x, pairs=[("fc1", "fc2")], reduction="signed")
    torch.testing.assert_close(twice.values, once.values.expand(2))


def test_what_follows_a_layer_left_out_is_not_the_layer_before_it():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), [torch.randn(6, 3)]
    pre, post = (s.information_flow(model, x, pairs=[("0", "3")], site=site) for site in ("pre", "post_act"))
    assert torch.equal(pre.values, post.values)


def test_shortcuts_are_no_part_of_the_way():
    model, batches = networks()["resnet"]
    shortcuts = [name for name, m in model.named_modules() if name.endswith("shortcut") and isinstance(m, nn.Conv2d)]
    assert len(shortcuts) == 3
    flow = s.information_flow(model, batches, site="post_norm")
    way = [flow.pairs[0][0], *(b for _, b in flow.pairs)]
    assert way[:3] == ["stem", "stages.0.0.conv1", "stages.0.0.conv2"]
    assert way[-1] == "fc"
    assert len(way) == 18
    assert not set(way) & set(shortcuts)
    assert len(s.gradient_flow(model, dense(model), batches).names) == 21
    chosen = s.information_flow(model, batches, pairs=[(shortcuts[0], "fc")])
    assert chosen.values.shape == (1,)


def test_attention_and_tokens_have_their_place():
    model, batches = networks()["transformer"]
    flow = s.information_flow(model, batches)
    per_block = [("self_attn.out_proj", "linear1"), ("linear1", "linear2")]
    expected = [(f"blocks.layers.{i}.{a}", f"blocks.layers.{i}.{b}") for i in (0, 1) for a, b in per_block]
    expected.insert(2, ("blocks.layers.0.linear2", "blocks.layers.1.self_attn.out_proj"))
    assert flow.pairs == (*expected, ("blocks.layers.1.linear2", "head"))
    assert flow.units["blocks.layers.1.linear1"] == 12


def test_batches_come_in_many_forms():
    model, (x, y) = g1(), batch(G1)
    expected = s.information_flow(model, [(x, y)]).values
    for form in (x, [x, y], {"x": x}):
        assert torch.equal(s.information_flow(model, iter([form])).values, expected)
    own = s.information_flow(model, [{"pixels": x}], forward=lambda net, given: net(given["pixels"]))
    assert torch.equal(own.values, expected)


@pytest.mark.parametrize("wrap", [torch.optim.swa_utils.AveragedModel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_networks_have_plain_names(wrap):
    model = g1()
    one, two = (s.information_flow(m, [batch(G1)]) for m in (model, wrap(model)))
    assert (one.pairs, one.values.tolist()) == (two.pairs, two.values.tolist())
    one, two = (s.gradient_flow(m, dense(m), [batch(G1)]) for m in (model, wrap(model)))
    assert (one.names, one.values.tolist()) == (two.names, two.values.tolist())


# -- what is refused ---------------------------------------------------------------------------------------------


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.shared, self.fc2 = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc2(self.shared(self.shared(self.fc1(x))))


def test_a_reused_layer_is_refused():
    x = [torch.randn(4, 3)]
    with pytest.raises(ValueError, match=r"layer 'shared' runs more than once .* give `pairs` without it"):
        s.information_flow(Reused(), x)
    assert s.information_flow(Reused(), x, pairs=[("fc1", "fc2")]).values.shape == (1,)


class Changing(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        return self.c(self.a(self.b(x)) if len(x) > 2 else self.b(self.a(x)))


def test_what_cannot_be_measured_is_refused():
    model, x = g1(), [batch(G1)]
    with pytest.raises(ValueError, match="reduction must be one of 'rms', 'abs', 'signed', 'matrix'"):
        s.information_flow(model, x, reduction="mean")
    with pytest.raises(ValueError, match="site must be one of .*, got 'post'"):
        s.information_flow(model, x, site="post")
    with pytest.raises(ValueError, match="needs at least one batch, got none"):
        s.information_flow(model, [])
    with pytest.raises(ValueError, match="needs at least two layers in the forward pass, got \\['0'\\]"):
        s.information_flow(nn.Sequential(nn.Linear(4, 2)).double(), x)
    with pytest.raises(ValueError, match="must be one of 'fc1', 'fc2', 'fc3', got 'fc9'"):
        s.information_flow(model, x, pairs=[("fc1", "fc9")])
    with pytest.raises(ValueError, match="'idle' does not run"):
        s.information_flow(Backwards(), [torch.randn(4, 3)], pairs=[("first", "idle")])
    with pytest.raises(ValueError, match="pairs must be at least one .* got \\[\\]"):
        s.information_flow(model, x, pairs=[])
    with pytest.raises(ValueError, match=r"in the same order for every batch, got a, b, c after b, a, c"):
        s.information_flow(Changing(), [torch.randn(4, 3), torch.randn(2, 3)])
    flat = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"must be the 4 samples, got shape \(5, 4, 2\)"):
        s.information_flow(flat, [torch.randn(4, 5, 3)], forward=lambda net, b: net(b.transpose(0, 1)))
    with pytest.raises(ValueError, match="statistic must be one of .*, got 'mean'"):
        s.gradient_flow(model, dense(model), x, statistic="mean")
    with pytest.raises(ValueError, match="needs at least one batch, got none"):
        s.gradient_flow(model, dense(model), [])
    with pytest.raises(ValueError, match="does not depend on any prunable weight"):
        s.gradient_flow(model, dense(model), x, loss=lambda net, b: b[0].sum())


def test_what_was_not_measured_alike_is_not_compared():
    model, x, masks = g1(), [batch(G1)], dense(g1())
    rms, absolute = (s.information_flow(model, x, reduction=r) for r in ("rms", "abs"))
    later = s.information_flow(model, x, site="post_act")
    norm, mean = (s.gradient_flow(model, masks, x, statistic=q) for q in ("norm", "mean_abs"))
    for a, b in ((rms, absolute), (rms, later), (norm, mean), (rms, norm), (rms, rms.values)):
        with pytest.raises(ValueError, match="measured in the same way"):
            s.flow_distance(a, b)
    with pytest.raises(ValueError, match="the same shapes"):
        s.flow_distance([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="norm must be one of .* got 'l1'"):
        s.flow_distance(rms, rms, "l1")


def test_distances_from_nothing():
    assert s.flow_distance([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert s.flow_distance([1.0], [0.0]) == math.inf
    assert s.flow_distance([3.0, 4.0], [0.0, 0.0], "l2") == 5.0
    assert s.flow_distance([3.0, -4.0], [0.0, 0.0], "linf") == 4.0
    assert math.isnan(s.flow_distance([math.inf], [1.0], "l2"))


# -- measuring changes nothing -----------------------------------------------------------------------------------


class Restless(nn.Module):
    """Counts its calls in a buffer and draws noise, in eval mode too; one part is kept in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        return self.fc(F.dropout(x.mean((2, 3)), 0.5, training=True) + torch.rand(1) + random.random())


def legacy():
    return str(numpy.random.get_state())  # noqa: NPY002 - foreign code uses this generator


def everything(model):
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "same": [(id(p), p.data_ptr(), p._version, p.requires_grad) for p in model.parameters()],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "flags": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "tensor hooks": [len(p._backward_hooks or ()) for p in model.parameters()],
        "random": (torch.get_rng_state(), legacy(), random.getstate()),
        "grad mode": torch.is_grad_enabled(),
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def measurements():
    yield from ({"reduction": r, "site": t} for r in (*NAMES, "matrix") for t in ("pre", "post_norm", "post_act"))
    yield from ({"statistic": q} for q in (*STATISTICS, "total"))
    yield from ({"statistic": "norm", "reduction": r} for r in ("rms", "signed"))


@pytest.mark.parametrize("how", list(measurements()), ids=lambda how: "-".join(how.values()))
def test_measuring_changes_nothing(how):
    torch.manual_seed(0)
    model = Restless()
    model.norm.eval()
    model.conv.bias.requires_grad_(False)
    model.fc.register_forward_hook(lambda *_: None)
    x, y = torch.randn(6, 1, 6, 6), torch.randint(0, 3, (6,))
    F.cross_entropy(model(x), y).backward()
    masks = dense(model)
    masks["fc.weight"][0] = False
    before, kept = everything(model), {n: m.clone() for n, m in masks.items()}

    def measure(batches):
        if how.keys() >= {"statistic", "reduction"}:
            return s.both_flows(model, masks, batches, **how)[0]
        if "statistic" in how:
            return s.gradient_flow(model, masks, batches, **how)
        return s.information_flow(model, batches, **how)

    one, two = (measure(cut((x, y), 2, 4)) for _ in range(2))
    assert torch.equal(one.values, two.values)  # what the network draws is the same every time
    assert equal(everything(model), before)
    with pytest.raises(ValueError, match="at least one sample"):
        measure([(x, y), (x[:0], y[:0])])  # half-way through
    with pytest.raises(RuntimeError, match="channels"):
        measure([(x.expand(6, 2, 6, 6), y)])  # in the middle of a forward pass
    assert equal(everything(model), before)
    assert equal(masks, kept)


def test_a_gradient_is_measured_also_where_none_are_kept():
    model = g1()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        flow = s.gradient_flow(model, dense(model), [batch(G1)])
    torch.testing.assert_close(flow.values, tensor(G1["dense"]["gf"]["full_gradient"]["norm"]), rtol=0, atol=EXACT)


@pytest.mark.parametrize("site", ["pre", "post_norm", "post_act"])
@pytest.mark.parametrize(("reduction", "statistic"), [("matrix", "norm"), ("signed", "total"), ("abs", "mean_abs")])
def test_both_flows_are_the_two_flows_from_half_the_forward_passes(site, reduction, statistic):
    model = zoo.cnn(width=0.125, seed=0)
    masks = dense(model)
    for mask in masks.values():
        mask.view(-1)[::3] = False
    apply_(model, masks)
    g = torch.Generator().manual_seed(0)
    batches = [(torch.randn(n, 1, 28, 28, generator=g), torch.randint(0, 10, (n,), generator=g)) for n in (5, 3)]
    passes = []
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    handle = last.register_forward_hook(lambda *_: passes.append(1))
    information, gradient = s.both_flows(
        model, masks, batches, site=site, reduction=reduction, statistic=statistic, loss=cross_entropy
    )
    handle.remove()
    assert len(passes) == 2
    one = s.information_flow(model, batches, site=site, reduction=reduction)
    other = s.gradient_flow(model, masks, batches, statistic=statistic)
    for a, b in ((information, one), (gradient, other)):
        assert {k: equal(v, vars(b)[k]) for k, v in vars(a).items()} == dict.fromkeys(vars(a), True)
    with pytest.raises(ValueError, match="at least one batch"):
        s.both_flows(model, masks, [])
    with pytest.raises(ValueError, match="runs more than once"):
        s.both_flows(model, masks, batches, loss=lambda net, b: cross_entropy(net, b) + net(b[0]).mean())


# -- probes ------------------------------------------------------------------------------------------------------


def uneven(n=1000):
    y = torch.tensor([0] * 500 + [1] * 300 + [2] * 200)[torch.randperm(n, generator=torch.Generator().manual_seed(3))]
    return Split(torch.arange(float(n))[:, None], y, augment=lambda x, g: 1 / 0)


def test_a_probe_is_stratified_seeded_and_as_it_is():
    split = uneven()
    probe = s.probe(split, 101, seed=4, batch_size=40)
    assert probe.indices.tolist() == sorted(set(probe.indices.tolist()))
    assert torch.bincount(split.y[probe.indices]).tolist() == [51, 30, 20]
    assert [len(y) for _, y in probe] == [40, 40, 21]
    assert torch.equal(torch.cat([x for x, _ in probe])[:, 0], probe.indices.float())
    assert torch.equal(torch.cat([y for _, y in probe]), split.y[probe.indices])
    again, other = s.probe(split, 101, seed=4), s.probe(split, 101, seed=5)
    assert torch.equal(again.indices, probe.indices)
    assert again.digest == probe.digest != other.digest
    assert not torch.equal(other.indices, probe.indices)
    assert not torch.equal(probe.indices, stratified(split.y, [101])[0])


def test_a_probe_does_not_change_between_versions():
    split = Split(torch.zeros(1000, 1), torch.arange(1000) % 3)
    assert s.probe(split, 8, seed=1).indices.tolist() == [173, 214, 281, 510, 648, 667, 928, 966]


def test_probes_of_different_seeds_cover_the_split():
    split = uneven()
    drawn = torch.cat([s.probe(split, 100, seed=seed).indices for seed in range(60)])
    times = torch.bincount(drawn, minlength=1000)
    assert times.max() <= 18  # of 60, expected 6: nobody is a favourite
    assert (times == 0).sum() < 20


def test_a_whole_split_is_a_probe_too():
    split = uneven()
    assert s.probe(split, 1000).indices.tolist() == list(range(1000))
    with pytest.raises(ValueError, match="probe must be 1 to 1,000, the number of samples, got 1,001"):
        s.probe(split, 1001)
    with pytest.raises(ValueError, match="probe must be .* got 0"):
        s.probe(split, 0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        s.probe(split, 5, batch_size=0)


def test_labels_that_are_no_classes_are_drawn_alike():
    split = Split(torch.arange(50.0), torch.linspace(0, 1, 50))
    assert len(s.probe(split, 7).indices) == 7


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_probe_of_any_loader(size):
    """The same samples whatever the loader's batches, in one pass; dictionaries and tuples keep their form."""
    x, y = torch.arange(300.0)[:, None], torch.arange(300) % 3
    loader = [{"x": a, "pair": (b, b + 1)} for a, b in zip(x.split(size), y.split(size), strict=True)]
    before = torch.get_rng_state()
    probe = s.probe(iter(loader), 50, seed=2, batch_size=20)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(probe) == 3
    assert torch.equal(torch.cat([b["x"] for b in probe])[:, 0], probe.indices.float())
    assert torch.equal(torch.cat([b["pair"][1] for b in probe]), probe.indices % 3 + 1)
    assert probe.digest == s.probe(Split(x, y.double()), 50, seed=2).digest
    with pytest.raises(ValueError, match="probe must be 1 to 300, .* got 301"):
        s.probe(loader, 301)
    assert s.probe(loader).digest == s.probe(Split(x, y)).digest  # all that there are, where no number is given
    assert len(s.probe(loader).indices) == 300


def test_a_probe_touches_no_random_state():
    before = torch.get_rng_state(), legacy()
    s.probe(uneven(), 100)
    assert equal((torch.get_rng_state(), legacy()), before)


def test_flow_is_measured_on_a_probe():
    split = Split(normal(60, 4), torch.arange(60) % 3)
    probe = s.probe(split, 30, batch_size=7)
    assert s.information_flow(g1(), probe).samples == 30
    assert s.gradient_flow(g1(), dense(g1()), probe).samples == 30


# -- the average of training gradients ---------------------------------------------------------------------------


def test_the_average_is_its_definition():
    norms = [3.0, 1.0, 4.0, 1.5]
    average, decay = None, 0.8
    for t, norm in enumerate(norms, start=1):
        grads = {"a": torch.tensor([0.6, 0.8]) * norm, "b": None, "c": torch.full((4,), norm)}
        average = s.gf_ema(grads, average, decay=decay)
        weights = [decay ** (t - i) for i in range(1, t + 1)]
        mean = sum(w * n for w, n in zip(weights, norms[:t], strict=True)) / sum(weights)
        torch.testing.assert_close(average.values, tensor([mean, 0.0, 2 * mean]), rtol=1e-6, atol=0)
        assert (average.names, average.steps) == (("a", "b", "c"), t)
    state = average.state()
    back = s.GradientAverage(average.names, state["total"], int(state["steps"]), decay)
    grads = {name: torch.ones(2) for name in "abc"}
    assert torch.equal(s.gf_ema(grads, back, decay=decay).values, s.gf_ema(grads, average, decay=decay).values)
    assert s.flow_distance(back, average) == 0.0


def test_an_average_leaves_its_past_as_it_was():
    first = s.gf_ema({"a": torch.ones(3)})
    total = first.total.clone()
    s.gf_ema({"a": torch.ones(3)}, first)
    assert torch.equal(first.total, total)
    assert first.total.dtype is torch.float64


def test_an_average_of_other_things_is_refused():
    average = s.gf_ema({"a": torch.ones(3)})
    with pytest.raises(ValueError, match=r"cannot continue with \('b',\)"):
        s.gf_ema({"b": torch.ones(3)}, average)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
        s.gf_ema({"a": torch.ones(3)}, decay=1.0)
    with pytest.raises(ValueError, match="at least one gradient, got none of 1"):
        s.gf_ema({"a": None})
