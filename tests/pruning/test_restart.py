from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparsight.model.masks import dense, verify
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.restart import carry_on, rewind
from sparsight.types import Allocation


def net(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))


def trained(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(3):
        model(torch.randn(8, 1, 6, 6, generator=generator)).square().mean().backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= p.grad
    return model


def allocation(model: nn.Module) -> Allocation:
    generator = torch.Generator().manual_seed(7)
    return Allocation({n: torch.rand(m.shape, generator=generator) < 0.5 for n, m in dense(model).items()})


def test_rewind_twice_is_exact_buffers_too_and_by_value():
    model = net(0)
    point = copy.deepcopy(model.state_dict())
    plan = allocation(model)
    states = []
    for _ in range(2):
        trained(model)
        assert float(model.state_dict()["1.running_mean"].abs().sum()) > 0
        assert rewind(model, point, plan) is model
        states.append(copy.deepcopy(model.state_dict()))
    for key, value in point.items():
        mask = plan.masks.get(key)
        expected = value if mask is None else torch.where(mask, value, 0.0)
        assert torch.equal(states[0][key], expected)
        assert torch.equal(states[1][key], expected)
    verify(model, plan.masks)


def test_carry_on_keeps_what_was_trained():
    model = trained(net(0))
    before = copy.deepcopy(model.state_dict())
    plan = allocation(model)
    carry_on(model, {}, plan)
    for key, value in model.state_dict().items():
        mask = plan.masks.get(key)
        assert torch.equal(value, before[key] if mask is None else torch.where(mask, before[key], 0.0))


def test_multipliers_are_applied_before_the_mask():
    model = net(0)
    plan = allocation(model)
    before = model[3].weight.detach().clone()
    factors = {"3.weight": torch.full((4, 48), 2.0)}
    carry_on(model, {}, Allocation(plan.masks, multipliers=factors))
    assert torch.equal(model[3].weight.detach(), torch.where(plan.masks["3.weight"], 2 * before, 0.0))


def test_reinitialise_draws_fresh_weights_from_its_seed_alone():
    first, second, third = trained(net(0)), trained(net(1)), trained(net(0))
    plan = allocation(first)
    before = torch.get_rng_state()
    for model, seed in ((first, 5), (second, 5), (third, 6)):
        Reinitialise(seed)(model, {}, plan)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, second.state_dict()[k]) for k, a in first.state_dict().items())
    assert not torch.equal(first[3].weight, third[3].weight)
    assert float(first.state_dict()["1.running_mean"].abs().sum()) == 0
    verify(first, plan.masks)


def test_reinitialise_names_a_module_that_cannot_be_reset():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    model = nn.Sequential(nn.Linear(2, 2), Scale())
    with pytest.raises(ValueError, match=r"cannot reinitialise '1' \(Scale\)"):
        Reinitialise()(model, {}, Allocation(dense(model)))
