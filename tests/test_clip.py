from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from sparsight.clip import clip_

SHAPES = ((40, 30), (40,), (3, 2, 3, 3), (), (0, 4))


def parameters(dtypes: tuple[torch.dtype, ...], scale: float, missing: int | None = None) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for i, shape in enumerate(SHAPES):
        p = nn.Parameter(torch.zeros(shape, dtype=dtypes[i % len(dtypes)]))
        if i != missing:
            p.grad = (scale * torch.randn(shape, generator=generator)).to(p.dtype)
        found.append(p)
    return found


def bits(some: list[nn.Parameter]) -> list[bytes]:
    return [b"" if p.grad is None else p.grad.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for p in some]


@pytest.mark.parametrize("scale", [1e-3, 0.03, 1.0, 1e30, math.inf, math.nan, 0.0])
@pytest.mark.parametrize("missing", [None, 0])
@pytest.mark.parametrize(
    "dtypes", [(torch.float32,), (torch.float64,), (torch.bfloat16,), (torch.float32, torch.float64)], ids=str
)
def test_the_same_bits_as_torch(dtypes, missing, scale):
    ours, theirs = parameters(dtypes, scale, missing), parameters(dtypes, scale, missing)
    before = bits(ours)
    clip_(ours, 1.0)
    clip_grad_norm_(theirs, 1.0)
    assert bits(ours) == bits(theirs)
    if scale == 1e-3:
        assert bits(ours) == before, "below the limit nothing changes"
    if scale == 1.0:
        assert bits(ours) != before


def test_nothing_to_clip():
    clip_([], 1.0)
    clip_([nn.Parameter(torch.ones(2))], 1.0)


def test_another_memory_format():
    weight = nn.Parameter(torch.zeros(4, 3, 5, 5).to(memory_format=torch.channels_last))
    weight.grad = torch.ones_like(weight)
    clip_([weight], 3.0)
    assert torch.allclose(weight.grad, torch.full_like(weight, 3.0 / math.sqrt(300)))
