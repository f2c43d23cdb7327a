"""When pruning ends and which level is chosen, on histories written by hand; and what a user is told of it."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

from sparsight.cli.entry import main
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes.lottery import lottery
from sparsight.recipes.oneshot import oneshot
from sparsight.recipes.sap import sap
from sparsight.records.folder import RunFolder
from sparsight.records.identity import describe
from sparsight.records.record import LevelRecord
from sparsight.runs.choose import SparsestWithin
from sparsight.runs.ending import AccuracyFloor, AtPQMinimum, PQMinimum, SearchStop
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Done, Search, Until
from sparsight.train.observation import Observation
from sparsight.train.plan import TrainingPlan
from sparsight.types import check_allocator
from sparsight.zoo.data import digits
from sparsight.zoo.networks import linear, mlp

FALL_RISE = (0.30, 0.22, 0.20, 0.205, 0.215, 0.22, 0.26)
"""Lowest at level 2; levels 4 and 5 lie more than 0.01 above it, level 3 does not."""


def record(
    level: int, index: float, kept: int, accuracy: float | None = 0.9, role: str = "level", **more: object
) -> LevelRecord:
    seen = (Observation(1.0, 1, validation_accuracy=accuracy, reason="end"),)
    fields = {
        "level": level, "role": role, "id": f"{role}{level}", "parent": None, "operation": {}, "kept": kept,
        "total": 1000, "layers": (), "pq_pairs": ((0.5, 1.0), (1.0, 2.0)), "pq": (0.5, index), "groups": (),
        "floors": (), "collapsed": (), "observations": seen, "epochs": 1.0, "steps": 1,
    }  # fmt: skip
    return LevelRecord(**{**fields, **more})


def history(indices, accuracies=None) -> list[LevelRecord]:
    """Half of what is left goes at each level."""
    accuracies = accuracies or [0.9] * len(indices)
    return [record(i, x, 1000 >> i, a) for i, (x, a) in enumerate(zip(indices, accuracies, strict=True))]


def stops_at(rule: SearchStop, levels: list[LevelRecord]) -> int | None:
    """The first level after which the rule ends the search."""
    return next((i for i in range(len(levels)) if rule.stop(levels[: i + 1])), None)


class TestPQMinimum:
    def test_ends_when_two_levels_in_a_row_lie_above_the_minimum(self):
        rule, levels = PQMinimum(), history(FALL_RISE)
        assert stops_at(rule, levels) == 5
        why = rule.stop(levels[:6])
        assert "PQ index (1, 2)" in why
        assert "0.2000 at level 2 (density 25 %)" in why
        assert "0.2200 at level 5 (density 3.1 %)" in why

    def test_ends_at_once_after_a_leap(self):
        assert stops_at(PQMinimum(), history((0.3, 0.2, 0.229, 0.19, 0.2201))) == 4, "0.029 above is not beyond doubt"

    def test_the_pair_is_the_one_asked_for(self):
        levels = [dataclasses.replace(x, pq=(x.pq[1], 0.5 - x.pq[1] / 2)) for x in history(FALL_RISE)]
        assert stops_at(PQMinimum(0.5, 1.0), levels) == 5
        assert stops_at(PQMinimum(1.0, 2.0), levels) != 5
        with pytest.raises(ValueError, match=r"level 0 has no PQ index \(0.3, 1\): it records \(0.5, 1\)"):
            PQMinimum(0.3, 1.0).stop(levels)

    def test_the_tolerance_counts(self):
        assert stops_at(PQMinimum(tolerance=0.003), history(FALL_RISE)) == 4
        assert stops_at(PQMinimum(tolerance=0.1), history(FALL_RISE)) is None
        for bad in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="tolerance must be"):
                PQMinimum(tolerance=bad)

    @pytest.mark.parametrize("indices", [(), (0.3,), (0.3, 0.25, 0.2, 0.15, 0.1), (0.3, math.nan, math.nan)])
    def test_goes_on_while_there_is_nothing_to_see(self, indices):
        assert PQMinimum().stop(history(indices)) is None

    def test_what_came_later_changes_nothing(self):
        levels = history((*FALL_RISE, 0.1, 0.0))
        assert PQMinimum().stop(levels) == PQMinimum().stop(levels[:6])


class TestAccuracyFloor:
    def test_ends_at_the_first_level_below(self):
        levels = history([0.3] * 4, [0.9, 0.91, 0.895, 0.8949])
        assert stops_at(AccuracyFloor(0.5), levels) == 3, "exactly 0.5 points below is allowed"
        assert stops_at(AccuracyFloor(0.6), levels) is None
        assert AccuracyFloor(0.5).stop(levels) == (
            "validation accuracy at level 3 (density 12.5 %) is more than 0.5 points below dense: "
            "89.49 % against 90.00 % (-0.51 points)"
        )

    def test_only_the_last_level_counts(self):
        assert AccuracyFloor(0.5).stop(history([0.3] * 3, [0.9, 0.8, 0.9])) is None

    def test_without_dense_or_accuracy_it_never_ends(self):
        assert AccuracyFloor(0.5).stop([]) is None
        assert AccuracyFloor(0.5).stop(history([0.3] * 2, [0.9, 0.1])[1:]) is None
        assert AccuracyFloor(0.5).stop(history([0.3] * 2, [0.9, None])) is None
        assert AccuracyFloor(0.5).stop(history([0.3] * 2, [0.9, math.nan])) is None
        for bad in (-0.1, math.nan):
            with pytest.raises(ValueError, match="points must be"):
                AccuracyFloor(bad)


class TestAtPQMinimum:
    def test_takes_the_level_at_the_minimum_and_says_what_it_costs(self):
        levels = history(FALL_RISE, [0.9, 0.91, 0.893, 0.95, 0.9, 0.8, 0.7])
        choice = AtPQMinimum()(levels)
        assert (choice.level, choice.id) == (2, "level2")
        assert choice.why == (
            "the PQ index (1, 2) is lowest here, 0.2000 at density 25 %, and has risen since: 0.2200 at level 5; "
            "validation accuracy 89.30 % against 90.00 % dense (-0.70 points)"
        )

    def test_says_from_where_on_the_index_was_as_low_but_for_the_tolerance(self):
        levels = history((0.3, 0.209, 0.2, 0.23, 0.24), [0.9, 0.91, 0.893, 0.95, 0.9])
        choice = AtPQMinimum()(levels)
        assert choice.level == 2
        assert choice.why.endswith(
            "; it is within 0.01 of that from level 1 (density 50 %, validation accuracy 91.00 %)"
        )
        assert "within 0.005" not in AtPQMinimum(tolerance=0.005)(levels).why

    @pytest.mark.parametrize("indices", [FALL_RISE[:5], (0.3, 0.2, 0.1, 0.05, 0.01), (math.nan,) * 5])
    def test_without_a_confirmed_minimum_the_accuracy_decides(self, indices):
        """A collapsing network's index may fall below everything before it."""
        levels = history(indices, [0.9, 0.91, 0.905, 0.897, 0.3])
        choice = AtPQMinimum()(levels)
        assert choice.level == 3
        assert choice.why == f"the PQ index (1, 2) has no confirmed minimum, so {SparsestWithin(0.5)(levels).why}"
        assert AtPQMinimum(otherwise=SparsestWithin(0.0))(levels).level == 2

    def test_the_control_is_no_candidate(self):
        levels = history(FALL_RISE)[1:]
        control = record(7, 0.01, 1000, 0.92, role="control")
        choice = AtPQMinimum()([*levels, control])
        assert choice.id == "level2"
        assert "against 92.00 % dense" in choice.why, "without a dense level it is compared with the control"
        assert "against" not in AtPQMinimum()(levels).why
        with pytest.raises(ValueError, match="the run has none"):
            AtPQMinimum()([control])


