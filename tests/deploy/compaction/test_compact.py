"""Compaction: what goes, what stays and why, and that outputs are the same."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from drawn import SIDE, Drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Detector, Inverted, sparse_
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsight.deploy import Left, compact
from sparsight.zoo.networks import KNOWN


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = copy.deepcopy(model).double()(x.double())
    return list(found) if isinstance(found, tuple) else [found]


def same(model: nn.Module, smaller: nn.Module, x: Tensor) -> bool:
    pairs = zip(outputs(model, x), outputs(smaller, x), strict=True)
    return all(float((a - b).abs().max()) <= 1e-5 * max(1.0, float(a.abs().max())) for a, b in pairs)


def layers(*made: nn.Module) -> nn.Module:
    """A network of these, all weights 1, biases 0, statistics of BatchNorm as they begin."""
    model = nn.Sequential(*made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


@pytest.mark.parametrize("density", [0.05, 0.01])
@pytest.mark.parametrize("name", KNOWN)
def test_the_zoo(name, density):
    model = sparse_(KNOWN[name]((1, 16, 16), 10, seed=0), density)
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    done = compact(model, x)
    assert same(model, done.module, 2 * x)
    assert done.after == sum(p.numel() for p in done.module.parameters()) <= done.before
    assert type(done.module) is type(model)
    assert done.after < done.before or density == 0.05 or name == "linear"


@pytest.mark.parametrize("density", [0.3, 0.05, 0.0])
@pytest.mark.parametrize("made", [Detector, Inverted])
def test_shapes_people_have(made, density):
    model = sparse_(made(), density)
    x = torch.randn(2, 3, 32, 32)
    assert same(model, compact(model, x).module, x)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_networks_drawn_at_random(seed):
    model = Drawn(seed).eval()
    x = torch.randn(2, model.inputs, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    assert same(model, compact(model, x).module, 2 * x)


def test_networks_drawn_at_random_get_smaller():
    done = [compact(m, torch.randn(2, m.inputs, SIDE, SIDE)) for m in (Drawn(seed).eval() for seed in range(12))]
    assert sum(one.after < one.before for one in done) >= 6


# -- what goes ---------------------------------------------------------------------------------------------------


def test_a_unit_without_outputs_goes_and_its_inputs_with_it():
    model = layers(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[4].weight[:, [0, 3]] = 0  # so units 0 and 3 of the second layer are without outputs
        model[2].weight[:, 1] = 0
        model[2].weight[[1, 2, 4], 2] = 0  # unit 2 of the first layer leads to those alone
    done = compact(model, torch.randn(2, 3))
    assert {n: {d: i.tolist() for d, i in dims.items()} for n, dims in done.kept.items()} == {
        "0.weight": {0: [0, 3]}, "0.bias": {0: [0, 3]},
        "2.weight": {0: [1, 2, 4], 1: [0, 3]}, "2.bias": {0: [1, 2, 4]}, "4.weight": {1: [1, 2, 4]},
    }  # fmt: skip
    for name, dims in done.kept.items():
        old, new = model.state_dict()[name], done.module.state_dict()[name]
        for dim, index in dims.items():
            old = old.index_select(dim, index)
        assert torch.equal(old, new)
    assert (done.module[2].in_features, done.module[2].out_features) == (2, 3)
    assert done.left == ()


@pytest.mark.parametrize(("act", "value"), [(nn.ReLU(), 0.5), (nn.Sigmoid(), 0.6224593), (nn.GELU(), 0.3457312)])
def test_a_unit_without_inputs_goes_into_the_bias_behind_it(act, value):
    model = layers(nn.Linear(3, 2), act, nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1], model[2].weight[0, 1] = 0, 0.5, 3.0
    done = compact(model, torch.randn(2, 3))
    assert done.module[0].weight.shape == (1, 3)
    assert torch.allclose(done.module[2].bias, torch.tensor([3 * value, value]))


def test_a_constant_goes_through_batch_norm_pooling_and_flattening():
    model = layers(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3, 1),
    )
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0, 2.0
        model[1].running_mean[0], model[1].running_var[0], model[1].bias[0] = 1.0, 4.0 - model[1].eps, 0.25
    done = compact(model, torch.randn(2, 1, 6, 6))
    assert done.module[1].num_features == 2
    assert done.module[1].running_mean.tolist() == [0.0, 0.0]
    assert done.module[6].in_features == 2
    assert done.module[6].bias.item() == pytest.approx((2.0 - 1.0) / 2 + 0.25)


def test_of_constants_before_padding_one_stays_for_all():
    model = layers(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=1))
    with torch.no_grad():
        model[0].weight[1:], model[0].bias[1:] = 0, torch.tensor([0.0, 2.0, -1.0])
    done = compact(model, torch.randn(2, 1, 5, 5))
    assert done.kept["0.weight"][0].tolist() == [0, 2]  # the 0 could go, 2 stands for -1 too
    assert torch.equal(done.module[1].weight[:, 1], torch.full((2, 3, 3), 0.5))
    assert done.left == (Left("0", 1, "a constant that 1 pads with zeros or has no bias for"),)
    unpadded = layers(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3))
    unpadded.load_state_dict(model.state_dict())
    assert compact(unpadded, torch.randn(2, 1, 5, 5)).kept["0.weight"][0].tolist() == [0]


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        return self.c(torch.cat([a + self.b(x), a], 1))


def test_what_is_summed_goes_together():
    model = Summed().eval()
    with torch.no_grad():
        model.a.weight[[0, 1, 2]] = 0
        model.b.weight[[1, 2, 3]] = 0
        model.c.weight[:, [2, 6]] = 0
    done = compact(model, torch.randn(2, 1, 4, 4))
    assert done.kept["a.weight"][0].tolist() == done.kept["b.weight"][0].tolist() == [0, 3]
    assert done.kept["c.weight"][1].tolist() == [0, 3, 4, 7]
    assert {(one.layer, one.units) for one in done.left} == {("a", 1), ("b", 1)}


def test_of_a_grouped_convolution_whole_groups_go():
    model = layers(nn.Conv2d(1, 6, 1), nn.Conv2d(6, 9, 1, groups=3), nn.Conv2d(9, 1, 1))
    with torch.no_grad():
        model[2].weight[:, [0, 1, 2, 3]] = 0
    done = compact(model, torch.randn(2, 1, 4, 4))
    assert done.module[1].groups == 2
    assert done.module[1].weight.shape == (6, 2, 1, 1)
    assert done.kept["1.weight"][0].tolist() == [3, 4, 5, 6, 7, 8]


# -- what stays --------------------------------------------------------------------------------------------------


def test_outputs_keep_their_shape():
    model = layers(nn.Linear(3, 4))
    with torch.no_grad():
        model[0].weight[1] = 0
    done = compact(model, torch.randn(2, 3))
    assert done.left == (Left("0", 1, "an output of the network"),)
    assert done.before == done.after == 16


def test_operations_that_are_not_known_keep_their_channels():
    model = layers(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight[1], model[2].weight[1] = 0, 0
    done = compact(model, torch.randn(2, 3))
    assert done.module[0].weight.shape == (4, 3)
    assert done.module[2].weight.shape == (3, 4)
    assert done.left == (Left("0", 1, "layer_norm needs all channels"),)


class Numbered(nn.Module):
    """Code that knows how many channels there are."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.a, self.b, self.way = nn.Linear(3, 4), nn.Linear(4, 2), way

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.way == "reshape":
            x = x.reshape(-1, 4)
        elif self.way == "slice":
            x = torch.cat([x[:, 2:], x[:, :2]], 1)
        elif self.way == "weight":
            return F.linear(x, self.b.weight) + F.linear(x, self.b.weight.roll(1, 0))
        else:
            assert x.shape[1] == 4
        return self.b(x)


