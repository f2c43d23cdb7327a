"""How far two networks are apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sparsight.deploy.comparing import difference, drawn


class Plus(nn.Module):
    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        return x + self.more


@pytest.mark.parametrize(("x", "more", "far"), [
    ([0.5, 0.0], 0.25, 0.25), ([4.0, 8.0], 0.25, 0.25 / 8), ([-4.0, 2.0], 0.25, 0.25 / 4),
    ([math.inf, -math.inf, math.nan, 2.0], 1.0, 0.5), ([math.inf, math.nan], 1.0, 0.0), ([], 1.0, 0.0),
])  # fmt: skip
def test_over_the_largest_output_or_1(x, more, far):
    given = torch.tensor(x, dtype=torch.float64)
    assert difference(Plus(0.0), Plus(more), [(given,)], 1.0, "it") == far


@pytest.mark.parametrize(("other", "said"), [
    (Plus(1e-3), "it differs by 0.001, expected at most 1e-05"),
    (Plus(math.nan), "it differs by nan"),
    (Plus(math.inf), "it differs by inf"),
    (lambda x: x[:1], r"it gives shape \(1,\), not \(3,\)"),
    (lambda x: x @ torch.ones(2), "it does not run: "),
])  # fmt: skip
def test_too_far(other, said):
    with pytest.raises(ValueError, match=said):
        difference(Plus(0.0), other, [(torch.ones(3),)], 1e-5, "it")


def test_narrow_floats_may_round():
    x = torch.ones(3, dtype=torch.bfloat16)
    assert difference(Plus(0.0), Plus(2**-7), [(x,)], 1e-5, "it") == 2**-7


def test_floats_are_drawn_and_the_rest_stays():
    ids, state = torch.arange(3), torch.get_rng_state()
    found, again = (drawn((torch.ones(1000), {"ids": ids}), 3.0) for _ in range(2))
    assert torch.equal(found[0], again[0])
    assert 2.5 < float(found[0].std()) < 3.5
    assert found[1]["ids"] is ids
    assert torch.equal(state, torch.get_rng_state())
