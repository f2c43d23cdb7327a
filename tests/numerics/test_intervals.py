"""Means with Student-t intervals, and differences paired by seed."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy import stats

from sparsight.numerics.intervals import Mean, lower_bound, mean, paired, paired_shares

VALUES = [0.9, 0.84, 0.87, 0.93, 0.79]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_mean_has_the_textbook_interval(n, confidence):
    values = VALUES[:n]
    found = mean(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=statistics.fmean(values), scale=stats.sem(values))
    assert found.n == n
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-15)
    assert found.deviation == pytest.approx(stats.tstd(values))
    assert found.interval == (pytest.approx(low), pytest.approx(high))
    assert found.half_width == pytest.approx((high - low) / 2)


def test_the_confidence_is_95_per_cent_unless_said():
    assert mean(VALUES) == mean(VALUES, 0.95) != mean(VALUES, 0.9)
    by_seed = dict(enumerate(VALUES))
    assert paired(by_seed, dict.fromkeys(by_seed, 0.5)) == paired(by_seed, dict.fromkeys(by_seed, 0.5), 0.95)


def test_one_value_has_no_interval():
    found = mean([3.0])
    assert found == Mean(1, 3.0, None, None)
    assert (found.interval, found.verdict) == (None, "")


@pytest.mark.parametrize("values", [[], [None], [None, None]])
def test_no_value_has_no_mean(values):
    assert mean(values) is None


def test_what_is_not_known_is_left_out_and_values_may_be_drawn():
    assert mean(v for v in [None, 0.9, None, 0.84]) == mean([0.9, 0.84])


def test_whole_numbers_are_taken_as_they_are():
    assert mean([21, 25, 81]) == mean([21.0, 25.0, 81.0])
    assert isinstance(mean([3]).mean, float)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_everything_nan(wrong):
    found = mean([0.9, wrong, 0.8])
    assert found.n == 3
    assert all(map(math.isnan, (found.mean, found.half_width, found.deviation, *found.interval)))
    assert found.verdict == "undecided"
    assert math.isnan(mean([wrong]).mean)
    assert math.isnan(mean([math.inf, -math.inf]).mean)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.5, math.nan])
def test_the_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="confidence must be greater than 0 and less than 1"):
        mean([1.0], confidence)
    with pytest.raises(ValueError, match="confidence must be greater than 0 and less than 1"):
        paired({}, {}, confidence)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.2, 0.21, 0.19], "above"),
        ([-0.2, -0.21, -0.19], "below"),
        ([0.2, -0.21, 0.19], "undecided"),
        ([0.0, 0.0], "undecided"),  # an interval of no width, at zero
        ([0.2], ""),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_out_zero(values, verdict):
    assert mean(values).verdict == verdict


def test_differences_are_paired_by_seed():
    ours = {0: 80.0, 1: 90.0, 2: 71.0, 3: 99.0, 4: None}
    theirs = {4: 50.0, 2: 68.0, 1: 88.0, 0: 79.0, 7: 0.0}  # in another order
    found = paired(ours, theirs)
    assert (found.n, found.mean) == (3, pytest.approx(2.0))  # 1, 2 and 3; by means of all it would be 28
    assert found.deviation == pytest.approx(1.0)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert found.verdict == "undecided"  # 2 - 2.48 < 0
    wide, narrow = paired(ours, theirs, 0.99), paired(ours, theirs, 0.8)
    assert wide.half_width == pytest.approx(stats.t.ppf(0.995, 2) / math.sqrt(3))
    assert (narrow.n, narrow.verdict) == (3, "above")


def test_the_other_way_round_is_the_opposite():
    ours, theirs = dict(enumerate(VALUES)), {0: 0.1, 2: 0.3, 4: 0.9}
    one, other = paired(ours, theirs), paired(theirs, ours)
    assert other == Mean(one.n, -one.mean, one.half_width, one.deviation)


@pytest.mark.parametrize(
    ("ours", "theirs"), [({0: 1.0}, {1: 1.0}), ({0: None, 1: 2.0}, {0: 1.0, 1: None}), ({}, {0: 1.0}), ({}, {})]
)
def test_no_seed_in_common_is_no_difference(ours, theirs):
    assert paired(ours, theirs) is None


def test_one_seed_in_common_has_no_interval():
    assert paired({0: 1.0, 1: 5.0}, {0: 0.75, 2: 9.0}) == Mean(1, 0.25, None, None)


# -- bounds and tests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_lower_bound_leaves_out_the_other_side(n):
    values = VALUES[:n]
    scale = stats.sem(values)
    assert lower_bound(values) == pytest.approx(statistics.fmean(values) - stats.t.ppf(0.95, n - 1) * scale)
    assert lower_bound(values, 0.975) == pytest.approx(mean(values).interval[0])


def test_a_lower_bound_needs_two_values_and_a_confidence_of_its_side():
    assert lower_bound([1.0]) is None
    assert lower_bound([None, 1.0]) is None
    assert math.isnan(lower_bound([1.0, math.nan]))
    for wrong in (0.5, 1.0, 95, math.nan):
        with pytest.raises(ValueError, match=r"greater than 0\.5"):
            lower_bound([1.0, 2.0], wrong)


def test_p_values_are_those_of_the_test():
    found = mean([0.2, 0.21, 0.15, 0.3])
    assert found.p_value == pytest.approx(stats.ttest_1samp([0.2, 0.21, 0.15, 0.3], 0).pvalue)
    assert mean([-0.2, 0.21, -0.15]).p_value == pytest.approx(stats.ttest_1samp([-0.2, 0.21, -0.15], 0).pvalue)
    assert mean([3.0]).p_value is None
    assert (mean([1.0, 1.0]).p_value, mean([0.0, 0.0]).p_value) == (0.0, 1.0)
    assert math.isnan(mean([1.0, math.nan]).p_value)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(0, 0, 1), (3, 0, 10), (9, 5, 100), (120, 180, 10_000)])
def test_shares_on_the_same_samples(only_a, only_b, n):
    """The formula by way of the multinomial covariance of four counts to which half an answer each is added."""
    counts = [only_a + 1, only_b + 1, n - only_a - only_b]
    p, q, _ = (count / (n + 2) for count in counts)
    deviation = math.sqrt((p * (1 - p) + q * (1 - q) + 2 * p * q) / (n + 2))
    z = stats.norm.ppf(0.975)
    expected = max(-1.0, p - q - z * deviation), min(1.0, p - q + z * deviation)
    assert paired_shares(only_a, only_b, n) == pytest.approx(expected)
    low, high = paired_shares(only_b, only_a, n)
    assert (-high, -low) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="sum to at most"):
        paired_shares(*wrong)