@pytest.mark.parametrize("way", ["reshape", "slice", "weight"])
def test_code_that_numbers_channels_keeps_them(way):
    model = Numbered(way).eval()
    with torch.no_grad():
        model.a.weight[1] = 0
    done = compact(model, torch.randn(2, 3))
    assert done.before == done.after
    assert [(one.layer, one.units) for one in done.left] == [("a", 1)]


def test_code_that_does_not_run_with_fewer_is_refused():
    model = Numbered("assert").eval()
    with torch.no_grad():
        model.a.weight[1] = 0
    with pytest.raises(ValueError, match="cannot be compacted: its code with fewer channels does not run"):
        compact(model, torch.randn(2, 3))


def test_wrong_outputs_are_refused(monkeypatch):
    model = layers(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0, 1.0
    monkeypatch.setattr("sparsight.deploy.compaction.walk.Layer.folded", lambda self, chosen: torch.zeros(1).numpy())
    with pytest.raises(ValueError, match="its code with fewer channels differs by"):
        compact(model, torch.randn(2, 3))


def test_refused_before_anything_is_done():
    with pytest.raises(ValueError, match=r"in training mode: call model\.eval\(\)"):
        compact(nn.Linear(2, 2), torch.randn(1, 2))
    with pytest.raises(ValueError, match="fails on the example"):
        compact(nn.Linear(2, 2).eval(), torch.randn(1, 3))

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"torch\.export cannot trace this model"):
        compact(Branching().eval(), torch.randn(1, 3))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b(F.relu(self.a(x))) * self.calls


def test_what_a_network_counts_stays_as_it_is():
    model = Counting().eval()
    with torch.no_grad():
        model.a.weight[1] = 0
    done = compact(model, torch.randn(2, 3))
    assert done.after < done.before
    assert model.calls == done.module.calls == 0


class Unbiased(nn.Linear):
    """Has no use for a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def test_a_layer_with_a_forward_of_its_own_gets_no_bias():
    model = layers(nn.Linear(3, 4), nn.ReLU(), Unbiased(4, 2))
    with torch.no_grad():
        model[0].weight[1:3], model[0].bias[1:3] = 0, 0.5
    done = compact(model, torch.randn(2, 3))
    assert done.module[0].weight.shape == (3, 3)  # one constant stays for both
    assert done.left == (Left("0", 1, "a constant that 2 pads with zeros or has no bias for"),)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
def test_weights_that_hooks_compute_stay():
    model = layers(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    prune.random_unstructured(model[2], "weight", 0.5)
    model(torch.randn(1, 3))
    with torch.no_grad():
        model[0].weight[1] = 0
    assert compact(model, torch.randn(2, 3)).left[0].why == "a weight that is computed stays as it is"


def test_the_model_is_not_changed():
    model = sparse_(KNOWN["resnet8"]((1, 16, 16), 10, seed=0), 0.02)
    model.fc.weight.requires_grad_(False)
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    before = copy.deepcopy(model.state_dict())
    state, ids = torch.get_rng_state(), [id(p) for p in model.parameters()]
    done = compact(model, torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert ids == [id(p) for p in model.parameters()]
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training
    assert model.conv.weight.grad is not None
    assert all(p.grad is None for p in done.module.parameters())
    assert not done.module.fc.weight.requires_grad
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in done.module.parameters()}