class TestUntilStop:
    level = Level((Shrink(0.5),))

    def test_the_rule_ends_the_search(self):
        search = Until(self.level, levels=30, stop=PQMinimum())
        levels = history(FALL_RISE)
        assert search.next([]) == Level()
        assert [search.next(levels[: i + 1]) for i in range(5)] == [self.level] * 5
        assert search.next(levels[:6]) == Done(PQMinimum().stop(levels[:6]))

    def test_other_ends_say_that_the_rule_saw_nothing(self):
        levels = history(FALL_RISE[:4])
        assert Until(self.level, levels=3, stop=PQMinimum()).next(levels) == Done(
            "all 3 pruned levels are done (density 12.5 %), with no confirmed minimum of the PQ index (1, 2)"
        )
        assert Until(self.level, density=0.2, stop=AccuracyFloor(2)).next(levels) == Done(
            "density 12.5 % has reached the target of 20 %, with no level more than 2 points below dense on "
            "validation data"
        )
        assert Until(self.level, stop=PQMinimum()).next(levels) == self.level

    def test_a_rule_of_ones_own(self):
        class Never:
            def stop(self, history):
                return None

        assert Until(self.level, stop=Never()).next(history(FALL_RISE)) == self.level


def search_of(recipe: Recipe) -> Until:
    assert isinstance(recipe.levels, Until)
    return recipe.levels


