"""Comparisons: what is checked before anything is timed, and the arithmetic of their ratios."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsight.deploy.bench import Case, Comparison, Rival, Row, Timing, Unavailable, chosen, compare, conv, linear
from sparsight.deploy.bench.rivals import Way


def row(name, seconds, precision="fp32", ours=False, sparse=False):
    return Row(name, precision, ours, sparse, 1e-7, seconds, Timing(seconds, seconds, seconds))


def comparison(*rivals):
    ours = row("sparsight", 1.0, ours=True), row("sparsight, converting", 1.5, ours=True)
    return Comparison("a case", 0.1, 1, 1, 4096, (*ours, *rivals))


def test_ratios_to_the_fastest_rivals():
    found = comparison(row("x", 6.0), row("y", 5.0), row("z", 3.0, "bf16"), row("csr", 2.0, sparse=True))
    assert found.ours.seconds == 1.0
    assert (found.ratio("fp32"), found.ratio("bf16"), found.ratio()) == (2.0, 3.0, 2.0)
    assert (found.ratio("fp32", dense=True), found.ratio(dense=True)) == (5.0, 3.0)
    assert found.fastest("fp32", dense=True).name == "y"
    assert found.fastest().name == "csr"


def test_ratios_without_rivals():
    assert comparison().ratio() is None
    assert comparison(row("z", 3.0, "bf16")).ratio("fp32") is None
    assert comparison(row("csr", 2.0, sparse=True)).ratio(dense=True) is None


@pytest.mark.parametrize(
    "case",
    [
        conv((8, 8), 12, batch=2), conv((8, 4), 9, 3, 2),
        linear((40, 24), batch=5), linear((40, 9)), linear((40, 24), density=0.0),
    ],
    ids=lambda case: case.name,
)  # fmt: skip
def test_the_runtime_and_its_rivals_are_near_float64(case):
    found = compare(case, chosen(["torch", "torch-bf16", "torch-csr"]), rounds=1)
    ours = ["sparsight", "sparsight, converting", "sparsight, bf16 weights"]
    assert [one.name for one in found.rows[:5]] == [*ours, "torch", "torch-bf16"]
    assert [one.ours for one in found.rows[:5]] == [True, True, True, False, False]
    assert all(one.error < 1e-5 for one in found.rows if one.precision == "fp32")
    assert all(0 < one.error < 0.1 or case.density == 0 for one in (found.rows[2], found.rows[4]))
    assert (found.batch, found.threads, found.density) == (len(case.x), torch.get_num_threads(), case.density)
    assert found.memory > 0
    assert all(one.seconds > 0 for one in found.rows)
    assert set(found.missing) == (set() if isinstance(case.module, nn.Linear) else {"torch-csr"})


def test_a_rival_that_cannot_or_that_is_wrong_is_left_out():
    def cannot(case):
        raise Unavailable("it is shy")

    def wrong(case):
        return Way(lambda: None, lambda: 1.5 * case.module(case.x))

    rivals = [Rival("shy", "fp32", cannot), Rival("wrong", "bf16", wrong)]
    found = compare(linear((8, 4), density=1.0), rivals, rounds=1)
    assert all(one.ours for one in found.rows)
    assert found.missing == {"shy": "it is shy", "wrong": "its result is wrong by 5.0e-01 of the largest output"}


def test_a_runtime_that_is_wrong_is_not_timed():
    case = linear((8, 4), density=1.0)
    other = linear((8, 4), density=1.0, seed=1)
    with pytest.raises(RuntimeError, match=r"linear 8→4, batch 1: sparsight is wrong by .* of the largest output"):
        compare(Case(case.name, case.module, case.x, other.graph), [], rounds=1)


def test_outputs_that_are_not_finite_are_refused():
    case = linear((8, 4), density=1.0)
    case.module.weight.data[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="outputs are not finite"):
        compare(case, [], rounds=1)


@pytest.mark.parametrize("rounds", [0, -1, 1.5])
def test_rounds_are_counted(rounds):
    with pytest.raises(ValueError, match="rounds must be (at least 1|a whole number)"):
        compare(linear((8, 4)), [], rounds)
