from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparsight import held
from sparsight.model import hold as h
from sparsight.model import masks as m
from sparsight.model import stepping
from sparsight.model.left_out import LeftOutWarning
from sparsight.numerics.select import keep_largest
from sparsight.pruning.score.random import Random


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 36, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        )


def sparse(model: nn.Module, density: float = 0.2, seed: int = 1) -> dict[str, torch.Tensor]:
    full = m.dense(model)
    kept = round(density * m.counts(full)[1])
    return dict(keep_largest(Random(seed)(model, full, ()), full, kept)[0])


def batch(seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(16, 1, 8, 8, generator=g), torch.randint(0, 3, (16,), generator=g)


def loss_of(model: nn.Module) -> torch.Tensor:
    x, y = batch()
    return nn.functional.cross_entropy(model(x), y)


def is_plus_zero(x: torch.Tensor) -> bool:
    return bool((x.contiguous().view(torch.int32 if x.element_size() == 4 else torch.int64) == 0).all())


def assert_held(model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    parameters = m.named(model)
    for name, mask in masks.items():
        pruned = parameters[name].detach()[~mask]
        assert len(pruned) > 0
        assert is_plus_zero(pruned), name
    m.verify(model, masks)


class TestDense:
    def test_linear_and_convolution_weights_only(self):
        model = nn.Sequential(
            nn.Embedding(5, 4),
            nn.Conv1d(4, 4, 1),
            nn.ConvTranspose2d(4, 4, 2),
            nn.LayerNorm(4),
            nn.BatchNorm1d(4),
            nn.Linear(4, 2),
        )
        with pytest.warns(LeftOutWarning, match=r"1 matrix-shaped tensor, 14.9 %.*\n  0.weight \(5×4, 14.9 %\)\n"):
            masks = m.dense(model)
        assert list(masks) == ["1.weight", "2.weight", "5.weight"]
        assert all(mask.dtype is torch.bool and mask.all() for mask in masks.values())
        assert masks["1.weight"].shape == (4, 4, 1)

    def test_include_adds_and_exclude_wins(self):
        model = nn.MultiheadAttention(8, 2)
        assert list(m.dense(model)) == ["in_proj_weight", "out_proj.weight"]
        assert list(m.dense(model, include="in_proj_bias")) == ["in_proj_weight", "in_proj_bias", "out_proj.weight"]
        assert list(m.dense(model, include=["in_proj_bias"], exclude=["*weight"])) == ["in_proj_bias"]
        with pytest.raises(ValueError, match="'nothing' matches no parameter"):
            m.dense(model, include="nothing")

    def test_a_tied_weight_counts_once_and_as_an_embedding(self):
        class Tied(nn.Module):
            def __init__(self, with_embedding: bool) -> None:
                super().__init__()
                self.first = nn.Embedding(4, 4) if with_embedding else nn.Linear(4, 4)
                self.second = nn.Linear(4, 4)
                self.second.weight = self.first.weight
                self.head = nn.Linear(4, 2)

        assert list(m.all_kept(Tied(True))) == ["head.weight"]
        assert list(m.dense(Tied(False))) == ["first.weight", "head.weight"]
        with pytest.raises(ValueError, match=r"'second.weight' is tied to 'first.weight'"):
            m.check(Tied(False), {"second.weight": torch.ones(4, 4, dtype=torch.bool)})

    def test_refusals(self):
        with pytest.raises(ValueError, match="BatchNorm1d has no prunable weights.*'weight', 'bias'"):
            m.dense(nn.BatchNorm1d(3))
        with pytest.raises(ValueError, match="has no shape yet"):
            m.dense(nn.Sequential(nn.LazyLinear(3)))

    @pytest.mark.parametrize("wrap", ["compile", "averaged", "parallel", "compile inside"])
    def test_names_behind_wrappers(self, wrap):
        model = net()
        plain = list(m.dense(model))
        if wrap == "compile":
            wrapped = torch.compile(model)
        elif wrap == "averaged":
            wrapped = AveragedModel(model)
        elif wrap == "parallel":
            wrapped = nn.DataParallel(model)
        else:
            model[4] = torch.compile(model[4])
            wrapped = model
        assert list(m.dense(wrapped)) == plain
        h.apply_(wrapped, sparse(net()))
        assert_held(wrapped, sparse(net()))

    def test_a_module_that_is_called_module_keeps_its_name(self):
        class Odd(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Linear(2, 2)

        assert list(m.dense(Odd())) == ["module.weight"]


GIVEN = """
import torch
from sparsight import apply_, bind, counts, dense, find_collapse, held, mask_grads_, verify
from sparsight.model import check, density
from sparsight.pruning.score.magnitude import Magnitude

model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
masks = "masks must be bool tensors by parameter name, got "
calls = [
    (lambda: density(model), masks + "Linear: dense(model) makes them"),
    (lambda: counts(model), masks + "Linear"),
    (lambda: find_collapse(model), masks + "Linear"),
    (lambda: density(list(dense(model))), masks + "list"),
    (lambda: held(model, model, optimizer).__enter__(), masks + "Linear"),
    (lambda: Magnitude()(model, model), masks + "Linear"),
    *((lambda call=call: call(model, model), masks + "Linear") for call in (check, verify, apply_, mask_grads_, bind)),
    (lambda: verify(dense(model), model), "the model must be an nn.Module, got dict"),
    (lambda: held(dense(model), model, optimizer).__enter__(), "the model must be an nn.Module, got dict"),
]
for number, (call, words) in enumerate(calls):
    try:
        call()
    except TypeError as error:
        assert words in str(error), (number, error)
    else:
        raise AssertionError(f"call {number} was not refused")
print(len(calls), "refused")
"""


class TestCheck:
    @pytest.mark.parametrize(
        ("masks", "error", "words"),
        [
            ({}, ValueError, "masks must hold at least one bool tensor"),
            ({"9.weight": torch.ones(1, dtype=torch.bool)}, ValueError, "no parameter '9.weight'"),
            ({"6.weight": torch.ones(3, 7, dtype=torch.bool)}, ValueError, r"must have shape \(3, 8\), got \(3, 7\)"),
            ({"6.weight": torch.ones(3, 8)}, TypeError, "must be torch.bool .*, got torch.float32"),
            ({"6.weight": [[True]]}, TypeError, "got list"),
        ],
    )
    def test_refuses(self, masks, error, words):
        with pytest.raises(
            (error, TypeError) if masks and isinstance(next(iter(masks.values())), list) else error
        ) as e:
            m.check.__wrapped__(net(), masks) if hasattr(m.check, "__wrapped__") else m.check(net(), masks)
        assert e.match(words)

    def test_says_what_masks_are_where_something_else_is_given(self):
        """In a process of its own: here annotations are checked before any function runs."""
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", GIVEN], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["13", "refused"]

    def test_density_is_exact(self):
        model = net()
        masks = sparse(model, 0.2)
        kept, total = m.counts(masks)
        assert total == 4 * 9 + 8 * 144 + 24
        assert m.density(masks) == kept / total
        with pytest.raises(ValueError, match="density needs masks"):
            m.density({})


class TestApply:
    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -1.0, -0.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_every_pruned_weight_becomes_plus_zero_and_no_other_changes(self, bad, dtype):
        model = nn.Linear(6, 5).to(dtype)
        mask = torch.zeros(5, 6, dtype=torch.bool)
        mask[1, 2] = mask[4, 5] = True
        kept = model.weight.detach()[mask].clone()
        with torch.no_grad():
            model.weight[~mask] = bad
        h.apply_(model, {"weight": mask})
        pruned = model.weight.detach()[~mask]
        assert (pruned == 0).all()
        assert not torch.signbit(pruned).any()
        assert torch.equal(model.weight.detach()[mask], kept)

    @pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
    def test_memory_layouts(self, layout):
        weight = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
        if layout == "channels_last":
            weight = weight.to(memory_format=torch.channels_last)
        elif layout == "transposed":
            weight = weight.permute(0, 1, 3, 2)
        else:
            weight = torch.randn(4, 6, 3, 6, generator=torch.Generator().manual_seed(0))[..., ::2]
        model = nn.Conv2d(6, 4, 3)
        model.weight = nn.Parameter(weight)
        mask = torch.rand(4, 6, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.3
        expected = torch.where(mask, weight, 0.0)
        h.apply_(model, {"weight": mask})
        assert torch.equal(model.weight.detach(), expected)
        assert model.weight.stride() == weight.stride()

    def test_gradients(self):
        model = net()
        masks = sparse(model)
        loss_of(model).backward()
        before = {name: p.grad.clone() for name, p in m.named(model).items()}
        with torch.no_grad():
            m.named(model)["6.weight"].grad[~masks["6.weight"]] = math.nan
        h.mask_grads_(model, masks)
        for name, p in m.named(model).items():
            expected = torch.where(masks[name], before[name], 0.0) if name in masks else before[name]
            assert torch.equal(p.grad, expected)

    def test_verify_names_the_weight(self):
        model, mask = nn.Linear(3, 2), torch.ones(2, 3, dtype=torch.bool)
        mask[1, 0] = False
        h.apply_(model, {"weight": mask})
        with torch.no_grad():
            model.weight[1, 0] = -0.0
        with pytest.raises(
            ValueError, match=r"1 of 1 pruned weights of 'weight' are not \+0.0: flat index 3 holds -0.0"
        ):
            m.verify(model, {"weight": mask})


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=1e-2),
    "adam foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True, amsgrad=True),
    "adam fused": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4, line_search_fn="strong_wolfe"),
}


def reference_training(model, masks, optimizer, steps, clip):
    """The same training with the mask as a parametrisation: what `held` must equal."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        for name, mask in masks.items():
            grad = m.named(model)[name].grad
            grad.copy_(torch.where(mask, grad, 0.0))
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        with torch.no_grad():
            for name, mask in masks.items():
                weight = m.named(model)[name]
                weight.copy_(torch.where(mask, weight, 0.0))


KEEP_ZEROS = {
    **{name: make for name, make in OPTIMISERS.items() if name != "lbfgs"},
    "sgd maximise": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, maximize=True, dampening=0.3),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.1),
    "adam maximise": lambda p: torch.optim.Adam(p, 0.01, maximize=True, weight_decay=0.1, foreach=False),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True, foreach=True, weight_decay=0.5),
}


@pytest.mark.parametrize("name", KEEP_ZEROS)
def test_optimisers_that_keep_zeros_need_no_second_pass(name):
    """What lets the loop leave out `apply_` after a step: with masked gradients alone, +0.0 stays, to the bit."""
    model = net()
    optimizer = KEEP_ZEROS[name](list(model.parameters()))
    assert stepping.keeps_zeros(optimizer)
    loss_of(model).backward()
    optimizer.step()  # state from before pruning
    masks = sparse(model)
    bound = h.bind(model, masks)
    bound.apply_()
    stepping.clear_state_(model, masks, optimizer)
    for _ in range(40):
        optimizer.zero_grad()
        loss_of(model).backward()
        bound.mask_grads_()
        optimizer.step()
        assert_held(model, masks)


def test_other_optimisers_do_not_count_as_keeping_zeros():
    parameters = list(net().parameters())

    class Mine(torch.optim.SGD):
        pass

    assert not stepping.keeps_zeros(Mine(parameters, 0.1))
    assert not stepping.keeps_zeros(torch.optim.LBFGS(parameters))
    assert not stepping.keeps_zeros(torch.optim.AdamW(parameters, 0.1, weight_decay=20.0))


class TestHeld:
    @pytest.mark.parametrize("name", OPTIMISERS)
    def test_pruned_weights_are_plus_zero_after_every_step(self, name):
        model = net()
        optimizer = OPTIMISERS[name](list(model.parameters()))
        loss_of(model).backward()  # momentum from before pruning
        optimizer.step(lambda: loss_of(model)) if name == "lbfgs" else optimizer.step()
        masks = sparse(model)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        with held(model, masks, optimizer, copies=[ema]):
            assert_held(model, masks)
            for _ in range(5):
                if name == "lbfgs":
                    optimizer.step(closure)
                else:
                    closure()
                    optimizer.step()
                assert_held(model, masks)
                ema.update_parameters(model)
                assert_held(ema, masks)
        assert_held(ema, masks)

    def test_equals_the_explicit_loop_bit_for_bit_with_clipping(self):
        one, other = net(), net()
        masks = sparse(one)
        first, second = (OPTIMISERS["nesterov"](list(each.parameters())) for each in (one, other))
        h.apply_(other, masks)
        with held(one, masks, first):
            for _ in range(6):
                first.zero_grad()
                loss_of(one).backward()
                nn.utils.clip_grad_norm_(one.parameters(), 0.1)
                first.step()
        reference_training(other, masks, second, 6, 0.1)
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_everything_else_stays_as_it_was(self):
        model = net()
        keys, types = list(model.state_dict()), [type(x) for x in model.modules()]
        masks, optimizer = sparse(model), torch.optim.SGD(model.parameters(), 0.1)
        with held(model, masks, optimizer):
            loss_of(model).backward()
            optimizer.step()
            twin = copy.deepcopy(model)
            again = pickle.loads(pickle.dumps(model))
            buffer = io.BytesIO()
            torch.save(model.state_dict(), buffer)
            exported = torch.export.export(model.eval(), (batch()[0],)).module()
            assert torch.equal(exported(batch()[0]), model(batch()[0]))
            model.train()
        assert list(model.state_dict()) == keys
        assert [type(x) for x in model.modules()] == types
        for each in (twin, again):
            assert list(each.state_dict()) == keys
            assert_held(each, masks)
        assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        assert not model._forward_hooks
        loss_of(model).backward()
        optimizer.step()
        with pytest.raises(ValueError, match="not \\+0.0"):
            m.verify(model, masks)

    def test_hooks_go_when_the_loop_fails(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with pytest.raises(KeyError), held(model, sparse(model), optimizer):
            raise KeyError
        assert not optimizer._optimizer_step_post_hooks
        assert not any(p._post_accumulate_grad_hooks for p in model.parameters())

    def test_on_gradients_sees_dense_gradients(self):
        model = net()
        masks, optimizer = sparse(model), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        seen = []

        def look(which: nn.Module) -> None:
            grad, mask = m.named(which)["4.weight"].grad, masks["4.weight"]
            seen.append(float(grad[~mask].abs().max()))

        with held(model, masks, optimizer, on_gradients=look):
            for _ in range(2):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
                assert_held(model, masks)
                assert is_plus_zero(m.named(model)["4.weight"].grad[~masks["4.weight"]])
        assert len(seen) == 2
        assert min(seen) > 0

    def test_gradient_accumulation_and_several_optimisers(self):
        model = net()
        masks = sparse(model)
        parameters = list(model.parameters())
        first, second = torch.optim.SGD(parameters[:3], 0.1), torch.optim.Adam(parameters[3:], 0.01)
        with held(model, masks, [first, second]):
            loss_of(model).backward()
            loss_of(model).backward()
            for name, mask in masks.items():
                assert is_plus_zero(m.named(model)[name].grad[~mask])
            first.step()
            second.step()
            assert_held(model, masks)

    @pytest.mark.parametrize("name", ["momentum", "adam"])
    def test_what_the_optimiser_remembers_of_pruned_weights_is_cleared(self, name):
        """Momentum from before pruning would decay into denormal numbers, which are many times slower."""
        model = net()
        optimizer = OPTIMISERS[name](list(model.parameters()))
        loss_of(model).backward()
        optimizer.step()
        masks = sparse(model)
        with held(model, masks, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
        for key, mask in masks.items():
            remembered = [v for v in optimizer.state[m.named(model)[key]].values() if v.shape == mask.shape]
            assert remembered
            for value in remembered:
                assert is_plus_zero(value[~mask])
                assert float(value[mask].abs().max()) > 0

    def test_tied_weights(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        mask = torch.eye(4, dtype=torch.bool)
        optimizer = torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)
        with held(model, {"0.weight": mask}, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.ones(2, 4)).square().sum().backward()
                optimizer.step()
        assert is_plus_zero(model[2].weight.detach()[~mask])

    def test_wrong_masks_are_refused_before_anything_changes(self):
        model = net()
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with (
            pytest.raises(ValueError, match="no parameter 'x'"),
            held(model, {"x": torch.ones(2, dtype=torch.bool)}, optimizer),
        ):
            pass
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert not optimizer._optimizer_step_pre_hooks

    def test_a_compiled_model(self):
        model = net()
        masks = sparse(model)
        compiled = torch.compile(model, backend="eager")
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        with held(compiled, masks, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(compiled).backward()
                optimizer.step()
                assert_held(compiled, masks)
        assert list(compiled.state_dict()) == [f"_orig_mod.{k}" for k in model.state_dict()]
