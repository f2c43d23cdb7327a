"""What every stopping rule promises, found by walking the package."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

import sparsight.train.stop
from sparsight.measure.flow import probe
from sparsight.model import hold as h
from sparsight.model import masks as m
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.identity import describe
from sparsight.records.packing import pack_state, unpack_state
from sparsight.records.record import dumps, from_json
from sparsight.train.observation import Observation
from sparsight.train.stop import (
    AllOf,
    AnyOf,
    AtLeast,
    Context,
    FixedEpochs,
    FlowPlateau,
    GradientConsistent,
    InformationConsistent,
    MaskStable,
    Patience,
    Reference,
    StoppingRule,
    check_rule,
)
from sparsight.types import Split

COMBINED = {
    "AllOf": lambda: AllOf(MaskStable(), GradientConsistent()),
    "AnyOf": lambda: AnyOf(InformationConsistent(reference="parent"), FlowPlateau("gradient")),
    "Patience": lambda: Patience(InformationConsistent(reduction="signed", norm="l2", reference="warmup"), 2),
    "AtLeast": lambda: AtLeast(FlowPlateau(reduction="matrix"), epochs=1.5),
}
MORE = [
    GradientConsistent(statistic="literal", norm="l2", reference="warmup"),
    GradientConsistent(statistic="ema"),
    GradientConsistent(statistic="total", reference="best"),
    FlowPlateau("gradient", statistic="ema"),
    FixedEpochs(2.0),
]


def rules() -> list[StoppingRule]:
    found = []
    for info in pkgutil.iter_modules(sparsight.train.stop.__path__):
        module = importlib.import_module(f"sparsight.train.stop.{info.name}")
        found += [
            COMBINED.get(name, value)()
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
            and StoppingRule in value.__mro__[1:]
        ]  # fmt: skip
    return [*found, *MORE]


def test_rules_are_found():
    names = {type(rule).__name__ for rule in rules()}
    assert names >= {
        "FixedEpochs", "AccuracyRecovery", "LossPlateau", "PQIStable", "MaskStable", "InformationConsistent",
        "GradientConsistent", "FlowPlateau", "AllOf", "AnyOf", "Patience", "AtLeast",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted({type(rule).__name__ for rule in rules()}))
def test_every_rule_is_exported_and_documented(name):
    assert name in sparsight.train.stop.__all__, f"publish {name} in sparsight/train/stop/__init__.py"
    page = (Path(__file__).parents[2] / "docs" / "stopping.md").read_text()
    assert f"`{name}(" in page, f"docs/stopping.md lacks {name}"


def network(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 3),
        )  # fmt: skip
    model[4].eval()
    return model


def context(step: int = 1, seen: tuple[Observation, ...] = (), gradients: float = 1.0) -> Context:
    g = torch.Generator().manual_seed(5)
    split = Split(torch.randn(40, 1, 6, 6, generator=g), torch.randint(0, 3, (40,), generator=g))
    model = network()
    model(split.x).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + 0.1 * step).add_(0.01 * step)
    masks = Shrink(0.3)(Magnitude()(model, m.dense(model), ()), m.dense(model))
    h.apply_(model, masks)
    ema = {name: gradients + 0.1 * i for i, name in enumerate(masks)}
    values = {f"value:gradient flow (ema), {name}": 1.0 for name in masks}
    whole = {name: torch.ones_like(mask) for name, mask in masks.items()}
    there = Reference(1, copy.deepcopy(network(4).state_dict()), whole, 0.8, values)
    return Context(
        model, masks, 2, Observation(float(step), 10 * step, validation_loss=0.5, validation_accuracy=0.7),
        validation=((split.x, split.y),), probe=probe(split, 30, batch_size=8).batches,
        references=dict.fromkeys(("warmup", "dense", "parent", "best"), there), score=Magnitude(),
        rounds=(Shrink(0.2),), examples=((split.x[:8], split.y[:8]),), gradients=ema, history=seen,
    )  # fmt: skip


def trained(rule: StoppingRule, evaluations: int = 3, resume_at: int | None = None) -> list[Observation]:
    """The history of a level as the loop makes it. At `resume_at` everything goes through the form on disk."""
    seen: list[Observation] = []
    memory = {}
    for step in range(1, evaluations + 1):
        here = context(step, tuple(seen), gradients=1.0 / step)
        values, memory = rule.measure(here, memory)
        seen.append(dataclasses.replace(here.observation, values=dict(values)))
        if step == resume_at:
            tensors, skeleton = pack_state(memory)
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            memory = unpack_state(tensors, json.loads(json.dumps(skeleton)))
            seen = [from_json(Observation, json.loads(dumps(o))) for o in seen]
    return seen


@pytest.mark.parametrize("rule", rules(), ids=lambda r: f"{type(r).__name__}-{getattr(r, 'statistic', '')}")
class TestEveryRule:
    def test_is_a_frozen_value_that_can_be_described(self, rule):
        assert isinstance(rule, StoppingRule)
        check_rule(rule, "stop")
        assert all(isinstance(source.name, str) for source in rule.sources)
        assert dataclasses.replace(rule) == rule
        assert copy.deepcopy(rule) == rule
        described = describe(rule)
        assert json.loads(json.dumps(described)) == described
        assert described["type"] == type(rule).__name__
        field = dataclasses.fields(rule)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(rule, field, None)
        assert rule.needs <= {"warmup", "dense", "parent", "best", "probe", "examples", "gf_ema"}

    def test_measuring_changes_nothing(self, rule):
        here = context()
        model = here.model
        state = copy.deepcopy(model.state_dict())
        grads = {n: p.grad.clone() for n, p in model.named_parameters()}
        kept = {n: mask.clone() for n, mask in here.masks.items()}
        there = {n: v.clone() for n, v in here.references["dense"].weights.items()}
        flags = [x.training for x in model.modules()]
        wants = [p.requires_grad for p in model.parameters()]
        # Not `random`: beartype, with which the tests check types, draws from it.
        drawn = torch.get_rng_state(), numpy.random.get_state()[1].copy()  # noqa: NPY002
        memory = {"foreign": torch.ones(2)}
        values, after = rule.measure(here, memory)
        assert torch.equal(drawn[0], torch.get_rng_state())
        assert numpy.array_equal(drawn[1], numpy.random.get_state()[1])  # noqa: NPY002
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters())
        assert all(torch.equal(mask, kept[n]) for n, mask in here.masks.items())
        assert all(torch.equal(v, there[n]) for n, v in here.references["dense"].weights.items())
        assert [x.training for x in model.modules()] == flags
        assert [p.requires_grad for p in model.parameters()] == wants
        assert not any(x._forward_hooks or x._forward_pre_hooks or x._backward_hooks for x in model.modules())
        assert list(memory) == ["foreign"]  # the memory given is not written to, and what it holds is passed on
        assert after["foreign"] is memory["foreign"]
        assert all(type(v) is float for v in values.values())

    def test_decides_on_numbers_alone(self, rule):
        seen = trained(rule)
        read = [from_json(Observation, json.loads(dumps(o))) for o in seen]
        before = copy.deepcopy(seen)
        for n in range(len(seen) + 1):
            said = rule.stop(seen[:n])
            assert said is None or (isinstance(said, str) and said)
            assert rule.stop(read[:n]) == said
            assert rule.stop(tuple(seen[:n])) == said
        assert rule.stop([]) is None
        assert seen == before

    def test_thresholds_are_on_record_with_their_distances(self, rule):
        for seen in trained(rule):
            kinds = {key.partition(":")[0] for key in seen.values}
            assert kinds <= {"value", "distance", "threshold", "reference"}
            distances = {k.partition(":")[2] for k in seen.values if k.startswith("distance:")}
            assert distances <= {k.partition(":")[2] for k in seen.values if k.startswith("threshold:")}

    def test_resuming_from_what_is_stored_gives_the_same_numbers(self, rule):
        whole = trained(rule)
        assert trained(rule) == whole
        for at in (1, 2):
            assert trained(rule, resume_at=at) == whole

    def test_without_anything_to_compare_with_it_measures_and_goes_on(self, rule):
        here = dataclasses.replace(context(), references={}, probe=(), rounds=(), gradients={})
        values, _ = rule.measure(here, {})
        assert not any(key.startswith("distance:") for key in values)
        assert rule.stop([dataclasses.replace(here.observation, values=values)]) is None
