"""What several seeds allow to be said: equal density, Holm, the sparsest within a margin, ranking, fronts."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from sparsight.compare import (
    At,
    Candidate,
    Sparsest,
    at,
    fronts,
    holm,
    lower_bound,
    mean,
    paired_at,
    ranking,
    sparsest_within,
    wilson,
)

# -- curves --------------------------------------------------------------------------------------------------------

CURVE = [(1.0, 0.9), (0.1, 0.7), (0.4, 0.85)]


def test_a_level_that_lies_there_is_read_as_it_is():
    assert at(CURVE, 0.4) == At(0.85)
    assert at([(0.5, 0.1), (0.5, 0.2)], 0.5) == At(0.2)


def test_between_two_neighbours_only():
    assert at(CURVE, 0.7) == At(pytest.approx(0.875), (0.4, 1.0))
    assert at(CURVE, 0.2, log=True) == At(pytest.approx(0.775), (0.1, 0.4))  # half way from 0.1 to 0.4
    assert at(CURVE, 0.05) is at(CURVE, 1.1) is at([], 0.5) is None


def test_levels_without_a_value_are_no_neighbours():
    assert at([(1.0, 0.9), (0.5, None), (0.2, math.nan), (0.0, 0.1)], 0.5) == At(pytest.approx(0.5), (0.0, 1.0))
    assert at([(1.0, 0.9), (0.0, 0.1)], 0.5, log=True) is None
    assert at([(1.0, 0.9), (0.0, 0.1)], 0.0, log=True) == At(0.1)


def test_differences_at_one_density_say_what_was_interpolated():
    ours = {0: CURVE, 1: CURVE, 2: CURVE, 3: CURVE}
    theirs = {0: [(0.4, 0.8)], 1: [(0.2, 0.7), (0.8, 0.8)], 2: [(0.1, 0.2)], 9: CURVE}
    found = paired_at(ours, theirs, 0.4, log=True)
    assert (found.interpolated, found.missing, found.difference.n) == ((1,), (2,), 2)
    assert found.difference.mean == pytest.approx((0.05 + (0.85 - 0.75)) / 2)
    assert paired_at(ours, {}, 0.4).difference is None


# -- Holm ----------------------------------------------------------------------------------------------------------


def rejected_by_steps(p_values: list[Fraction], alpha: Fraction) -> set[int]:
    """Holm's procedure as it is written down: smallest first, stop at the first that is too large."""
    found: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] > alpha / (len(p_values) - rank):
            break
        found.add(i)
    return found


@pytest.mark.parametrize("p_values", list(itertools.product([Fraction(k, 64) for k in (0, 1, 2, 3, 40)], repeat=3)))
def test_holm_rejects_as_its_steps_do(p_values):
    adjusted = holm([float(p) for p in p_values])
    for alpha in (Fraction(1, 32), Fraction(1, 16), Fraction(1, 8)):
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected_by_steps(list(p_values), alpha)


def test_what_was_not_tested_is_not_counted():
    assert holm([]) == ()
    one, other, nan = holm([0.01, None, math.nan])
    assert (one, other) == (0.01, None)
    assert math.isnan(nan)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got 1.5"):
        holm([0.2, 1.5])


# -- the sparsest within a margin ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({1.0: 0.0, 0.5: -0.004, 0.25: -0.006, 0.1: -0.003}, Sparsest(0.5, 0.25, (0.1,))),
        ({0.1: -0.003, 1.0: 0.0}, Sparsest(0.1, None, ())),  # in any order
        ({0.5: -0.005}, Sparsest(0.5, None, ())),  # exactly the margin
        ({0.5: None, 0.2: 0.1}, Sparsest(None, 0.5, (0.2,))),
        ({0.5: math.nan}, Sparsest(None, 0.5, ())),
        ({}, Sparsest(None, None, ())),
    ],
)
def test_the_walk_ends_at_the_first_that_fails(bounds, expected):
    assert sparsest_within(bounds, 0.005) == expected


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_a_margin_is_at_least_zero(margin):
    with pytest.raises(ValueError, match="at least 0"):
        sparsest_within({}, margin)


# -- ranking -------------------------------------------------------------------------------------------------------

NOISE = [0.003, -0.002, 0.001, -0.001, 0.002]


def by_seed(level: float, noise: list[float] = NOISE) -> dict[int, float]:
    return {seed: level + x for seed, x in enumerate(noise)}


def test_what_is_clearly_apart_is_ranked():
    found = ranking({"low": by_seed(0.1, NOISE[::-1]), "high": by_seed(0.9), "middle": by_seed(0.5)})
    assert found.order == ("high", "middle", "low")
    assert found.tiers == (("high",), ("middle",), ("low",))
    assert found.places == {"high": (1, 1), "middle": (2, 2), "low": (3, 3)}
    assert ranking({"a": by_seed(0.1), "b": by_seed(0.9, NOISE[::-1])}, lower_is_better=True).order == ("a", "b")


