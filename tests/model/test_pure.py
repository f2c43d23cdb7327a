"""Functional calls and taps leave the model as it was, and see what the model sees."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sparsight.model.functional import evaluating, pure, tapped
from sparsight.model.loss import cross_entropy


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(8, 4, generator=g), torch.randint(0, 3, (8,), generator=g)


def test_the_loss_and_its_gradient_are_those_of_the_model():
    model, (x, y) = network(), batch()
    state = copy.deepcopy(model.state_dict())
    call = pure(model)
    params = {n: p.clone().requires_grad_() for n, p in call.params.items()}
    loss = call.loss(params, cross_entropy, (x, y))
    grads = torch.autograd.grad(loss, list(params.values()))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    expected = cross_entropy(model, (x, y))
    assert torch.equal(loss, expected)
    expected.backward()
    for g, p in zip(grads, model.parameters(), strict=True):
        torch.testing.assert_close(g, p.grad)


def test_parameters_given_anew_replace_the_models():
    model, (x, _) = network().eval(), batch()
    call = pure(model)
    zero = torch.zeros_like(call.params["3.weight"])
    out = call({"3.weight": zero}, x)
    assert torch.equal(out, call.params["3.bias"].expand(8, 3))
    with pytest.raises(ValueError, match=r"no parameter 'nowhere': its parameters are 0\.weight"):
        call({"nowhere": zero}, x)


def test_wrapped_models_are_called_by_plain_names():
    model, (x, _) = network().eval(), batch()
    call = pure(AveragedModel(model))
    assert list(call.params) == [n for n, _ in model.named_parameters()]
    assert torch.equal(call({}, x), model(x))


def test_tied_weights_are_given_once():
    a = nn.Linear(4, 4, bias=False)
    b = nn.Linear(4, 4, bias=False)
    b.weight = a.weight
    call = pure(nn.Sequential(a, b))
    assert list(call.params) == ["0.weight"]
    assert torch.equal(call({"0.weight": 2 * torch.eye(4)}, torch.ones(1, 4)), torch.full((1, 4), 4.0))


def test_evaluating_puts_every_flag_back():
    model = network()
    model[1].eval()
    seen = []

    def fail() -> None:
        with evaluating(model):
            seen.append(any(m.training for m in model.modules()))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False]
    assert [m.training for m in model.modules()] == [True, True, False, True, True]


def test_taps_see_layers_in_execution_order_and_go():
    model, (x, _) = network(), batch()
    seen = []
    with tapped({"b": model[3], "a": model[0]}, lambda name, module, inputs, output: seen.append((name, output))):
        out = model(x)
    assert [name for name, _ in seen] == ["a", "b"]
    assert seen[1][1] is out
    model(x)
    assert len(seen) == 2
    assert not any(m._forward_hooks for m in model.modules())
