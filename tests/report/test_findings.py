"""What is said of a run before its numbers are trusted: chance, training, noise, what is cut off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from samples import Sample, sample

from sparsight import report
from sparsight.cli.show import tell
from sparsight.model.collapse import Collapse
from sparsight.numerics.intervals import difference, wilson
from sparsight.records.record import Evaluation, LevelRecord, RunRecord, from_json, to_json
from sparsight.report.run_view import story
from sparsight.report.sentences import findings, spans
from sparsight.runs.execute import most_frequent
from sparsight.train.metric import Metric
from sparsight.train.observation import Observation
from sparsight.types import Data, Split


def judged(record: LevelRecord, value: float, samples: int | None = 300, **changes) -> LevelRecord:
    """The record as if it had this accuracy on so many samples."""
    seen = replace(record.observations[-1], validation_accuracy=value, samples=samples)
    return replace(record, observations=(seen,), **changes)


def said(s: Sample, levels: tuple[LevelRecord, ...], **run) -> list[str]:
    return findings(story(replace(s.run, **run), levels))


def of_values(*values: float, samples: int | None = 300, control: float | None = None, steps: int = 1000, **run):
    """Findings of a run with these accuracies, level by level."""
    s = sample(len(values), control=control is not None)
    every = (*values, control) if control is not None else values
    levels = tuple(judged(x, v, samples) for x, v in zip(s.levels, every, strict=True))
    return said(s, (replace(levels[0], steps=steps), *levels[1:]), **run)


# -- intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0), (81 / 263, 263, 0.2553, 0.3662)],
)
def test_wilson(share, n, low, high):
    """The last is an example of Newcombe (1998), table I; the interval of 0 of n is z^2 / (n + z^2)."""
    assert wilson(share, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "n", "low", "high"),
    [(1.0, 0.0, 10, 0.6075, 1.0), (0.9, 0.3, 10, 0.1705, 0.8090), (0.5, 0.5, 50, -0.1889, 0.1889)],
)
def test_difference(a, b, n, low, high):
    """The first two are examples of Newcombe (1998), table II, method 10: 10/10 against 0/10 and 9/10 against 3/10."""
    assert difference(a, b, n) == pytest.approx((low, high), abs=5e-5)
    assert difference(b, a, n) == pytest.approx((-high, -low), abs=5e-5)


def test_an_interval_needs_an_answer():
    with pytest.raises(ValueError, match="at least 1 answer, got 0"):
        wilson(0.5, 0)


def test_the_summary_gives_the_interval_of_the_difference():
    s = sample(2, evaluated=False, control=False, chosen=1)
    levels = tuple(judged(x, v) for x, v in zip(s.levels, (0.98, 0.97), strict=True))
    told = report.summary(s.run, levels, None)
    low, high = difference(0.97, 0.98, 300)
    assert low < -0.01 < high
    between = f"the difference lies between {100 * low:+.1f} and {100 * high:+.1f} points (95 %)."
    assert f"1.0 points below dense (98.0 %). On 300 validation samples {between}" in told
    assert "95 %)" not in report.summary(s.run, tuple(judged(x, 0.9, None) for x in levels), None)


def test_metrics_that_are_no_share_have_no_interval():
    s = sample(2, evaluated=False, control=False, chosen=1)
    perplexity = Metric("perplexity", "lower")
    levels = tuple(
        replace(x, metric=perplexity, observations=(Observation(1.0, 10, metrics={"perplexity": 20.0}, samples=50),))
        for x in s.levels
    )
    assert "95 %" not in report.summary(s.run, levels, None)
    assert said(s, levels, most_frequent=0.9) == []


# -- chance, training, noise -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "samples", "guess", "at_chance"),
    [
        (0.2188, 128, 0.25, True),
        (0.29, 128, 0.25, True),
        (0.40, 128, 0.25, False),
        (0.86, 200, 0.9, True),
        (0.12, 10_000, 0.1, False),
    ],
)
def test_a_network_at_chance(value, samples, guess, at_chance):
    (told, *_) = [*of_values(value, value, samples=samples, most_frequent=guess), ""]
    if at_chance:
        assert told == (
            f"The dense network is at chance: {100 * value:.2f} % validation accuracy on {samples} samples is not "
            f"above guessing, which gives {100 * guess:.2f} %"
        )
    else:
        assert "chance" not in told


def test_chance_is_one_of_the_classes_if_labels_are_not_known():
    assert "is at chance" in of_values(0.1, 0.1, data={"facts": {"classes": 10}})[0]
    assert not any("chance" in x for x in of_values(0.1, 0.1, data={"facts": {}}))


def test_the_network_handed_over_is_at_chance():
    told = of_values(0.95, 0.1, most_frequent=0.1, chosen=replace(sample(2).run.chosen, level=1))
    assert told[0].startswith("Level 1, the chosen one, is at chance: 10.00 % validation accuracy on 300 samples")


@pytest.mark.parametrize(
    ("labels", "share"),
    [
        (torch.tensor([0, 1, 1, 1]), 0.75),
        (torch.tensor([0, 1, 2, -100, -100, 2]), 0.5),
        (torch.tensor([3]), 1.0),
        (torch.tensor([-100]), None),
        (torch.tensor([0.5, 0.5]), None),
        (torch.tensor([[0, 1], [1, 1]]), None),
    ],
)
def test_the_most_frequent_label(labels, share):
    split = Split(torch.zeros(len(labels), 1), labels)
    assert most_frequent(Data(name="x", train=split, validation=split)) == share
    assert most_frequent(Data(name="x", train=split, validation=[(split.x, split.y)])) is None


@pytest.mark.parametrize(
    ("dense", "control", "steps", "samples", "told"),
    [
        (0.8633, 0.9733, 15, 300, True),
        (0.8633, 0.8733, 15, 300, False),  # within noise
        (0.8633, 0.9733, 600, 300, False),  # many steps
        (0.8633, 0.8833, 15, 10_000, True),
        (0.9733, 0.8633, 15, 300, False),  # the control is worse
        (0.8633, 0.9733, 15, None, False),  # how many were judged is not known
    ],
)
def test_an_undertrained_dense_network(dense, control, steps, samples, told):
    found = [x for x in of_values(dense, dense, control=control, steps=steps, samples=samples) if "undertrained" in x]
    assert len(found) == told
    if told:
        assert f"{100 * dense:.2f} % after the 15 steps of level 0, {100 * control:.2f} % after the" in found[0]


@pytest.mark.parametrize(
    ("points", "samples", "told"), [(0.5, 300, True), (0.5, 100_000, False), (5.0, 300, False), (1.0, 1500, True)]
)
def test_a_validation_split_too_small_for_the_margin(points, samples, told):
    choose = {"type": "SparsestWithin", "points": points, "density": None, "relative": False}
    found = [x for x in of_values(0.9, 0.9, samples=samples, description={"choose": choose}) if "small" in x]
    assert len(found) == told
    assert not told or f"within {points:g} point{'s' * (points != 1)}: on {samples:,} samples" in found[0]
    assert not any(
        "small" in x for x in of_values(0.9, 0.9, description={"choose": {"type": "AtDensity", "density": 0.1}})
    )


def test_nothing_dense():
    s = sample(3, control=False)
    (told,) = said(s, s.levels[1:])
    assert told.startswith("There is nothing dense to compare with")
    assert said(s, s.levels) == []
    assert said(s, ()) == []


# -- levels summed up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([4], "Level 4"),
        ([4, 5], "Levels 4 and 5"),
        ([4, 5, 6, 7, 8, 9, 10], "Levels 4 to 10"),
        ([2, 5, 7, 8, 9], "Levels 2, 5 and 7 to 9"),
    ],
)
def test_spans(numbers, text):
    assert spans(numbers) == text


def test_levels_are_summed_up_and_each_thing_is_said_once(tmp_path, capsys):
    s = sample(11)
    first, *_, last = (layer.name for layer in s.levels[0].layers)
    counts = [58, 410, 99, 200, 300, 310, 320]
    levels = [*s.levels[:4]]
    for x, count in zip(s.levels[4:11], counts, strict=True):
        collapse = Collapse(
            cut_off={first: count}, dead_outputs={last: 1 + x.level % 3, first: 7}, nearly_empty=(first,)
        )
        levels.append(replace(x, collapse=collapse, floors=(f"{last}[3]",)))
    levels = (*levels, *s.levels[11:])
    expected = [
        f"Levels 4 to 10: 1 to 3 outputs have no weight left in the last layer, '{last}'",
        "Levels 4 to 10: 58 to 410 kept weights lie on no path from the input to the output",
        f"Levels 4 to 10: hardly a weight is left in '{first}'",
        f"Levels 4 to 10: min_keep changed what was removed in '{last}[3]'",
    ]
    assert said(s, levels) == expected
    tell(s.run, levels, s.evaluation, tmp_path / "report.html")
    assert capsys.readouterr().out.splitlines()[-4:] == [f"Note: {x}." for x in expected]
    page = report.page(s.run, levels, s.times, s.evaluation)
    assert [page.count(x.replace("'", "&#39;") + ".") for x in expected] == [1, 1, 1, 1]


def test_the_target_that_was_missed_is_the_last_word(tmp_path, capsys):
    s = sample(3, control=False)
    chosen = replace(s.run.chosen, missed="too many weights")
    tell(replace(s.run, chosen=chosen), s.levels[1:], None, tmp_path / "report.html")
    assert [x[:6] for x in capsys.readouterr().out.splitlines()[-2:]] == ["Note: ", "Not wh"]


def test_a_loss_that_is_no_number():
    s = sample(6)
    broken = [replace(x, observations=(replace(x.observations[-1], train_loss=math.nan),)) for x in s.levels[3:6]]
    assert said(s, (*s.levels[:3], *broken, *s.levels[6:])) == ["Levels 3 to 5: the loss was not a finite number"]


# -- records -----------------------------------------------------------------------------------------------------


def test_records_without_these_numbers_are_read():
    s = sample(2)
    old = to_json(s.run)
    del old["most_frequent"]
    assert from_json(RunRecord, old) == s.run
    seen = to_json(s.levels[0].observations[-1])
    del seen["samples"]
    assert from_json(Observation, seen).samples is None
    assert isinstance(s.evaluation, Evaluation)
