"""Sensitivities: the golden values, a slow reference, layers of every kind, and what they must not depend on."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sipp as slow
from torch import nn

from sparsight.model.masks import dense
from sparsight.pruning.sipp.bounds import calibration_size, calibration_sweep
from sparsight.pruning.sipp.groups import ranking_keys
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.sipp.sensitivities import saturated
from sparsight.types import Scored

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sipp_golden.json").read_text())
D = torch.float64


def linear(weight, bias=None) -> nn.Linear:
    weight = torch.as_tensor(weight, dtype=D)
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=D)
    layer.weight.data.copy_(weight)
    if bias is not None:
        layer.bias.data.copy_(torch.as_tensor(bias, dtype=D))
    return layer


def scores(model, x, reduction="max", **options) -> Scored:
    return SiPP(reduction, **options)(model, dense(model), [(x, None)])


def g1():
    weight = [[math.sin(1.7 * f + 2.3 * k + 0.5) for k in range(8)] for f in range(3)]
    x = torch.tensor([[math.cos(1.1 * n + 0.6 * k + 0.3) for k in range(8)] for n in range(2)], dtype=D)
    return linear(weight, [0.1, 0.2, 0.3]), x


def g2(case):
    layer = nn.Conv2d(2, 3, 3, case["stride"], case["padding"], case["dilation"], dtype=D)
    for f, c, u, v in np.ndindex(3, 2, 3, 3):
        layer.weight.data[f, c, u, v] = math.sin(0.9 * f + 1.3 * c + 0.7 * u + 1.9 * v + 0.2)
    x = torch.empty(2, 2, 4, 4, dtype=D)
    for n, c, y, z in np.ndindex(2, 2, 4, 4):
        x[n, c, y, z] = math.cos(0.8 * n + 0.5 * c + 1.2 * y + 0.37 * z + 0.1)
    return layer, x


class TestGolden:
    def test_linear(self):
        layer, x = g1()
        found = scores(layer, x)
        assert torch.allclose(found["weight"], torch.tensor(GOLDEN["G1_linear"]["sensitivity"], dtype=D), atol=1e-11)
        assert torch.equal(found.facts["weight"].positive, layer.weight > 0)
        assert (found.facts["weight"].patches, found.facts["weight"].kernel) == (1, 1)
        sums, nonzero = slow.groups(layer.weight.detach(), found["weight"])
        assert np.allclose(sums, GOLDEN["G1_linear"]["S_groups"], atol=1e-11)
        assert nonzero.tolist() == GOLDEN["G1_linear"]["nnz_groups"]

    def test_zeros(self):
        case = GOLDEN["G1b_zero_handling"]
        found = scores(linear(case["weight"]), torch.tensor(case["x"], dtype=D))
        assert found["weight"].tolist() == case["sensitivity"]

    @pytest.mark.parametrize(
        "case", GOLDEN["G2_conv"]["cases"], ids=lambda c: f"{c['stride']}{c['padding']}{c['dilation']}"
    )
    def test_convolution(self, case):
        layer, x = g2(case)
        for reduction, key in (("max", "sens_max_[3][18]"), ("mean", "sens_mean_[3][18]")):
            found = scores(layer, x, reduction)
            expected = torch.tensor(case[key], dtype=D)
            assert torch.allclose(found["weight"].reshape(3, 18), expected, atol=1e-11, rtol=0)
            assert found.facts["weight"].patches == case["num_patches"]
            assert found.facts["weight"].kernel == 9
            sums, _ = slow.groups(layer.weight.detach().reshape(3, 18), found["weight"].reshape(3, 18))
            assert np.allclose(sums, case[f"S_groups_{reduction}"], atol=1e-10)

    def test_calibration_size(self):
        case = GOLDEN["G6_size_of_S"]["lenet300_100"]
        found = calibration_sweep([300, 100, 10], case["delta"])
        assert list(found) == case["delta"]
        assert list(found.values()) == case["size"]
        assert calibration_size([300, 100, 10], available=60) == 30
        with pytest.raises(ValueError, match="delta must be finite and greater than 0"):
            calibration_size([3], delta=0.0)
        with pytest.raises(ValueError, match="outputs"):
            calibration_size([])

    def test_the_size_is_taken_from_the_outputs_of_the_network(self):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3))
        found = scores(model, torch.rand(300, 1, 6, 6))
        expected = math.ceil(3 * math.log(8 * (64 + 3) * 64 / 1e-16))
        assert (found.wanted, found.points) == (expected, expected)
        assert scores(model, torch.rand(7, 1, 6, 6)).points == 7
        assert scores(model, torch.rand(9, 1, 6, 6), points=4).points == 4


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    groups=st.sampled_from([1, 2]),
    reduction=st.sampled_from(["max", "mean"]),
)
def test_convolutions_of_every_kind(seed, stride, padding, dilation, kernel, mode, groups, reduction):
    g = torch.Generator().manual_seed(seed)
    layer = nn.Conv2d(
        4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=mode, dtype=D
    )
    layer.weight.data = torch.randn(layer.weight.shape, generator=g, dtype=D)
    x = torch.randn(3, 4, 6, 5, generator=g, dtype=D)
    x[0] = x[0].abs()
    found = scores(layer, x, reduction)["weight"].flatten(1)
    name = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(mode, mode)
    for i in range(groups):
        inside = slice(i * 4 // groups, (i + 1) * 4 // groups)
        rows = slice(i * 6 // groups, (i + 1) * 6 // groups)
        points = [
            slow.patches(one[inside].numpy(), kernel, (stride,) * 2, (padding,) * 2, (dilation,) * 2, name) for one in x
        ]
        expected = slow.sensitivities(layer.weight.detach()[rows].flatten(1), points, reduction)
        assert np.allclose(found[rows].numpy(), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_other_dimensions_and_unbatched_inputs():
    g = torch.Generator().manual_seed(1)
    same = nn.Conv2d(2, 3, (2, 3), padding="same", dtype=D)
    x = torch.rand(2, 2, 5, 4, generator=g, dtype=D)
    valid = nn.Conv2d(2, 3, (2, 3), dtype=D)
    valid.weight.data = same.weight.data
    padded = nn.functional.pad(x, same._reversed_padding_repeated_twice)
    assert torch.allclose(scores(same, x)["weight"], scores(valid, padded)["weight"])
    flat = nn.Conv1d(2, 3, 3, padding=1, dtype=D)
    wide = nn.Conv2d(2, 3, (1, 3), padding=(0, 1), dtype=D)
    wide.weight.data = flat.weight.data.unsqueeze(2)
    line = torch.rand(2, 2, 7, generator=g, dtype=D)
    assert torch.allclose(scores(flat, line)["weight"], scores(wide, line.unsqueeze(2))["weight"].squeeze(2))
    deep = nn.Conv3d(2, 3, (1, 1, 3), padding=(0, 0, 1), dtype=D)
    deep.weight.data = flat.weight.data[:, :, None, None]
    assert torch.allclose(scores(flat, line)["weight"], scores(deep, line[:, :, None, None])["weight"][:, :, 0, 0])

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = same

        def forward(self, batch):
            return torch.stack([self.inner(one) for one in batch])

    assert torch.allclose(scores(Alone(), x)["inner.weight"], scores(same, x)["weight"])


def test_tokens_are_points():
    layer, g = nn.Linear(5, 4, dtype=D), torch.Generator().manual_seed(2)
    x = torch.randn(3, 7, 5, generator=g, dtype=D)
    for reduction in ("max", "mean"):
        found, expected = scores(layer, x, reduction), scores(layer, x.reshape(21, 5), reduction)
        assert torch.allclose(found["weight"], expected["weight"])
        assert found.points == 3
    expected = slow.sensitivities(layer.weight.detach(), [row[None] for row in x.reshape(21, 5).numpy()])
    assert np.allclose(scores(layer, x)["weight"].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("reduction", ["max", "mean"])
class TestWhatItDoesNotDependOn:
    def model(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).to(D)

    def x(self):
        return torch.randn(70, 2, 4, 4, generator=torch.Generator().manual_seed(4), dtype=D)

    def test_scale(self, reduction):
        model, x = self.model(), self.x()
        plain = scores(model, x, reduction)
        for a, b in ((1e-30, 1.0), (1e30, 1e-25), (1.0, 1e20)):
            other = copy.deepcopy(model)
            other[0].bias.data.zero_()
            base = copy.deepcopy(other)
            other[0].weight.data *= a
            found, expected = scores(other, b * x, reduction), scores(base, x, reduction)
            assert torch.allclose(found["0.weight"], expected["0.weight"], atol=1e-12)
        assert float(plain["0.weight"].max()) <= 1

    def test_the_scale_of_each_row(self, reduction):
        model, x = self.model().float(), self.x().float()
        expected = scores(model, x, reduction)["0.weight"]
        model[0].weight.data *= torch.tensor([1.0, 1e-8, 1e-20, 1e10]).reshape(4, 1, 1, 1)
        assert torch.allclose(scores(model, x, reduction)["0.weight"], expected, atol=1e-5)

    def test_bias_batches_and_what_is_beyond_the_points(self, reduction):
        model, x = self.model(), self.x()
        first = scores(model, x, reduction)
        model[3].bias.data += 100  # the last layer's: no activation changes
        again = SiPP(reduction)(model, dense(model), [(x[:3], None), (x[3:50], None), (x[50:], None)])
        assert again.points == first.points == 70
        few = SiPP(reduction, points=40)(model, dense(model), [(x, None)])
        alone = SiPP(reduction)(model, dense(model), [x[:40]])
        for name in first:
            assert torch.allclose(again[name], first[name], atol=1e-12)
            assert torch.allclose(few[name], alone[name], atol=1e-12)
            assert (few[name] <= first[name] + 1e-12).all()

    def test_mode_and_gradients(self, reduction):
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2)).to(D)
        x = torch.rand(9, 6, generator=torch.Generator().manual_seed(0), dtype=D)
        trained = scores(model.train(), x, reduction)
        assert model.training
        evaluated = scores(model.eval(), x, reduction)
        assert all(torch.equal(trained[name], evaluated[name]) for name in trained)
        assert not any(value.requires_grad for value in trained.values())

    def test_pruned_weights_count_as_zero(self, reduction):
        model, x = self.model(), self.x()
        masks = dense(model)
        masks["0.weight"][:, 0] = False
        by_mask = SiPP(reduction)(model, masks, [x])
        zeroed = copy.deepcopy(model)
        zeroed[0].weight.data[:, 0] = 0
        expected = scores(zeroed, x, reduction)
        whole = SiPP(reduction, masked=False)(model, masks, [x])
        for name in masks:
            assert torch.allclose(by_mask[name], expected[name])
            assert torch.allclose(whole[name], scores(model, x, reduction)[name])
        assert (by_mask["0.weight"][:, 0] == 0).all()

    def test_single_precision(self, reduction):
        model, x = self.model(), self.x()
        wide, narrow = scores(model, x, reduction), scores(model.float(), x.float(), reduction)
        for name in wide:
            assert narrow[name].dtype is torch.float32
            assert torch.allclose(narrow[name].double(), wide[name], atol=1e-5)
        half = scores(self.model().to(torch.bfloat16), x.to(torch.bfloat16), reduction)
        assert half["0.weight"].dtype is torch.float32


def test_shares_of_a_part_sum_to_one():
    layer, g = nn.Linear(6, 4, dtype=D), torch.Generator().manual_seed(3)
    for _ in range(5):
        x = torch.rand(1, 6, generator=g, dtype=D)
        s = scores(layer, x)["weight"]
        for side in (layer.weight > 0, layer.weight < 0):
            rows = torch.where(side, s, 0).sum(1)[side.any(1)]
            assert torch.allclose(rows, torch.ones_like(rows))


def test_secondary_keys_and_saturation():
    layer, x = g1()
    found = scores(layer, x)
    facts = found.facts["weight"]
    assert saturated(found) == int((torch.tensor(GOLDEN["G1_linear"]["sensitivity"]) == 1).sum())
    assert torch.equal(facts.size, layer.weight.detach().abs())
    assert ((facts.mean >= 0) & (facts.mean <= found["weight"])).all()
    keys = list(ranking_keys(found))
    assert keys[0] is found
    assert [k["weight"] is v for k, v in zip(keys[1:], (facts.mean, facts.size), strict=True)] == [True, True]


def test_one_active_edge_is_exactly_one():
    g = torch.Generator().manual_seed(0)
    layer = nn.Linear(30, 200)
    layer.weight.data = torch.rand(200, 30, generator=g) + 0.01
    s = scores(layer, torch.eye(30) * torch.rand(30, 1, generator=g))["weight"]
    assert (s == 1).all()


def test_tied_weights_are_seen_wherever_they_are_used():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4, dtype=D)
            self.b = nn.Linear(4, 4, dtype=D)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    model, g = Twice(), torch.Generator().manual_seed(0)
    x = torch.rand(5, 4, generator=g, dtype=D)
    found = scores(model, x)
    hidden = model.a(x).relu().detach()
    expected = torch.maximum(scores(model.a, x)["weight"], scores(model.b, hidden)["weight"])
    assert torch.allclose(found["a.weight"], expected)


class TestRefusals:
    def test_no_batches(self):
        model = nn.Linear(3, 2)
        with pytest.raises(ValueError, match="SiPP needs at least one batch of inputs"):
            SiPP()(model, dense(model), [])

    def test_layers_without_a_definition(self):
        model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3))
        with pytest.raises(TypeError, match=r"cannot score '0.weight': expected .* got ConvTranspose2d; skip it"):
            SiPP()(model, dense(model), [torch.rand(1, 2, 4, 4)])
        model = nn.Sequential(nn.Embedding(4, 3))
        with pytest.raises(TypeError, match=r"cannot score '0.weight': expected .* got Embedding"):
            SiPP()(model, dense(model, include="*.weight"), [torch.zeros(1, dtype=torch.long)])

    def test_layers_that_no_input_reaches(self):
        class Idle(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

            def forward(self, x):
                return self.used(x)

        with pytest.raises(ValueError, match=r"cannot score 'idle.weight': its layer was never called") as said:
            scores(Idle(), torch.rand(2, 3))
        assert "exclude=('idle.weight',)" in str(said.value)
        masks = dense(Idle(), exclude=("idle.weight",))
        assert SiPP()(Idle(), masks, [torch.rand(2, 3)]).keys() == {"used.weight"}

    def test_layers_called_by_keyword(self):
        class Keyword(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Linear(3, 2)

            def forward(self, x):
                return self.a(input=x)

        with pytest.raises(TypeError, match=r"input of 'a.weight': call its layer as layer"):
            scores(Keyword(), torch.rand(2, 3))

    def test_fewer_samples_than_asked_for(self):
        model = nn.Linear(3, 2)
        with pytest.warns(UserWarning, match="SiPP used 7 calibration points, not 50"):
            assert scores(model, torch.rand(7, 3), points=50).points == 7

    def test_what_is_not_finite(self):
        model = nn.Linear(3, 2)
        with pytest.raises(ValueError, match="input of its layer is not finite"):
            scores(model, torch.tensor([[1.0, float("inf"), 0.0]]))
        model.weight.data[0, 0] = float("nan")
        with pytest.raises(ValueError, match="'weight': its weights are not all finite"):
            scores(model, torch.rand(2, 3))

    def test_options(self):
        wrong = [{"reduction": "sum"}, {"delta": 0.0}, {"constant": -1.0}, {"points": 0}]
        wrong += [{"delta": 1.0}, {"delta": 20}, {"constant": 0.99}]
        for options in wrong:
            with pytest.raises((ValueError, TypeError), match=next(iter(options))):
                SiPP(**options)
        for points in (2.5, "x", True):
            asked = SiPP()
            object.__setattr__(asked, "points", points)  # past the checker of types, which users do not run
            with pytest.raises(ValueError, match="points must be a whole number, got"):
                asked.__post_init__()
        assert dataclasses.replace(SiPP(), reduction="mean") == SiPP("mean")
