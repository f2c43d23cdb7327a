"""Optimisers that masks are held through: all of the study's table, wrappers, zero eps, gradients written later."""

from __future__ import annotations

import copy
import csv

import pytest
import torch
from loops import by_hand, in_block, loss_of, net, plus_zero, same, sgd, some
from study_files import STUDIES, study_modules
from torch import nn

from sparsight import held, verify
from sparsight.model.layout import clear_grads_
from sparsight.model.stepping import elementwise, family, keeps_zeros

study = study_modules("held", "optimizers", "table")


@pytest.mark.parametrize(
    ("way", "each"), [("plain", 1), ("accumulation", 4), ("autocast bf16", 4), ("bf16 weights", 4)]
)
def test_every_optimizer_of_the_table(study, way, each):
    """The study's table, in parts: +0.0 after every step, in the average too, and kept weights right to the bit."""
    found = {name: study.table.cell(name, way) for name in list(study.optimizers.OPTIMIZERS)[::each]}
    assert len(found) * each >= 32
    assert {name: result for name, result in found.items() if result != "held"} == {}


@pytest.mark.parametrize("name", ["AdamW", "Muon + SGD", "Lookahead of SGD"])
def test_compiled_and_in_parallel(study, name):
    assert study.table.cell(name, "torch.compile") == "held"
    with study.table.alone():
        assert study.table.cell(name, "DDP") == "held"


def test_the_table_is_of_these_optimizers(study):
    lines = (STUDIES / "held" / "cells.csv").read_text().splitlines()[1:]
    rows = list(csv.reader(lines))
    assert [(name, way) for name, way, _ in rows] == [
        (name, way) for name in study.optimizers.OPTIMIZERS for way in study.table.WAYS
    ]
    assert {result for *_, result in rows} == {"held"}
    page = (STUDIES / "held" / "README.md").read_text()
    for name in study.optimizers.OPTIMIZERS:
        assert f"| {name} |" + " held |" * len(study.table.WAYS) in page


def test_the_table_tells_a_weight_that_is_not_held(study, monkeypatch):
    monkeypatch.setattr("sparsight.model.own_loop.Holding._after", lambda *_: None)
    assert "are not +0.0 after the step" in study.table.cell("Adam, eps 0", "plain")
    assert "are not +0.0 after the step" in study.table.cell("Lookahead of AdamW, no Optimizer", "plain")
    monkeypatch.undo()
    monkeypatch.setattr("sparsight.model.own_loop.Holding._watch", lambda *_: None)
    assert "kept weights of features.0.weight differ" in study.table.cell("LBFGS, strong Wolfe", "plain")


def test_a_step_that_runs_no_hooks_is_held_and_given_back(study):
    """Wrappers without `Optimizer.__init__`, with the dictionaries of hooks but not the hooked step; plain objects."""

    class Timm(study.optimizers.Lookahead):
        def __init__(self, optimizer) -> None:
            super().__init__(optimizer)
            self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}

    for kind in (study.optimizers.Lookahead, Timm, study.optimizers.PrivateLookahead):
        model = net()
        wrapper = kind(sgd(model))
        assert [type(each).__name__ for each in family(wrapper)] == [kind.__name__, "SGD"]
        with held(model, masks := some(model), wrapper):
            for _ in range(4):
                wrapper.zero_grad()
                loss_of(model).backward()
                wrapper.step()
                verify(model, masks)
        assert "step" not in vars(wrapper)
        wrapper.step()


def test_a_learning_rate_schedule_may_begin_before_the_block_or_inside(study):
    for inside in (False, True):
        model = net()
        optimizer = study.optimizers.Lookahead(sgd(model))
        scheduler = None if inside else torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        with held(model, masks := some(model), optimizer):
            scheduler = scheduler or torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
                scheduler.step()
                verify(model, masks)
        assert optimizer.param_groups[0]["lr"] == 0.1 * 0.5**3
        with torch.no_grad():
            model[4].weight.fill_(1.0)
        loss_of(model).backward()
        optimizer.step()
        assert model[4].weight[~masks["4.weight"]].abs().min() > 0  # no longer held