def test_within_noise_no_order_is_given():
    values = {"a": by_seed(0.9), "b": by_seed(0.9005, NOISE[::-1]), "c": by_seed(0.5)}
    found = ranking(values)
    assert found.tiers == (("b", "a"), ("c",))
    assert found.places == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    with pytest.raises(ValueError, match="that the seeds do not distinguish: b and a; run more seeds"):
        _ = found.order


def test_the_correction_makes_a_difference():
    """One pair of p = 0.03 is told apart alone and not among ten."""
    differences = np.array([0.3, 1.0, 1.7, 0.5, 1.5])
    shift = next(
        s for s in np.linspace(-0.8, 0, 4000) if abs(stats.ttest_1samp(differences + s, 0).pvalue - 0.03) < 0.001
    )
    pair = {"a": dict(enumerate(differences + shift)), "b": dict.fromkeys(range(5), 0.0)}
    assert ranking(pair).order == ("a", "b")
    others = {name: dict.fromkeys(range(5), 0.0) for name in "cde"}
    assert ranking({**pair, **others}).undecided


@pytest.mark.parametrize(
    "values",
    [
        {"a": {0: 0.9}, "b": {0: 0.1}},  # one seed
        {"a": {0: 0.9, 1: 0.9}, "b": {2: 0.1, 3: 0.1}},  # none in common
        {"a": {0: 0.5, 1: 0.5}, "b": {0: 0.5, 1: 0.5}},  # the same
        {"a": {0: 0.5, 1: 0.7}, "b": {0: None, 1: None}},
        {"a": {0: math.nan, 1: 0.7}, "b": {0: 0.1, 1: 0.2}},
    ],
)
def test_no_evidence_is_no_order(values):
    found = ranking(values)
    assert found.places == {"a": (1, 2), "b": (1, 2)}
    assert len(found.tiers) == 1


def test_one_setting_or_none_is_in_order():
    assert ranking({"a": {0: 1.0}}).order == ("a",)
    assert ranking({}).order == ()


def test_a_setting_without_a_value_comes_last():
    assert ranking({"a": {}, "b": by_seed(0.1)}).names == ("b", "a")


# -- fronts --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_told_apart_stands_alike():
    found = fronts(
        [
            Candidate("cheap", 1, by_seed(0.5)),
            Candidate("dear", 3, by_seed(0.9)),
            Candidate("noise", 3, by_seed(0.8995, NOISE[::-1])),
            Candidate("wasted", 4, by_seed(0.3)),
        ]
    )
    assert found == {"cheap": "front", "dear": "front", "noise": "alike", "wasted": "behind"}


def test_one_seed_puts_nothing_behind():
    found = fronts([Candidate("a", 1, {0: 0.9}), Candidate("b", 2, {0: 0.1}), Candidate("c", 1, {0: 0.9})])
    assert found == {"a": "front", "b": "alike", "c": "front"}
    assert fronts([]) == {}


def test_candidates_have_values_and_names_of_their_own():
    with pytest.raises(ValueError, match="'a' has no value"):
        fronts([Candidate("a", 1, {})])
    with pytest.raises(ValueError, match="the same name"):
        fronts([Candidate("a", 1, {0: 1.0}), Candidate("a", 2, {0: 1.0})])


# -- coverage, in small; studies/coverage has 10,000 of each --------------------------------------------------------


def test_intervals_cover_what_they_promise():
    """1,000 draws each: a coverage of 0.95 is found within 4 standard errors, 0.0069 each."""
    rng = np.random.default_rng(0)
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 1000)
    two_sided, one_sided, counted = 0, 0, 0
    for _ in range(1000):
        draw = rng.normal(0.3, 1.0, 5)
        low, high = mean(draw.tolist()).interval
        two_sided += low <= 0.3 <= high
        one_sided += lower_bound(draw.tolist()) <= 0.3
        low, high = wilson(rng.binomial(1000, 0.9) / 1000, 1000)
        counted += low <= 0.9 <= high
    assert abs(two_sided / 1000 - 0.95) < tolerance
    assert abs(one_sided / 1000 - 0.95) < tolerance
    assert abs(counted / 1000 - 0.95) < tolerance + 0.01  # whole answers: Wilson's is 0.94 to 0.96


def test_a_setting_with_nan_is_never_the_best():
    values = {
        "a": {0: 0.9, 1: 0.91},
        "nan": {0: math.nan, 1: 0.99},
        "best": {0: 0.95, 1: 0.94},
        "low": {0: 0.1, 1: 0.2},
    }
    for order in itertools.permutations(values):
        assert ranking({name: values[name] for name in order}).names == ("best", "a", "low", "nan")
        errors = {name: {seed: -v for seed, v in values[name].items()} for name in order}
        assert ranking(errors, lower_is_better=True).names == ("best", "a", "low", "nan")
    places = fronts([Candidate(name, cost, values[name]) for cost, name in enumerate(values)])
    assert places == {"a": "front", "nan": "alike", "best": "front", "low": "alike"}
