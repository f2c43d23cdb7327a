"""The rule for minimum and peak of the PQ index, on histories written by hand and on the published ones."""

import json
import math
import random
from pathlib import Path

import pytest

from sparsight.measure.pq.turning_points import TurningPoints, turning_points

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "cifar10_trajectories.json").read_text())["trajectories"]


def halving(n: int) -> list[float]:
    return [0.5**i for i in range(n)]


def found(indices: list[float], **more: float) -> TurningPoints:
    return turning_points(halving(len(indices)), indices, **more)


def test_three_phases():
    history = [0.30, 0.25, 0.20, 0.26, 0.40, 0.60, 0.10]
    assert found(history) == TurningPoints(2, True, 3, 5, "collapsing")
    assert found(history[:6]) == TurningPoints(2, True, 3, None, "compressing")
    assert found(history[:3]) == TurningPoints(2, False, None, None, "regularising")


def test_nothing_and_one():
    assert found([]) == TurningPoints(None, False, None, None, "regularising")
    assert found([0.3]) == TurningPoints(0, False, None, None, "regularising")
    assert found([math.nan, math.nan]).minimum is None


def test_two_levels_above_the_tolerance_confirm():
    assert not found([0.3, 0.2, 0.215]).confirmed
    assert found([0.3, 0.2, 0.215, 0.212]) == TurningPoints(1, True, 3, None, "compressing")
    assert not found([0.3, 0.2, 0.215, 0.209, 0.215]).confirmed  # not in a row
    assert not found([0.3, 0.2, 0.209, 0.2099, 0.21]).confirmed  # not above


def test_one_level_far_above_confirms():
    assert found([0.3, 0.2, 0.2301]) == TurningPoints(1, True, 2, None, "compressing")
    assert not found([0.3, 0.2, 0.2299]).confirmed


def test_a_new_low_starts_the_count_again():
    assert found([0.3, 0.22, 0.235, 0.21, 0.225]) == TurningPoints(3, False, None, None, "regularising")


def test_a_confirmed_minimum_stays_though_the_index_falls_below_it_later():
    assert found([0.3, 0.2, 0.5, 0.1]) == TurningPoints(1, True, 2, 2, "collapsing")


def test_a_rise_from_the_start_has_its_minimum_there():
    assert found([0.2, 0.3, 0.4]) == TurningPoints(0, True, 1, None, "compressing")


def test_dips_on_the_way_up_are_no_peak():
    assert found([0.3, 0.2, 0.3, 0.28, 0.4, 0.36, 0.5]).peak is None  # none gives back a quarter
    assert found([0.3, 0.2, 0.3, 0.28, 0.4, 0.34, 0.5]).peak == 4  # 0.06 of 0.2


def test_the_first_of_equals():
    assert found([0.3, 0.2, 0.2, 0.5, 0.5, 0.1]) == TurningPoints(1, True, 3, 3, "collapsing")


def test_undefined_levels_are_passed_over():
    assert found([0.3, math.nan, 0.2, 0.215, math.nan, 0.215]) == TurningPoints(2, True, 5, None, "compressing")


def test_tolerance():
    assert not found([0.3, 0.2, 0.24, 0.24], tolerance=0.05).confirmed
    assert found([0.3, 0.2, 0.2031], tolerance=0.001).confirmed


@pytest.mark.parametrize(
    ("densities", "indices", "tolerance", "message"),
    [
        ([1.0], [0.1, 0.2], 0.01, "as many densities as indices, got 1 and 2"),
        ([0.5, 0.6], [0.1, 0.2], 0.01, "0.6 after 0.5"),
        ([1.5], [0.1], 0.01, "must be in .0, 1., got 1.5 at level 0"),
        ([1.0], [1.1], 0.01, "index must be in .0, 1., got 1.1"),
        ([1.0], [-0.1], 0.01, "index must be in .0, 1., got -0.1"),
        ([1.0], [0.1], 0.0, "tolerance must be finite and greater than 0, got 0.0"),
    ],
)
def test_refusals(densities, indices, tolerance, message):
    with pytest.raises(ValueError, match=message):
        turning_points(densities, indices, tolerance=tolerance)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda t: f"{t['network']}-{t['method']}")
def test_published(published):
    """Minimum and peak are those that the published figures show; peaks only where the curve comes down again."""
    levels = published["levels"]
    at = turning_points([x["density"] for x in levels], [x["index"] for x in levels])
    assert at.minimum is not None
    assert levels[at.minimum]["level"] == published["minimum"]
    assert (None if at.peak is None else levels[at.peak]["level"]) == published["peak"]


def test_published_phases():
    """Three curves of ResNet-18 have only begun to rise where their figures end: no minimum is confirmed there."""
    phases = {}
    for t in PUBLISHED:
        at = turning_points([x["density"] for x in t["levels"]], [x["index"] for x in t["levels"]])
        phases[t["network"], t["method"].split(",")[0].replace("one-shot", "os").replace("lottery ticket", "lt")] = at
    assert {k: v.phase for k, v in phases.items()} == {
        ("cnn", "sap (0.5"): "compressing",
        ("cnn", "sap (1"): "collapsing",
        ("cnn", "lt"): "compressing",
        ("cnn", "os"): "collapsing",
        ("resnet18", "sap (0.5"): "regularising",
        ("resnet18", "sap (1"): "collapsing",
        ("resnet18", "lt"): "regularising",
        ("resnet18", "os"): "regularising",
    }


def test_stopping_at_the_published_minima_costs_little():
    """What the rule is for: less than 0.8 points of accuracy are lost where it stops the CNN."""
    for t in PUBLISHED:
        levels = t["levels"]
        at = turning_points([x["density"] for x in levels], [x["index"] for x in levels])
        assert at.minimum is not None
        known = levels[at.minimum]["accuracy"]
        if known is not None:
            assert levels[0]["accuracy"] - known <= 0.008
            assert levels[at.minimum]["density"] < 0.2


def test_noise_within_the_tolerance_moves_little():
    """A V with noise of half the tolerance keeps its minimum within what such noise can hide."""
    rng = random.Random(0)
    clean = [0.30 - 0.02 * i for i in range(6)] + [0.20 + 0.02 * i for i in range(1, 6)]
    for _ in range(200):
        noisy = [v + rng.uniform(-0.005, 0.005) for v in clean]
        at = found(noisy)
        assert at.confirmed
        assert at.minimum == 5
