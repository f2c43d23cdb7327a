"""Weights that FSDP2 has shared out over two processes: held as whole ones are, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from model.sharded_worker import OPTIMIZERS
from two_processes import answers


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict[str, Any]]:
    """What each of two processes has found."""
    return answers("model/sharded_worker.py", tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_plus_zero_after_every_step(both, name):
    for here in both:
        assert here["trained"][name] == {"pruned": [True] * 4, "close": True}


def test_dense_makes_whole_masks(both):
    for here in both:
        assert here["dense"] == {"0.weight": [[7, 5], True, True], "2.weight": [[3, 7], True, True]}


def test_weights_and_gradients_are_cleared_and_what_is_not_is_found_in_each_process(both):
    for here in both:
        assert here["at_once"]["weights"]
        assert here["at_once"]["gradients"]
        assert "pruned weights of '0.weight' are not +0.0" in here["at_once"]["found"]


def test_what_needs_whole_tensors_refuses_in_plain_words(both):
    for here in both:
        assert len(here["refused"]) == 7
        for what, said in here["refused"].items():
            assert said.startswith("TypeError: "), what
            assert "is sharded over processes (a DTensor)" in said, what
        assert here["still"]