def test_a_step_put_on_the_object_itself_is_held():
    model = net()
    masks, optimizer = some(model), sgd(model)
    inner = optimizer.step

    def noisy() -> None:
        inner()
        for p in model.parameters():
            p.data.add_(1.0)

    optimizer.step = noisy
    with held(model, masks, optimizer):
        loss_of(model).backward()
        optimizer.step()
        verify(model, masks)
    assert optimizer.step is noisy


ZERO_EPS = {
    "Adam": {},
    "AdamW": {"amsgrad": True},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Adagrad": {},
    "Adadelta": {"lr": 1.0},
    "RMSprop": {"momentum": 0.9},
}


@pytest.mark.parametrize("kind", ZERO_EPS)
def test_eps_of_zero(kind):
    """0 / 0: a step makes pruned weights NaN. They are +0.0 after it, and what is remembered of them is not NaN."""
    model = net()
    masks = some(model)
    optimizer = getattr(torch.optim, kind)(model.parameters(), **{"lr": 0.01, "eps": 0.0, **ZERO_EPS[kind]})
    assert not keeps_zeros(optimizer)
    assert keeps_zeros(getattr(torch.optim, kind)(model.parameters(), lr=0.01))
    with held(model, masks, optimizer):
        for number in range(3):
            optimizer.zero_grad()
            loss_of(model, number).backward()
            optimizer.step()
            verify(model, masks)
    for name, mask in masks.items():
        for key, value in optimizer.state[model.get_parameter(name)].items():
            if value.shape == mask.shape:
                assert plus_zero(value[~mask]), (name, key)


def test_eps_below_the_weights_precision_counts_as_zero():
    for dtype, keeps in ((torch.float16, False), (torch.bfloat16, True), (torch.float32, True)):
        model = net().to(dtype)
        assert keeps_zeros(torch.optim.Adam(model.parameters(), eps=1e-8)) is keeps
    assert keeps_zeros(torch.optim.Adam(net().half().parameters(), eps=1e-4))


@pytest.mark.parametrize("name", ["Lookahead of SGD", "SAM of SGD, step(closure)", "LBFGS, strong Wolfe"])
def test_wrappers_do_not_count_as_keeping_zeros(study, name):
    assert not keeps_zeros(study.optimizers.OPTIMIZERS[name](net()))


@pytest.mark.parametrize("way", ["data", "numpy", "replaced", "in place"])
@pytest.mark.parametrize("kind", ["sgd", "adam", "lars"])
def test_gradients_that_are_written_after_they_were_masked(study, kind, way):
    """Torch counts no writes through `.data` or numpy. Pruned weights are +0.0 all the same, and kept ones right."""

    def made(model):
        if kind == "lars":
            return study.optimizers.Lars(model.parameters(), 0.02)
        return sgd(model) if kind == "sgd" else torch.optim.Adam(model.parameters(), 0.01)

    def noise(model):
        g = torch.Generator().manual_seed(5)
        for p in model.parameters():
            extra = torch.randn(p.shape, generator=g)
            if way == "data":
                p.grad.data.add_(extra)
            elif way == "numpy":
                p.grad.numpy()[...] += extra.numpy()
            elif way == "replaced":
                p.grad = p.grad + extra
            else:
                p.grad.add_(extra)

    one, other = net(), net()
    masks, first, second = some(one), made(one), made(other)
    in_block(one, masks, first, 4, after_backward=lambda number: noise(one))

    def noisy(model, number):
        loss_of(model, number).backward()
        noise(model)
        return torch.zeros((), requires_grad=True)

    by_hand(other, masks, second, 4, loss_of=noisy)
    assert same(one, other)
    for name, mask in masks.items():
        for value in first.state[one.get_parameter(name)].values():
            assert value.shape != mask.shape or plus_zero(value[~mask])


