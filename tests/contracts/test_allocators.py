"""What every allocator promises, in every scope it has; found by walking the package."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_methods import public_classes

from sparsight.pruning.allocate.fixed import Global, Shrink, Uniform
from sparsight.pruning.allocate.n_of_m import NofM
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.types import Allocator

ON_A_NETWORK = {"Rescaled"}
"""What needs scores that know their network: tests/pruning/test_rescaling.py."""

GIVEN = {"density": 0.3, "rate": 0.4, "allocator": Global(density=0.3)}
"""Values for the fields that an allocator is made with."""

DRAWN = (Shuffled, SiPPRand, SiPPHybrid)
"""Who leaves it to chance which weights stay."""


def allocators() -> list[Allocator]:
    """One of each kind, and of each scope."""
    kinds = [kind for kind in public_classes() if Allocator in kind.__mro__ and kind.__name__ not in ON_A_NETWORK]
    return [made for kind in kinds for made in (example(kind, scope) for scope in scopes(kind))]


def scopes(kind: type) -> tuple[str | None, ...]:
    return get_args(get_type_hints(kind)["scope"]) if "scope" in names_of_fields(kind) else (None,)


def names_of_fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def example(kind: type, scope: str | None) -> Allocator:
    given = GIVEN if scope is None else GIVEN | {"scope": scope}
    return kind(**{name: value for name, value in given.items() if name in names_of_fields(kind)})


ALLOCATORS = [
    *allocators(),
    Global(count=9, min_keep=0),
    NofM(0, 1),
    NofM(1, 3),
    Global(density=0.3, recover=True),
    SiPPDet(0.3, min_keep=0, recover=True),
    *(SAP(1.0, 2.0, eta=0.05, scope=scope) for scope in ("global", "layer", "neuron")),
    SAP(0.5, 1.0, gamma=3.0, target_density=0.4),
    *(SAP(1.0, 2.0, scope=scope, target_density=0.3, exact=True) for scope in ("global", "layer", "neuron")),
    *(Shrink(0.1, scope, target_density=0.3, exact=True) for scope in ("global", "layer", "neuron")),
]


def test_allocators_are_found():
    assert {type(allocator).__name__ for allocator in allocators()} >= {
        "Global", "Uniform", "Shrink", "SAP", "Shuffled", "SiPPDet", "SiPPRand", "SiPPHybrid", "NofM",
    }  # fmt: skip
    assert {(type(x), x.scope) for x in allocators() if hasattr(x, "scope")} == {
        *((kind, scope) for kind in (Shrink, SAP) for scope in ("global", "layer", "neuron")),
        (Uniform, "layer"), (Uniform, "neuron"),
    }  # fmt: skip
    assert {kind.__name__ for kind in public_classes()} > ON_A_NETWORK


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**31))
    g = torch.Generator().manual_seed(seed)
    few = draw(st.booleans())  # few distinct values: many ties
    scores = {}
    for name, shape in {"a.weight": (4, 5), "b.weight": (3, 4, 2), "c.weight": (2, 3)}.items():
        values = torch.randint(0, 3, shape, generator=g).float() if few else torch.rand(shape, generator=g) ** 3
        scores[name] = values
    masks = {name: torch.rand(s.shape, generator=g) < 0.95 for name, s in scores.items()}
    return scores, masks


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=repr)
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_every_allocator(allocator, case):
    scores, masks = case
    before = {n: (s.clone(), masks[n].clone()) for n, s in scores.items()}
    try:
        plan = allocator.plan(scores, masks)
    except ValueError as error:
        if isinstance(allocator, Uniform) and "cannot keep" in str(error):
            return  # fewer alive than a fixed budget asks for
        raise
    again = allocator(scores, masks)
    assert list(plan.masks) == list(masks)
    for name, mask in plan.masks.items():
        assert mask.dtype is torch.bool
        assert mask.shape == masks[name].shape
        assert torch.equal(mask, again[name])
        assert not allocator.monotone or not (mask & ~masks[name]).any()  # a subset
        assert torch.equal(scores[name], before[name][0])
        assert torch.equal(masks[name], before[name][1])
        had = torch.ones_like(mask) if getattr(allocator, "recover", False) else masks[name]
        kept, removed = scores[name][mask], scores[name][had & ~mask]
        floor = getattr(allocator, "min_keep", 0)
        assert int(mask.sum()) >= min(floor, int(masks[name].sum()))
        if len(kept) and len(removed) and not plan.floors and _ranked_inside_tensor(allocator):
            assert kept.min() >= removed.max()
    alive = sum(m.numel() if getattr(allocator, "recover", False) else int(m.sum()) for m in masks.values())
    assert alive - sum(int(m.sum()) for m in plan.masks.values()) == sum(group.c for group in plan.groups)
    assert sum(group.d for group in plan.groups) == alive


def _ranked_inside_tensor(allocator) -> bool:
    return getattr(allocator, "scope", "global") != "neuron" and not isinstance(allocator, (*DRAWN, NofM))


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=repr)
def test_every_allocator_is_a_frozen_value(allocator):
    assert isinstance(allocator, Allocator)
    assert dataclasses.replace(allocator) == allocator
    with pytest.raises(dataclasses.FrozenInstanceError):
        allocator.min_keep = 3


@pytest.mark.parametrize("allocator", ALLOCATORS, ids=repr)
def test_every_allocator_refuses_nan_and_foreign_masks(allocator):
    scores = {"a.weight": torch.rand(4, 5, generator=torch.Generator().manual_seed(0)), "b.weight": torch.ones(4, 4)}
    masks = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    with pytest.raises(ValueError, match="b.weight"):
        allocator.plan(scores | {"b.weight": torch.full((4, 4), float("nan"))}, masks)
    with pytest.raises((ValueError, KeyError), match="b.weight"):
        allocator.plan({"a.weight": scores["a.weight"]}, masks)
    with pytest.raises(ValueError, match=r"b.weight.*\(4, 5\)|b.weight.*shape"):
        allocator.plan(scores, masks | {"b.weight": torch.ones(4, 5, dtype=torch.bool)})