class TestRecipes:
    @pytest.mark.parametrize("make", [sap, lottery, oneshot])
    def test_what_the_options_mean(self, make):
        plain, density = search_of(make()), 0.1
        assert (plain.density, plain.levels, plain.stop, make().choose) == (density, 15, None, SparsestWithin(0.5))
        pair = (1.0, 2.0) if make is sap else (0.5, 1.0)
        at_minimum = make(until="pq-minimum")
        assert search_of(at_minimum).levels == 30
        assert search_of(make(until="pq-minimum", levels=3)).levels == 3
        assert (search_of(at_minimum).density, search_of(at_minimum).stop) == (None, PQMinimum(*pair))
        assert at_minimum.choose == AtPQMinimum(*pair)
        assert at_minimum.pq[0] == pair
        both = make(until="pq-minimum", within=0.3, target_density=0.02)
        assert (search_of(both).density, both.choose) == (0.02, SparsestWithin(0.3))
        floor = make(until="accuracy")
        assert (search_of(floor).density, search_of(floor).stop) == (None, AccuracyFloor(0.5))
        assert search_of(make(until="accuracy", within=2.0)).stop == AccuracyFloor(2.0)
        assert floor.choose == SparsestWithin(0.5)
        with pytest.raises(ValueError, match="until must be one of 'density', 'pq-minimum', 'accuracy'"):
            make(until="never")

    def test_sap_looks_at_its_own_pair(self):
        recipe = sap(p=0.3, q=1.5, until="pq-minimum")
        assert search_of(recipe).stop == PQMinimum(0.3, 1.5)
        assert recipe.choose == AtPQMinimum(0.3, 1.5)
        assert recipe.pq[0] == (0.3, 1.5)

    def test_sap_prunes_past_the_usual_density(self):
        (allocator,) = search_of(sap(until="pq-minimum")).level.prune
        assert allocator.target_density is None
        (allocator,) = search_of(sap()).level.prune
        assert allocator.target_density == 0.1

    def test_two_searches_are_told_apart(self):
        assert describe(sap(until="pq-minimum")) != describe(sap(until="accuracy"))


# -- whole runs ------------------------------------------------------------------------------------------------

SHORT = [
    "--data",
    "digits",
    "--epochs",
    "3",
    "--batch-size",
    "100",
    "--no-control",
    "--threads",
    "1",
    "--device",
    "cpu",
]


def test_the_command_says_what_it_decided_and_why(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "oneshot", *SHORT, "--rate", "0.6", "--until", "pq-minimum", "--out", "x"]
    assert main(words) == 0
    out = capsys.readouterr().out
    ended = re.search(
        r"^Why the run ended: the PQ index \(0\.5, 1\) has passed its minimum: (0\.\d+) at level", out, re.M
    )
    chosen = re.search(
        r"^\* chosen: the PQ index \(0\.5, 1\) is lowest here, (0\.\d+) at density .* points\)$", out, re.M
    )
    assert ended
    assert chosen
    assert ended[1] == chosen[1]
    with RunFolder.open(tmp_path / "x") as folder:
        run, levels = folder.record, folder.levels()
    rule = PQMinimum(0.5, 1.0)
    assert run.why_ended == rule.stop(levels)
    assert rule.stop(levels[:-1]) is None, "not a level too many"
    assert run.chosen.level == min(levels, key=lambda x: x.pq[0]).level
    page = (tmp_path / "x/report.html").read_text()
    assert f"Why the run ended: {run.why_ended}." in page
    assert f"Why this level: {run.chosen.why}." in page
    assert main(["show", "x", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["why_ended"], shown["chosen"]["why"]) == (run.why_ended, run.chosen.why)


def test_within_says_what_it_decided(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "lottery", *SHORT, "--rate", "0.7", "--until", "accuracy", "--within", "3", "--out", "x"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "* chosen: the sparsest level within 3 points of dense on validation data: " in out
    assert re.search(r"^Why the run ended: validation accuracy at level \d+ \(density .* below dense: ", out, re.M)


def test_a_resumed_run_decides_the_same(tmp_path):
    how = oneshot(rate=0.6, epochs=2, batch_size=100, until="pq-minimum", control=False)
    net = mlp(input_shape=(1, 8, 8), classes=10, seed=0)
    whole = execute(how, model=net, data=digits(), out=tmp_path / "whole", device="cpu")

    def interrupt(event) -> None:
        if event.kind == "done" and event.level == len(whole.levels) - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(how, model=net, data=digits(), out=tmp_path / "r", device="cpu", watch=interrupt)
    again = execute(how, model=net, data=digits(), out=tmp_path / "r", device="cpu", resume=True)
    assert (again.record.why_ended, again.record.chosen) == (whole.record.why_ended, whole.record.chosen)
    assert "has passed its minimum" in whole.record.why_ended
    assert again.levels == whole.levels


class TestWhatASearchReturns:
    @pytest.mark.parametrize("wrong", [None, (Level(),), Shrink(0.5), "done"])
    @pytest.mark.parametrize("at", [0, 1])
    def test_is_a_level_or_the_end(self, wrong, at):
        """Refused when the recipe is made, or at the level; not by an attribute that is missing."""

        class Odd(Search):
            def next(self, history):
                return wrong if len(history) == at else Level(train=TrainingPlan(epochs=0))

        def all_levels():
            recipe = Recipe(name="odd", score=Magnitude(), levels=Odd())
            return list(run(recipe, linear((1, 8, 8), 10, seed=0), digits(), device="cpu"))

        with pytest.raises(TypeError, match=r"^Odd\.next must return a Level or Done\(why\), got "):
            all_levels()

    def test_wrappers_refuse_what_is_no_allocator(self):
        for wrong, lacks in ((lambda scores, masks: masks, "it lacks monotone, plan"), (Shrink, "it is a class")):
            with pytest.raises(TypeError, match=f"Shuffled holds .* which is not an allocator: {lacks}"):
                check_allocator(wrong, "Shuffled")
            with pytest.raises(TypeError):
                Shuffled(wrong)
