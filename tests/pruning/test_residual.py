"""Stable ResNet: golden values, growth with depth, networks of users, and what stays as it was."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.measure.criticality import initialise_
from sparsight.model import masks
from sparsight.pruning import residual_branches, stable_resnet
from sparsight.pruning.stable_resnet import is_stable, scales
from sparsight.zoo import networks as zoo

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "robust_pai_golden.json").read_text())["stable_resnet"]


class Residual(nn.Module):
    """x + W relu(x), as in theory."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lin(F.relu(x))


def theory(width: int, blocks: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width, bias=False), *(Residual(width) for _ in range(blocks)))


def small(norm: bool = True) -> nn.Module:
    return zoo.resnet8((1, 8, 8), 4, norm=norm, seed=0).eval()


def test_golden():
    model = theory(4, 3).double()
    i, j = torch.arange(4.0).double()[:, None], torch.arange(4.0).double()[None]
    for level, parameter in enumerate(model.parameters()):
        parameter.data = torch.cos(0.8 * (level + 1) * (i + 1) + 0.6 * (j + 1) + 0.2 * i * j * level)
    x = torch.tensor([[0.5, -1.0, 0.25, 2.0]]).double()
    assert torch.allclose(model(x)[0], torch.tensor(GOLDEN["standard_s1"], dtype=torch.float64), rtol=1e-13)
    scaled = stable_resnet(model)
    assert torch.allclose(scaled(x)[0], torch.tensor(GOLDEN["stable_s_1_over_sqrt3"], dtype=torch.float64), rtol=1e-13)
    assert torch.allclose(stable_resnet(model, fold=True)(x), scaled(x), rtol=1e-13)
    assert torch.allclose(model(x)[0], torch.tensor(GOLDEN["standard_s1"], dtype=torch.float64), rtol=1e-13)


def test_scales():
    assert scales(9) == pytest.approx([1 / 3] * 9)
    assert scales(5, "decreasing") == pytest.approx(GOLDEN["decrease_scaling"]["first5"], rel=1e-14)
    with pytest.raises(ValueError, match="blocks must be at least 1, got 0"):
        scales(0)
    with pytest.raises(ValueError, match="kind must be one of .*, got 'none'"):
        scales(3, "none")


@pytest.mark.parametrize("blocks", [4, 10])
def test_growth_with_depth(blocks):
    """E[y^2] grows by 1 + sigma_w^2 / 2 a block, by 1 + sigma_w^2 / (2 L) in a Stable ResNet: 2 and 1 + 1/L here."""
    x = torch.randn(20, 200, generator=torch.Generator().manual_seed(0))
    found = [[], []]
    for seed in range(20):
        model = initialise_(theory(200, blocks), math.sqrt(2), seed=seed)
        start = model[0](x).double().square().mean().item()
        for growths, net in zip(found, (model, stable_resnet(model)), strict=True):
            growths.append(net(x).double().square().mean().item() / start)
    for growths, growth in zip(found, (2.0**blocks, (1 + 1 / blocks) ** blocks), strict=True):
        assert sum(growths) / 20 == pytest.approx(growth, rel=0.15)


def test_every_layer_of_a_residual_network_has_the_same_second_moment():
    """Theorem 2: m^l does not depend on l in a network of residual blocks."""
    model = initialise_(theory(400, 12), 1.0, seed=0)
    x = torch.randn(1, 400, generator=torch.Generator().manual_seed(1))
    model(x).sum().backward()
    moments = [(block.lin.weight * block.lin.weight.grad).square().mean().item() for block in list(model)[1:]]
    assert max(moments) / min(moments) < 1.6


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("make", "blocks"), [(zoo.resnet8, 3), (zoo.resnet20, 9), (zoo.resnet32, 15)])
def test_the_zoo_has_the_same_networks(make, blocks, norm):
    plain = make((1, 8, 8), 4, norm=norm, seed=0).eval()
    own = make((1, 8, 8), 4, norm=norm, stable=True, seed=0).eval()
    assert len(residual_branches(plain)) == blocks
    assert [n for n, _ in own.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), plain.parameters(), strict=True))
    assert any(isinstance(m, nn.BatchNorm2d) for m in plain.modules()) is norm
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(own(x), stable_resnet(plain)(x), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(own(x), plain(x), rtol=1e-2)
    assert is_stable(own)
    assert not is_stable(plain)


def test_a_preactivation_network():
    from sparsight.zoo.networks.resnet import PreActivationResNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = PreActivationResNet(1, (4, 8), (2, 1), 3).eval()
    assert residual_branches(plain) == ("stages.0.0.conv2", "stages.0.1.conv2", "stages.1.0.conv2")
    own = copy.deepcopy(plain)
    for stage in own.stages:
        for block in stage:
            block.branch_scale = 3**-0.5
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(own(x), stable_resnet(plain)(x), rtol=1e-5)


def test_what_stays_as_it_was():
    model = small()
    state, hooks = copy.deepcopy(model.state_dict()), [len(m._forward_hooks) for m in model.modules()]
    made = stable_resnet(model)
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert type(made) is type(model)
    assert list(made.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in made.state_dict().items())
    assert list(masks.dense(made)) == list(masks.dense(model))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(again(x), made(x))
    made.load_state_dict(state)


def test_named_branches_and_refusals():
    model = small()
    found = stable_resnet(model, ["blocks.*.bn2"])
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(x), stable_resnet(model)(x))
    with pytest.raises(ValueError, match="is already a Stable ResNet"):
        stable_resnet(found)
    with pytest.raises(ValueError, match="is already a Stable ResNet"):
        stable_resnet(zoo.resnet8(stable=True, seed=0))
    with pytest.raises(ValueError, match=r"pattern 'layers.\*' matches no module"):
        stable_resnet(model, ["layers.*"])
    with pytest.raises(ValueError, match="no residual branch found in MLP: name the last module"):
        stable_resnet(zoo.mlp(seed=0))
    with pytest.raises(ValueError, match="fold works only for layers and batch norms, got 'blocks.0'"):
        stable_resnet(model, ["blocks.0"], fold=True)


