from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from sparsight.model.hold import Bound, bind
from sparsight.model.masks import dense
from sparsight.train.loop import clip_


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, dtype=dtype)
        self.norm = nn.BatchNorm2d(3, dtype=dtype)
        self.one = nn.Linear(40, 31, dtype=dtype)
        self.two = nn.Linear(31, 1, bias=False, dtype=dtype)


def network(dtype: torch.dtype = torch.float32, scale: float = 1.0, missing: str = "") -> tuple[Net, Bound]:
    """Half of the weights pruned at random, and random gradients everywhere but at `missing`."""
    generator = torch.Generator().manual_seed(0)
    model = Net(dtype)
    masks = {name: torch.rand(mask.shape, generator=generator) < 0.5 for name, mask in dense(model).items()}
    for name, p in model.named_parameters():
        if name != missing:
            p.grad = (scale * torch.randn(p.shape, generator=generator)).to(dtype)
    return model, bind(model, masks)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def ours(model: nn.Module, bound: Bound, limit: float = 1.0) -> float | None:
    """What the training loop does."""
    norms = bound.mask_and_measure_grads_()
    if norms is None:
        bound.mask_grads_()
        clip_(list(model.parameters()), limit)
        return None
    for hold, norm in zip(bound.holds, norms.held, strict=True):
        grad = hold.weight.grad
        if grad is None:
            assert norm is None
        else:
            assert norm == pytest.approx(float(grad.double().norm()), rel=1e-12, nan_ok=True)
    clip_(list(model.parameters()), limit, norms.total)
    return norms.total


def theirs(model: nn.Module, bound: Bound, limit: float = 1.0) -> None:
    bound.mask_grads_()
    clip_grad_norm_(model.parameters(), limit)


@pytest.mark.parametrize("scale", [1e-3, 0.03, 1.0, 1e15])
@pytest.mark.parametrize("missing", ["", "one.weight", "one.bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_masked_and_clipped_as_torch_does_it_one_after_the_other(dtype, missing, scale):
    (a, bound), (b, other) = network(dtype, scale, missing), network(dtype, scale, missing)
    norm = ours(a, bound)
    other.mask_grads_()
    exact = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients(b)))
    assert norm == pytest.approx(exact, rel=1e-12)
    clip_grad_norm_(b.parameters(), 1.0)
    for mine, torchs in zip(gradients(a), gradients(b), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0)
        assert torch.equal(mine == 0, torchs == 0)


def test_below_the_limit_no_bit_changes():
    (a, bound), (b, other) = network(scale=1e-3), network(scale=1e-3)
    ours(a, bound)
    other.mask_grads_()
    assert all(
        torch.equal(x.view(torch.int32), y.view(torch.int32)) for x, y in zip(gradients(a), gradients(b), strict=True)
    )


def test_gradients_whose_squares_overflow_float32_are_clipped_all_the_same():
    model, bound = network(scale=1e30)
    ours(model, bound)
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients(model)))
    assert norm == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_where_it_is_kept_and_is_cleared_where_it_is_pruned(bad):
    model, bound = network()
    mask = bound.holds[1].mask
    kept, pruned = mask.nonzero()[0].tolist(), (~mask).nonzero()[0].tolist()
    model.one.weight.grad[tuple(pruned)] = bad
    norm = ours(model, bound)
    assert norm is not None
    assert math.isfinite(norm)
    cleared = model.one.weight.grad[tuple(pruned)]
    assert int(cleared.view(torch.int32)) == 0
    model, bound = network()
    model.one.weight.grad[tuple(kept)] = bad
    ours(model, bound)
    other, again = network()
    other.one.weight.grad[tuple(kept)] = bad
    theirs(other, again)
    for mine, torchs in zip(gradients(model), gradients(other), strict=True):
        assert torch.equal(mine.isnan(), torchs.isnan())


def test_memory_that_lies_otherwise():
    model, bound = network()
    for format, known in ((torch.channels_last, False), (torch.contiguous_format, True)):
        model.conv.weight.grad = torch.ones_like(model.conv.weight).contiguous(memory_format=format)
        norm = ours(model, bound, limit=0.5)
        assert (norm is not None) == known
        assert math.sqrt(sum(float((g**2).sum()) for g in gradients(model))) == pytest.approx(0.5, rel=1e-5)
    model = model.to(memory_format=torch.channels_last)
    bound = bind(model, {hold: m.mask for hold, m in zip(dense(model), bound.holds, strict=True)})
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    assert ours(model, bound) is not None
    assert torch.equal(model.conv.weight.grad != 0, bound.holds[0].mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_gradients_are_left_to_torch(dtype):
    (a, bound), (b, other) = network(dtype), network(dtype)
    assert ours(a, bound) is None
    theirs(b, other)
    assert all(torch.equal(x, y) for x, y in zip(gradients(a), gradients(b), strict=True))


def test_the_same_bits_on_any_number_of_threads():
    big = nn.Linear(1500, 1501)
    generator = torch.Generator().manual_seed(1)
    bound = bind(big, {"weight": torch.rand(1501, 1500, generator=generator) < 0.5})
    draw = torch.randn(1501, 1500, generator=generator)
    norms, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            big.weight.grad, big.bias.grad = draw.clone(), torch.ones(1501)
            norms.append(ours(big, bound))
            assert torch.equal(big.weight.grad != 0, bound.holds[0].mask & (draw != 0))
    finally:
        torch.set_num_threads(before)
    assert len({*norms}) == 1


def test_nothing_to_clip():
    model, bound = network()
    model.zero_grad(set_to_none=True)
    assert ours(model, bound) == 0.0
    clip_([], 1.0)
    clip_([nn.Parameter(torch.ones(2))], 1.0)