def test_gradients_untouched_since_are_not_masked_again(monkeypatch):
    """What makes `held` cheap: one pass over the gradients, as they come, and one over the weights."""
    model = net()
    masks, optimizer, passes = some(model), sgd(model), []

    def counted(holds):
        passes.append(len(holds))
        clear_grads_(holds)

    monkeypatch.setattr("sparsight.model.own_loop.clear_grads_", counted)
    with held(model, masks, optimizer):
        for touch in (False, True):
            optimizer.zero_grad()
            loss_of(model).backward()
            if touch:
                nn.utils.clip_grad_norm_(model[4].parameters(), 1e-3)
            optimizer.step()
    assert passes == [1] * (2 * len(masks) + 1)  # each as it comes, and the one that the clip has written


def test_gradients_are_shown_after_each_closure():
    """With LBFGS a step takes many gradients: each is shown dense, then masked."""
    model = net()
    masks, optimizer, seen = some(model), torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    def look(which: nn.Module) -> None:
        seen.append(float(which[4].weight.grad[~masks["4.weight"]].abs().max()))

    other = net()
    with held(model, masks, optimizer, on_gradients=look):
        optimizer.step(closure)
        optimizer.step(closure=closure)
        verify(model, masks)
    assert len(seen) >= 6
    assert min(seen) > 0
    second = torch.optim.LBFGS(other.parameters(), 0.1, max_iter=3)
    with held(other, masks, second):
        for _ in range(2):

            def again() -> torch.Tensor:
                second.zero_grad()
                loss = loss_of(other)
                loss.backward()
                return loss

            second.step(again)
    assert same(model, other)


def test_a_gradient_scaler():
    model = net()
    masks, optimizer, scaler = some(model), torch.optim.Adam(model.parameters(), 0.01), torch.amp.GradScaler("cpu")
    other = net()
    plain = torch.optim.Adam(other.parameters(), 0.01)
    with held(model, masks, optimizer):
        for number in range(3):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, number)).backward()
            scaler.step(optimizer)
            scaler.update()
            verify(model, masks)
    by_hand(other, masks, plain, 3)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_compiled_backward():
    """Where torch compiles the backward pass too, masking gradients is left as it is."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    other = copy.deepcopy(model)
    masks, optimizer, second = some(model), sgd(model), sgd(other)

    def loss(model: nn.Module, number: int) -> torch.Tensor:
        return model(torch.linspace(-1, 1, 15).reshape(3, 5) + number).square().sum()

    train = torch.compile(lambda number: loss(model, number).backward(), backend="aot_eager")
    with held(model, masks, optimizer):
        for number in range(3):
            optimizer.zero_grad()
            with torch._dynamo.config.patch(compiled_autograd=True):
                train(number)
            assert all(plus_zero(model.get_parameter(name).grad[~mask]) for name, mask in masks.items())
            optimizer.step()
            verify(model, masks)
    torch.compiler.reset()
    by_hand(other, masks, second, 3, loss_of=loss)
    assert all(torch.allclose(x, y, rtol=1e-5) for x, y in zip(model.parameters(), other.parameters(), strict=True))


def test_a_compiled_step():
    model = net()
    masks, optimizer = some(model), sgd(model)
    step = torch.compile(optimizer.step, backend="eager")
    with held(model, masks, optimizer):
        for number in range(3):
            optimizer.zero_grad()
            loss_of(model, number).backward()
            step()
            verify(model, masks)
    torch.compiler.reset()


def test_what_writes_weights_after_a_step_does_not_count_as_elementwise():
    model = net()
    optimizer = sgd(model)
    assert elementwise(optimizer)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert elementwise(optimizer)
    hook = optimizer.register_step_post_hook(lambda *_: None)
    assert not elementwise(optimizer)
    hook.remove()
    optimizer.step = lambda: None
    assert not keeps_zeros(optimizer)