def test_folding_computes_the_same_at_first_and_trains_otherwise():
    model = small()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    hooked, folded = stable_resnet(model), stable_resnet(model, fold=True)
    assert torch.allclose(hooked(x), folded(x), rtol=1e-4, atol=1e-6)
    for net in (hooked, folded):
        net(x).square().sum().backward()
    last = "blocks.2.bn2"
    ratio = folded.get_submodule(last).weight.grad / hooked.get_submodule(last).weight.grad
    assert torch.allclose(ratio, torch.full_like(ratio, math.sqrt(3)), rtol=1e-3)


def test_a_projection_shortcut_is_not_a_branch():
    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
            self.down = nn.Conv2d(inputs, outputs, 1)
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.drop(self.conv2(torch.relu(self.conv1(x))))
            y += self.down(x)
            return torch.relu(y)

    assert residual_branches(nn.Sequential(Block(1, 2), Block(2, 2))) == ("0.conv2", "1.conv2")


class Blocks(nn.Module):
    """Two layers, and a forward that calls them as it likes."""

    def __init__(self, forward, calls: int = 1) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.own, self.calls = forward, calls

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.calls):
            x = self.own(self, x)
        return x


def two(m: Blocks, x: Tensor) -> Tensor:
    return m.b(F.relu(m.a(x)))


def test_a_block_counts_as_often_as_it_is_called():
    model, x = Blocks(lambda m, x: x + two(m, x), calls=16), torch.randn(2, 3)
    for made in (stable_resnet(model), stable_resnet(model, ["b"])):
        expected = model.stem(x)
        for _ in range(16):
            expected = expected + two(model, expected) / 4
        assert torch.allclose(made(x), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="'b' ends several branches with different factors"):
        stable_resnet(model, kind="decreasing")


@pytest.mark.parametrize(
    ("forward", "branches"),
    [
        (lambda m, x: x + two(m, x) + m.c(x), ("b", "c")),
        (lambda m, x: x + F.dropout(two(m, x), 0.1, m.training), ("b",)),
        (lambda m, x: x + two(m, x).reshape(-1, 4) * 0.5, ("b",)),
    ],
)
def test_every_branch_is_found(forward, branches):
    model = Blocks(forward)
    assert residual_branches(model) == branches
    stable_resnet(model)


def test_a_branch_that_is_a_sum_is_one_block():
    model, x = Blocks(lambda m, x: x + (m.a(x) + m.b(x)), calls=4), torch.randn(2, 3)
    assert residual_branches(model) == ("a", "b")
    expected = model.stem(x)
    for _ in range(4):
        expected = expected + (model.a(expected) + model.b(expected)) / 2
    assert torch.allclose(stable_resnet(model)(x), expected, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_scaled_is_said():
    model = Blocks(lambda m, x: x + F.relu(two(m, x)))
    with pytest.raises(
        ValueError, match=r"that of stem \+ relu, which ends in relu does not end in a single module; name"
    ):
        stable_resnet(model)
    with pytest.raises(ValueError, match="the branch that ends in c, which is called elsewhere too"):
        stable_resnet(Blocks(lambda m, x: x + m.c(F.relu(m.c(x)))))
    for bent in (lambda y: y * y, lambda y: 1 / y):
        assert residual_branches(Blocks(lambda m, x, bent=bent: x + bent(two(m, x)))) == ()
    mixed = Blocks(lambda m, x: m.a(x + two(m, x)) + m.c(x + two(m, x)))
    with pytest.warns(
        UserWarning, match=r"not scaled, because both sides have the same number of layers: a \+ c; .*branches="
    ):
        stable_resnet(mixed)
    with pytest.raises(TypeError, match=r"branches must be a sequence of patterns, such as \['1.f'\], got '1.f'"):
        stable_resnet(model, "1.f")
