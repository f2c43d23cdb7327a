"""What every scorer promises, found by walking the package."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial

import pytest
import torch
from pruning_methods import called_with, public_classes
from torch import nn

from sparsight.model import masks as m
from sparsight.pruning.rescale import ScoredAt
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.identity import describe
from sparsight.types import Scorer

OF_ANOTHER = {"ScoredAt": ScoredAt(Magnitude())}
"""Scorers that are made of one; all others are made without arguments."""


def scorers() -> list[Callable[[], Scorer]]:
    """What makes each scorer of `sparsight.pruning`; a scorer is told by what it is called with."""
    return [made(kind) for kind in public_classes() if called_with(kind)[:3] == ["model", "masks", "batches"]]


def made(kind: type) -> Callable[[], Scorer]:
    return partial(dataclasses.replace, OF_ANOTHER[kind.__name__]) if kind.__name__ in OF_ANOTHER else kind


def name_of(kind: Callable[[], Scorer]) -> str:
    return type(kind()).__name__


def test_scorers_are_found():
    assert {name_of(kind) for kind in scorers()} >= {
        "Magnitude", "Random", "SNIP", "GraSP", "SynFlow", "MBP", "SiPP", "ScoredAt",
    }  # fmt: skip


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
        )
    model[4].eval()
    return model.to(dtype)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 1, 6, 6, generator=g), torch.randint(0, 3, (8,), generator=g)) for _ in range(2)]


@pytest.mark.parametrize("kind", scorers(), ids=name_of)
class TestEveryScorer:
    def test_keys_shapes_and_values(self, kind):
        model = network()
        masks = m.dense(model)
        scores = kind()(model, masks, batches())
        assert list(scores) == list(masks)
        for name, score in scores.items():
            assert score.shape == masks[name].shape
            assert score.is_floating_point()
            assert not score.requires_grad
            assert torch.isfinite(score[masks[name]]).all()

    def test_leaves_the_model_and_the_random_state_bit_identical(self, kind):
        model = network()
        model(batches()[0][0]).sum().backward()
        state = copy.deepcopy(model.state_dict())
        grads = {n: p.grad.clone() for n, p in model.named_parameters()}
        flags = [x.training for x in model.modules()]
        before = torch.get_rng_state()
        kind()(model, m.dense(model), batches())
        assert torch.equal(before, torch.get_rng_state())
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters())
        assert [x.training for x in model.modules()] == flags
        assert not any(x._forward_hooks or x._forward_pre_hooks or x._backward_hooks for x in model.modules())

    def test_is_deterministic_and_does_not_alias_the_weights(self, kind):
        model = network()
        masks = m.dense(model)
        first, second = kind()(model, masks, batches()), kind()(model, masks, batches())
        storage = {p.untyped_storage().data_ptr() for p in model.parameters()}
        for name in masks:
            assert torch.equal(first[name], second[name])
            assert first[name].untyped_storage().data_ptr() not in storage

    def test_is_a_frozen_value(self, kind):
        scorer = kind()
        assert isinstance(scorer, Scorer)
        assert dataclasses.is_dataclass(scorer)
        assert kind() == scorer
        assert describe(kind()) == describe(scorer)
        with pytest.raises(dataclasses.FrozenInstanceError):
            scorer.anything = 1

    def test_refuses_masks_of_another_model(self, kind):
        with pytest.raises(ValueError, match="no parameter 'other'"):
            kind()(network(), {"other": torch.ones(2, dtype=torch.bool)}, batches())
