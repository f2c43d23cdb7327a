"""N:M: so many of every few neighbours, exactly."""

from __future__ import annotations

import pytest
import torch

from sparsight.pruning import NofM
from sparsight.types import Layout, Scored


def allocated(scores: torch.Tensor, mask: torch.Tensor | None = None, **given: int) -> torch.Tensor:
    mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    return NofM(**given)({"x": scores}, {"x": mask})["x"]


def test_two_of_four_and_a_rest_that_stays():
    scores = torch.tensor([[4.0, 1, 3, 2, 9, 9, 9, 9, 1, 2], [0.0, 0, 0, 5, 1, -1, -2, 3, 0, 0]])
    assert allocated(scores).int().tolist() == [[1, 0, 1, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]]


def test_convolutions_count_along_channels():
    scores = torch.rand(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = allocated(scores, n=1, m=4)
    assert (kept.reshape(6, 2, 4, 3, 3).sum(2) == 1).all()
    assert torch.equal(kept[:, :4].int().argmax(1), scores[:, :4].argmax(1))


def test_pruned_weights_stay_pruned_and_nothing_alive_beyond_them_goes():
    mask = torch.tensor([[True, False, False, False, True, True, True, True]])
    assert allocated(torch.ones(1, 8), mask).int().tolist() == [[1, 0, 0, 0, 0, 0, 1, 1]]


def test_an_alive_score_of_minus_infinity_outranks_pruned_weights():
    mask = torch.tensor([[True, True, False, False, True, True, True, False]])
    scores = torch.tensor([[-torch.inf, -torch.inf, 1.0, 2.0, 3.0, -torch.inf, 1.0, 9.0]])
    assert allocated(scores, mask, n=1).int().tolist() == [[0, 1, 0, 0, 1, 0, 0, 0]]
    assert torch.equal(allocated(scores, mask, n=3), mask)


@pytest.mark.parametrize(("n", "m", "kept"), [(0, 1, 0), (4, 4, 24), (3, 3, 24), (1, 9, 24)])
def test_none_all_and_groups_larger_than_a_row(n, m, kept):
    assert int(allocated(torch.rand(3, 8), n=n, m=m).sum()) == kept


def test_empty_tensors_vectors_and_weights_the_other_way_round():
    assert allocated(torch.ones(0, 8)).shape == (0, 8)
    assert allocated(torch.ones(8)).all()
    turned = Scored({"x": torch.arange(8.0).reshape(4, 2)}, layouts={"x": Layout(swapped=True)})
    kept = NofM()(turned, {"x": torch.ones(4, 2, dtype=torch.bool)})["x"]
    assert kept.int().tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(("n", "m"), [(-1, 4), (5, 4), (1, 0)])
def test_refusals(n, m):
    with pytest.raises(ValueError):
        NofM(n, m)
