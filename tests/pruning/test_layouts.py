"""Neuron scope, SiPP and rescaling go by the units of a layer, whatever way its weight lies in memory."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sparsight import dense
from sparsight.measure.flow import information_flow
from sparsight.model.masks import all_kept
from sparsight.model.weights import weights
from sparsight.pruning.allocate.fixed import Global, Shrink, Uniform
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.rescale import Rescale
from sparsight.pruning.score.grasp import GraSP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.mbp import MBP
from sparsight.pruning.score.random import Random
from sparsight.pruning.score.snip import SNIP
from sparsight.pruning.score.synflow import SynFlow
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.certificate.certify import certify
from sparsight.pruning.sipp.score import SiPP
from sparsight.recipes import sap
from sparsight.runs import run
from sparsight.types import Data, Scored, Split


class Conv1D(nn.Module):
    """A stand-in for transformers' linear layer, which has its weight the other way round."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        size = x.size()[:-1] + (self.nf,)  # noqa: RUF005 (what is traced cannot be unpacked)
        return torch.addmm(self.bias, x.reshape(-1, self.nx), self.weight).view(size)


class Experts(nn.Module):
    is_transposed = True

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,eio->bo", x, self.w)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(12, 4, generator=g), torch.randint(3, (12,), generator=g)


def pair() -> tuple[nn.Module, nn.Module]:
    """The same network of linear layers, and of those with the weight the other way round."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        linear = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3))
        other = nn.Sequential(Conv1D(16, 4), nn.ReLU(), Conv1D(9, 16), nn.ReLU(), Conv1D(3, 9))
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            there = linear.get_parameter(name)
            parameter.copy_(there.T if there.dim() == 2 else there)
    return linear, other


def turned(tensors) -> dict[str, Tensor]:
    return {name: x.T for name, x in tensors.items()}


def same(one, other) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert torch.equal(x, other[name].T), name


SCORERS = {
    "magnitude": Magnitude(), "mbp": MBP(), "snip": SNIP(), "grasp": GraSP(), "synflow": SynFlow(),
    "sipp": SiPP(points=12), "sipp mean": SiPP(points=12, reduction="mean"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCORERS)
def test_scores_are_those_of_the_linear_layers(name):
    linear, other = pair()
    first = SCORERS[name](linear, dense(linear), [batch()])
    second = SCORERS[name](other, dense(other), [batch()])
    assert isinstance(second, Scored)
    assert len(second.layouts) == 3
    for key, score in first.items():
        torch.testing.assert_close(second[key], score.T.contiguous())


ALLOCATORS = {
    "uniform": Uniform(0.4, scope="neuron"), "shrink": Shrink(0.4, scope="neuron"), "sap": SAP(scope="neuron"),
    "to a target": SAP(scope="neuron", target_density=0.3, exact=True), "sipp": SiPPDet(0.3),
    "sampled": SiPPRand(0.3), "as drawn": SiPPRand(0.3, exact=False), "hybrid": SiPPHybrid(0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOCATORS)
def test_what_is_kept_of_each_unit_is_what_the_linear_layers_keep(name):
    linear, other = pair()
    scorer = SiPP(points=12)
    first = scorer(linear, dense(linear), [batch()])
    second = scorer(other, dense(other), [batch()])
    facts = {
        k: dataclasses.replace(f, positive=f.positive.T, mean=f.mean.T, size=f.size.T) for k, f in first.facts.items()
    }
    second = dataclasses.replace(second, scores=turned(first), facts=facts)  # to the bit: their sums have another order
    plan = ALLOCATORS[name].plan(first, dense(linear))
    there = ALLOCATORS[name].plan(second, dense(other))
    assert there.groups == plan.groups
    same(plan.masks, there.masks)
    same(plan.multipliers or {}, there.multipliers or {})
    assert all(mask.is_contiguous() for mask in there.masks.values())


def test_refilling_goes_by_units_too():
    linear, other = pair()
    scorer = SiPP(points=12, propagate=True)
    first = scorer(linear, dense(linear), [batch()])
    second = scorer(other, dense(other), [batch()])
    facts = {
        k: dataclasses.replace(f, positive=f.positive.T, mean=f.mean.T, size=f.size.T) for k, f in first.facts.items()
    }
    second = dataclasses.replace(second, scores=turned(first), facts=facts)
    allocator = SiPPRand(0.1, refill=True)
    same(allocator(first, dense(linear)), allocator(second, dense(other)))


def test_certificates_are_those_of_the_linear_layers():
    linear, other = pair()
    found = []
    for model in (linear, other):
        masks = dense(model)
        scores = SiPP(points=12)(model, masks, [batch()])
        allocator = SiPPRand(0.5)
        plan, decision = allocator.plan(scores, masks), allocator.decide(scores, masks)
        found.append(certify(model, plan.masks, scores, [batch(1)], multipliers=plan.multipliers, decision=decision))
    for one, two in zip(found[0].layers, found[1].layers, strict=True):
        assert (one.kept, one.total, len(one.neurons)) == (two.kept, two.total, len(two.neurons))
        for a, b in zip(one.neurons, two.neurons, strict=True):
            assert (a.kept, a.total) == (b.kept, b.total)
            assert a.bound == pytest.approx(b.bound, rel=1e-4)
            assert a.measured == pytest.approx(b.measured, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("rescale", [Rescale(by="neuron"), Rescale(by="layer"), Rescale(gain="dense")], ids=repr)
def test_rescaling_goes_by_the_inputs_of_each_output(rescale):
    linear, other = pair()
    masks = Uniform(0.5, scope="neuron")(Magnitude()(linear, dense(linear)), dense(linear))
    first, second = rescale.factors(linear, masks), rescale.factors(other, turned(masks))
    for name, factor in first.items():
        both = [
            f.expand(shape)
            for f, shape in (
                (factor, linear.get_parameter(name).shape),
                (second[name], other.get_parameter(name).shape),
            )
        ]
        torch.testing.assert_close(both[1], both[0].T)


# -- rows of layers that no linear one stands for ----------------------------------------------------------------


LAYERS = {
    "transposed": lambda: nn.ConvTranspose1d(4, 6, 5),
    "transposed grouped": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "transposed depthwise": lambda: nn.ConvTranspose2d(4, 4, 3, groups=4),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "experts": lambda: Experts(),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "normed": lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 5), dim=1),
    "conv1d": lambda: Conv1D(6, 4),
}


def unit_weights(kind: str, x: Tensor) -> list[Tensor]:
    """The weights of each output unit, by a formula of their own for each kind."""
    if kind == "transposed grouped":
        return [x[2 * g : 2 * g + 2, j] for g in range(2) for j in range(3)]
    if kind == "transposed depthwise":
        return [x[g, 0] for g in range(4)]
    if kind in ("transposed", "normed", "conv1d"):
        return [x[:, j] for j in range(x.shape[1])]
    if kind == "experts":
        return [x[e, :, j] for e in range(3) for j in range(5)]
    return list(x)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scorer", [Magnitude(), Random(1)], ids=["magnitude", "random"])
def test_every_unit_keeps_its_share_and_its_largest(kind, scorer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LAYERS[kind]()
    full = dense(model)
    scores = scorer(model, full)
    kept = Uniform(0.5, scope="neuron")(scores, full)
    for name, mask in kept.items():
        for score, mine in zip(unit_weights(kind, scores[name]), unit_weights(kind, mask), strict=True):
            count = (score.numel() + 1) // 2
            assert int(mine.sum()) == count
            assert torch.equal(
                mine.flatten(), score.flatten() >= score.flatten().sort(descending=True).values[count - 1]
            )


@pytest.mark.parametrize("kind", LAYERS)
def test_fan_in_is_the_weights_of_an_output(kind):
    model = LAYERS[kind]()
    for name, score in MBP()(model, dense(model)).items():
        parameter = model.get_parameter(name).detach()
        inputs = unit_weights(kind, parameter)[0].numel()
        torch.testing.assert_close(score, parameter.abs() * inputs**0.5)


def test_layer_scope_takes_experts_one_by_one():
    model = Experts()
    with torch.no_grad():
        model.w.uniform_(1, 2, generator=torch.Generator().manual_seed(0))
        model.w *= torch.tensor([1.0, 1e-3, 1e3])[:, None, None]
    masks, scores = dense(model), Magnitude()(model, dense(model))
    plan = Shrink(0.25, scope="layer").plan(scores, masks)
    assert [(g.name, g.d, g.c) for g in plan.groups] == [(f"w[{e}]", 20, 5) for e in range(3)]
    assert plan.masks["w"].sum((1, 2)).tolist() == [15, 15, 15]
    assert Uniform(0.1)(scores, masks)["w"].sum((1, 2)).tolist() == [2, 2, 2]
    assert Global(density=0.75)(scores, masks)["w"].sum((1, 2)).tolist() == [20, 5, 20]
    single = {"w": scores["w"][2]}
    one = SAP(scope="layer").plan(scores, masks).groups[2]
    alone = SAP(scope="layer").plan(single, {"w": torch.ones(4, 5, dtype=torch.bool)}).groups[0]
    assert (one.name, one.index, one.c) == ("w[2]", alone.index, alone.c)
    shuffled = Shuffled(Shrink(0.25, scope="layer")).plan(scores, masks)
    assert int(shuffled.masks["w"].sum()) == 45


def test_vectors_and_single_numbers_have_rows_of_one_weight():
    model = nn.Linear(3, 4)
    model.scale = nn.Parameter(torch.tensor(2.0))
    masks = dense(model, include=["scale", "bias"])
    scores = Magnitude()(model, masks)
    for allocator in (SAP(scope="neuron"), Shrink(0.5, scope="neuron"), Uniform(0.5, scope="neuron")):
        plan = allocator.plan(scores, masks)
        assert {n: tuple(m.shape) for n, m in plan.masks.items()} == {"weight": (4, 3), "scale": (), "bias": (4,)}
        assert [g.name for g in plan.groups if g.name[0] in "sb"] == [*(f"bias[{i}]" for i in range(4)), "scale[0]"]
        assert all(bool(plan.masks[name].all()) for name in ("scale", "bias"))
    gone = Uniform(0.4, scope="neuron", min_keep=0)(scores, masks)
    assert not gone["scale"]
    assert not gone["bias"].any()


def test_plain_scores_are_read_with_outputs_first():
    scores = {"w": torch.arange(6.0).reshape(2, 3)}
    masks = {"w": torch.ones(2, 3, dtype=torch.bool)}
    assert Uniform(1 / 3, scope="neuron")(scores, masks)["w"].tolist() == [[False, False, True]] * 2
    with pytest.raises(ValueError, match="w"):
        Uniform(0.5, scope="neuron")({"w": torch.ones(2, 2)}, masks)


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix, self.head = nn.ConvTranspose1d(1, 6, 3), Conv1D(8, 36), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.mix(F.relu(self.up(x[:, None])).flatten(1))))


@pytest.mark.parametrize(
    "scorer",
    [None, lambda model, masks, batches: {n: p.detach().abs() for n, p in model.named_parameters() if n in masks}],
)
def test_a_run_in_neuron_scope_prunes_every_unit(scorer):
    x, y = batch()
    data = Data(name="t", train=Split(x, y), validation=Split(x, y))
    recipe = sap(scope="neuron", levels=1, epochs=1, batch_size=12, control=False)
    if scorer is not None:
        recipe = dataclasses.replace(recipe, score=scorer)
    model = Decoder()
    last = list(run(recipe, model, data, device="cpu"))[-1]
    names = [g.name for g in last.record.groups]
    assert names == [f"up.weight[{i}]" for i in range(6)] + [f"mix.weight[{i}]" for i in range(8)] + [
        f"head.weight[{i}]" for i in range(3)
    ]
    by_unit = [int(m.sum()) for m in last.masks["mix.weight"].T]
    assert by_unit == [g.d - g.c for g in last.record.groups if g.name.startswith("mix")]


# -- SiPP: what it refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "name", "kind"),
    [
        (nn.ConvTranspose1d(4, 3, 1), "weight", "ConvTranspose1d"),
        (nn.MultiheadAttention(4, 2), "in_proj_weight", "MultiheadAttention"),
        (Experts(), "w", "Experts"),
        (parametrizations.spectral_norm(nn.Linear(4, 3)), "parametrizations.weight.original", "computes its weight"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_sipp_names_what_it_cannot_score_and_how_to_go_on(layer, name, kind):
    model = nn.ModuleDict({"part": layer, "head": nn.Linear(4, 3)})
    full = f"part.{name}"
    with pytest.raises(TypeError, match=rf"SiPP cannot score '{full}': .*{kind}.*skip it with exclude=\('{full}',\)"):
        SiPP()(model, all_kept(model), [batch()])


def test_flows_see_the_layers_that_linear_ones_stand_for():
    linear, other = pair()
    one, two = (information_flow(model, [batch()]) for model in (linear, other))
    assert one.pairs == two.pairs == (("0", "2"), ("2", "4"))
    torch.testing.assert_close(one.values, two.values, rtol=1e-5, atol=1e-6)


def test_rescaling_names_what_it_leaves_as_it_is():
    model = nn.Sequential(
        Conv1D(8, 4), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 3)
    )
    masks = dense(model)
    with pytest.warns(
        UserWarning, match="because not in linear or convolution layers: 2.parametrizations.weight.original1"
    ):
        found = Rescale(by="layer", gain=1.0).factors(model, masks)
    assert found.keys() == {"0.weight", "4.weight"}
    assert weights(model)["2.parametrizations.weight.original1"].parametrised
    assert copy.deepcopy(model)(torch.zeros(1, 4)).shape == (1, 3)
