from __future__ import annotations

import math

import pytest

from sparsight.pruning.schedules import Cubic, Geometric, Linear, rounds
from sparsight.train.plan import WarmUp, constant, cosine


@pytest.mark.parametrize("schedule", [Geometric(0.05), Linear(0.05), Cubic(0.05)])
def test_densities_go_from_one_to_the_end_and_never_up(schedule):
    assert schedule(0.0) == 1.0
    assert schedule(1.0) == pytest.approx(0.05)
    values = rounds(schedule, 20)
    assert len(values) == 20
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.05)


def test_formulas():
    assert Geometric(0.01)(0.5) == pytest.approx(0.1)
    assert Linear(0.2)(0.25) == pytest.approx(0.8)
    assert Cubic(0.2)(0.5) == pytest.approx(0.2 + 0.8 / 8)
    assert [cosine(u) for u in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert constant(0.3) == 1
    warm = WarmUp(0.2)
    assert [warm(u) for u in (0, 0.1, 0.2, 0.6, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert math.isclose(warm(0.1999999), 1, rel_tol=1e-5)


@pytest.mark.parametrize(("kind", "final"), [(Geometric, 0.0), (Geometric, 1.5), (Linear, -0.1), (Cubic, 2.0)])
def test_refuses(kind, final):
    with pytest.raises(ValueError, match="got"):
        kind(final)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        rounds(constant, 0)
