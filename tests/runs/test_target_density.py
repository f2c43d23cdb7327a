"""The chosen network is what was asked for: exactly a density, the sparsest network within so many points, or both."""

from __future__ import annotations

import dataclasses
import json
from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch
from torch import nn

from sparsight import recipes
from sparsight.cli.entry import main
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.restart import carry_on
from sparsight.recipes import incop, lottery, oneshot, sap, sipp
from sparsight.records.folder import RunFolder
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.choose import AtDensity, SparsestWithin
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Done, Until
from sparsight.train.observation import Observation
from sparsight.train.plan import TrainingPlan
from sparsight.types import Data, GroupRecord, Split

SHORT = {"epochs": 1, "batch_size": 32, "control": False}
LONG = {**SHORT, "warmup": 1, "evaluate_every": 1.0}


def small() -> nn.Module:
    """65 prunable weights, in rows of 10 and of 5."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 3))


def data() -> Data:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(96, 10, generator=g)
    y = (x @ torch.randn(10, 3, generator=g)).argmax(1)
    return Data(name="blobs", train=Split(x[:64], y[:64]), validation=Split(x[64:], y[64:]))


def rounded(density: float, total: int) -> int:
    return int((Decimal(str(density)) * total).quantize(Decimal(1), ROUND_HALF_UP))


def kept(recipe: Recipe) -> list[int]:
    """Weights kept at every level."""
    return [result.record.kept for result in run(recipe, small(), data(), device="cpu")]


# -- exactly the density ---------------------------------------------------------------------------------------

EXACT = {
    "lottery past it": (lottery(rate=0.6, target_density=0.1, **SHORT), [65, 26, 11, 7]),
    "lottery not there": (lottery(rate=0.1, levels=2, target_density=0.3, **SHORT), [65, 59, 20]),
    "lottery, layer": (lottery(rate=0.5, scope="layer", target_density=0.2, **SHORT), [65, 33, 17, 13]),
    "lottery, neuron": (lottery(rate=0.1, scope="neuron", levels=2, target_density=0.37, **SHORT), [65, 60, 24]),
    "lottery, never": (lottery(rate=0.0, target_density=0.5, **SHORT), [65, 65, 65, 33]),
    "oneshot": (oneshot(rate=0.7, target_density=0.11, **SHORT), [65, 20, 7]),
    "oneshot, layer": (oneshot(rate=0.2, scope="layer", levels=1, target_density=0.3, **SHORT), [65, 20]),
    "incop, lottery": (incop(prune="lottery", rate=0.5, levels=4, target_density=0.3, **LONG), [65, 33, 20]),
    "incop, never": (incop(prune="lottery", rate=0.1, levels=2, target_density=0.3, **LONG), [65, 59, 20]),
    "sipp": (sipp(variant="det", levels=2, target_density=0.3, **SHORT), [65, 52, 20]),
    "sipp, rand": (sipp(variant="rand", levels=2, target_density=0.3, **SHORT), [65, 52, 20]),
    "sipp, hybrid": (sipp(variant="hybrid", levels=2, target_density=0.3, **SHORT), [65, 52, 20]),
    "sipp, untrained": (sipp(variant="det", levels=1, target_density=0.1, untrained=True, **SHORT), [7]),
    "all of them": (lottery(target_density=1.0, **SHORT), [65]),
    "the first level": (lottery(rate=0.5, levels=1, target_density=0.1, **SHORT), [65, 7]),
}


@pytest.mark.parametrize("case", EXACT)
def test_the_last_level_is_at_exactly_the_density(case):
    recipe, counts = EXACT[case]
    assert kept(recipe) == counts


@pytest.mark.parametrize("scope", ["global", "layer", "neuron"])
@pytest.mark.parametrize("levels", [1, 2, 12])
@pytest.mark.parametrize("make", [sap, incop])
def test_sap_too(make, scope, levels):
    found = kept(make(scope=scope, levels=levels, target_density=0.3, **(SHORT if make is sap else LONG)))
    assert found[-1] == 20
    assert min(found[:-1]) > 20, "the level that reached it is the last"
    assert len(found) <= levels + 1


@pytest.mark.parametrize("make", [lottery, oneshot, sap])
def test_it_is_the_network_in_the_file(make, tmp_path):
    recipe = make(scope="layer", target_density=0.1, levels=3, **SHORT)
    outcome = execute(recipe, model=small(), data=data(), out=tmp_path / "run", device="cpu")
    with RunFolder.open(outcome.path) as folder:
        weights, masks = folder.chosen()
    assert sum(int((weights[name] != 0).sum()) for name in masks) == sum(int(m.sum()) for m in masks.values()) == 7
    chosen = outcome.record.chosen
    assert (chosen.level, chosen.missed) == (outcome.levels[-1].level, None)
    assert chosen.why.startswith("pruned to exactly 10 %, which is 7 of 65 weights; validation accuracy ")
    assert outcome.record.why_ended == "density 10.77 % has reached the target of 10 %, rounded to 7 of 65 weights"


@pytest.mark.parametrize("make", [lottery, sap])
def test_resumed_in_the_middle_it_is_the_same(make, tmp_path):
    recipe = make(scope="neuron", levels=3, target_density=0.3, within=1.0, **SHORT)
    whole = execute(recipe, model=small(), data=data(), out=tmp_path / "whole", device="cpu")

    def interrupt(event) -> None:
        if event.kind == "done" and event.level == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(recipe, model=small(), data=data(), out=tmp_path / "r", device="cpu", watch=interrupt)
    again = execute(recipe, model=small(), data=data(), out=tmp_path / "r", device="cpu", resume=True)
    assert again.levels == whole.levels
    assert (again.record.chosen, again.record.why_ended) == (whole.record.chosen, whole.record.why_ended)
    assert again.levels[-1].kept == 20


def test_a_floor_that_binds_is_said():
    """8 rows keep a weight each: 1 % of 65 cannot be met."""
    recipe = lottery(rate=0.9, scope="neuron", target_density=0.01, **SHORT)
    results = [result.record for result in run(recipe, small(), data(), device="cpu")]
    assert [r.kept for r in results] == [65, 8, 8, 8, 8]
    choice = recipe.choose(results)
    assert choice.level == 4
    assert choice.why.startswith(
        "the last level, which keeps 8 weights; the target was 1 %, which is 1 of 65 weights; "
    )
    assert choice.missed == (
        "the target density of 1 % was missed: 12.31 % of the weights are kept, 7 more than the target of 1; "
        "min_keep keeps weights in every tensor or row; try a lower min_keep or a higher target"
    )
    end = recipe.search.next(results)
    assert end == Done("two levels in a row removed nothing, and neither did the last (density 12.31 %)")
    none = kept(lottery(rate=0.9, scope="neuron", min_keep=0, target_density=0.01, **SHORT))
    assert none == [65, 8, 8, 8, 1], "floor(0.9 x 1) of a row is 0, so the last level alone gets there"


def test_the_last_level_trains_in_full():
    for make, more in ((lottery, {"rate": 0.1}), (sap, {})):
        recipe = make(carry_on=True, epochs=6, batch_size=32, levels=3, target_density=0.3, control=False, **more)
        *_, last = [result.record for result in run(recipe, small(), data(), device="cpu")]
        assert (last.kept, last.epochs) == (20, 6)


# -- what an allocator removes ---------------------------------------------------------------------------------


def layers() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    scores = {"a": torch.arange(1.0, 41).reshape(4, 10), "b": torch.arange(41.0, 61).reshape(4, 5)}
    return scores, {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}


def left(allocator) -> list[int]:
    return [int(mask.sum()) for mask in allocator(*layers()).values()]


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "exact", "counts"),
        [
            (0.75, False, [30, 15]),  # 45 stay: 15 of the 30 that the rate would remove, two thirds of them in a
            (0.75, True, [30, 15]),
            (0.25, False, [20, 10]),  # the rate alone
            (0.25, True, [10, 5]),  # 15 stay, in proportion to what the rate leaves
            (1.0, True, [40, 20]),
        ],
    )
    def test_in_proportion(self, target, exact, counts):
        assert left(Shrink(0.5, "layer", target_density=target, exact=exact)) == counts

    def test_to_the_weight_by_largest_remainders(self):
        for target in (0.34, 0.35, 0.375, 0.4):  # 20.4, 21, 22.5 and 24 of 60
            for scope in ("global", "layer", "neuron"):
                for rate in (0.0, 0.1, 0.9):
                    found = left(Shrink(rate, scope, target_density=target, exact=True))
                    assert sum(found) == rounded(target, 60), (target, scope, rate)
        assert left(Shrink(0.5, "layer", target_density=0.35, exact=True)) == [14, 7]
        assert left(SAP(1.0, 2.0, beta=0.0, scope="layer", target_density=0.35, exact=True)) == [14, 7]

    def test_floors_stay_and_the_total_too(self):
        assert left(Shrink(0.5, "layer", min_keep=6, target_density=0.25, exact=True)) == [9, 6]
        plan = Shrink(0.5, "layer", min_keep=10, target_density=0.25, exact=True).plan(*layers())
        assert [int(mask.sum()) for mask in plan.masks.values()] == [10, 10]
        assert any(group.floor_bound for group in plan.groups)

    def test_a_density_that_is_reached_stays(self):
        scores, masks = layers()
        masks["a"][:3] = False
        for allocator in (Shrink(0.5, target_density=0.5, exact=True), SAP(target_density=0.5, exact=True)):
            assert sum(int(m.sum()) for m in allocator(scores, masks).values()) == 30

    @pytest.mark.parametrize("kind", [Shrink, SAP])
    def test_refusals(self, kind):
        with pytest.raises(ValueError, match=r"target_density must be in \[0, 1\], got 1.5"):
            kind(target_density=1.5)
        with pytest.raises(ValueError, match="exact needs a target_density"):
            kind(exact=True)


# -- the search ------------------------------------------------------------------------------------------------


def record(level: int, kept: int, total: int = 65, accuracy: float | None = 0.9, **more: object) -> LevelRecord:
    fields = {
        "level": level, "role": "level", "id": f"{level}", "parent": None, "operation": {}, "kept": kept,
        "total": total, "layers": (), "pq_pairs": (), "pq": (), "groups": (), "floors": (), "collapsed": (),
        "observations": (Observation(1.0, 1, validation_accuracy=accuracy),), "epochs": 1.0, "steps": 1,
    }  # fmt: skip
    return LevelRecord(**{**fields, **more})


def may_be_last(search: Until, levels: list[LevelRecord], kept: int) -> bool:
    """Whether a level after `levels` that keeps so many weights restarts and trains as the last one."""
    level = search.next(levels)
    return search.after_pruning(levels, level, kept, 65) == dataclasses.replace(
        level, restart=search.last.restart, train=search.last.train
    )


class TestUntil:
    between, whole = TrainingPlan(epochs=2), TrainingPlan(epochs=7)
    own = Level((Shrink(0.5),), train=between)
    ends = Level((Shrink(0.5),), carry_on, whole)  # the same rounds, trained otherwise
    last = Level((Shrink(0.5, target_density=0.1, exact=True),), carry_on, whole)

    def test_counts_are_compared(self):
        """10 % of 65 weights is 7, rounded half up, and 7 / 65 is more than 0.1."""
        search = Until(self.own, density=0.1, last=self.ends)
        levels = [record(0, 65), record(1, 8), record(2, 7)]
        assert search.next(levels[:2]) == self.own
        assert search.next(levels) == Done("density 10.77 % has reached the target of 10 %, rounded to 7 of 65 weights")
        assert [may_be_last(search, levels[:1], count) for count in (8, 7, 6)] == [False, True, True]
        assert search.after_pruning(levels[:1], self.own, 7, 65) == self.ends
        assert search.after_pruning(levels[:1], self.own, 8, 65) == self.own

    def test_other_rounds_at_the_last_level(self):
        search = Until(self.own, density=0.1, levels=2, last=self.last)
        levels = [record(0, 65), record(1, 33), record(2, 30)]
        assert [search.next(levels[:n]).prune for n in (0, 1, 2)] == [(), self.own.prune, self.last.prune]
        assert search.next(levels) == Done("all 2 pruned levels are done (density 46.15 %)")
        assert [search.upcoming(levels[:n]) for n in (0, 1)] == [self.own.prune, self.last.prune]
        assert [may_be_last(search, levels[:n], 33) for n in (1, 2)] == [False, True]
        assert search.after_pruning(levels[:2], search.next(levels[:2]), 33, 65) == self.last

    def test_other_rounds_after_two_that_removed_nothing(self):
        search = Until(self.own, density=0.1, levels=9, last=self.last)
        levels = [record(0, 65), record(1, 33), record(2, 33), record(3, 33), record(4, 9)]
        rounds = [search.next(levels[:n]).prune for n in (2, 3, 4)]
        assert rounds == [self.own.prune, self.own.prune, self.last.prune]
        assert [may_be_last(search, levels[:n], 33) for n in (2, 3, 4)] == [False, False, True]
        assert "neither did the last" in search.next(levels).why
        for same in (None, self.ends):
            end = Until(self.own, density=0.1, last=same).next(levels[:4])
            assert "removed nothing (" in end.why, "as ever, without other rounds"


# -- which level is chosen -------------------------------------------------------------------------------------


class TestChoice:
    def test_at_density(self):
        levels = [record(0, 65), record(1, 30, accuracy=0.95), record(2, 7, accuracy=0.85)]
        said = "pruned to exactly 10 %, which is 7 of 65 weights; validation accuracy 85.00 % against 90.00 % dense"
        assert AtDensity(0.1)(levels).why == f"{said} (-5.00 points)" + (
            "; the last step removed 76.67 % of the remaining weights: more levels make smaller steps"
        )
        assert AtDensity(0.1)(levels).missed is None
        short = AtDensity(0.3)(levels[:2])
        assert short.missed == (
            "the target density of 30 % was missed: 46.15 % of the weights are kept, 10 more than the target of 20; "
            "the search ended at 46.15 %; try more levels"
        )
        assert AtDensity(0.2)(levels).missed == "6 weights fewer are kept than the 13 of 20 %"
        with pytest.raises(ValueError, match="the run has none"):
            AtDensity(0.2)([])
        for bad in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match="density must be in"):
                AtDensity(bad)

    def test_both(self):
        levels = [record(0, 65), record(1, 30, accuracy=0.896), record(2, 7, accuracy=0.8769)]
        choice = SparsestWithin(0.5, density=0.1)(levels)
        assert choice.level == 1
        assert choice.missed == (
            "the target density of 10 % was missed: 46.15 % of the weights are kept, 23 more than the target of 7; "
            "level 2, which reaches it, is 2.31 points below dense, more than within 0.5 allows; "
            "try within 2.31, more epochs, or more levels for smaller steps"
        )
        assert SparsestWithin(2.31, density=0.1)(levels) == Choice(2, "2", SparsestWithin(2.31, 0.1)(levels).why)
        assert SparsestWithin(2.3, density=0.1)(levels).level == 1
        assert SparsestWithin(0.5)(levels).missed is None, "without a target none is missed"
        assert "try more levels" in str(SparsestWithin(0.5, density=0.1)(levels[:2]).missed)
        held = record(2, 9, groups=(GroupRecord("global", 30, 21, floor_bound=True),))
        assert "lower min_keep" in str(SparsestWithin(0.5, density=0.1)([*levels[:2], held]).missed)

    def test_what_was_not_tried_is_said(self):
        levels = [record(0, 65), record(1, 30), record(2, 7, accuracy=0.5)]
        assert SparsestWithin(0.5)(levels[:2]).why.endswith("; no sparser level was tried")
        assert SparsestWithin(0.5)(levels).why.endswith(" points)")

    def test_the_question(self):
        assert AtDensity(0.1).question == "Pruning to exactly 10 % of the prunable weights."
        assert SparsestWithin(1).question == "Looking for the sparsest network within 1 point of the dense one."
        assert SparsestWithin(0.5, 0.025).question == (
            "Looking for the sparsest network within 0.5 points of the dense one, down to exactly 2.5 % of the "
            "prunable weights."
        )


AT_INIT = ("grasp", "magnitude_at_init", "random_at_init", "sbp", "sbp_sr", "snip", "synflow")
ITERATIVE = ("incop", "lottery", "oneshot", "sap", "sipp")


def test_every_recipe_is_here():
    assert {*AT_INIT, *ITERATIVE} == set(recipes.__all__)


@pytest.mark.parametrize("name", ITERATIVE)
def test_the_two_questions(name):
    make = getattr(recipes, name)
    assert make().choose == SparsestWithin(0.5)
    assert make(target_density=0.2).choose == AtDensity(0.2)
    assert make(within=2.0).choose == SparsestWithin(2.0)
    assert make(target_density=0.2, within=2.0).choose == SparsestWithin(2.0, density=0.2)
    if name != "sipp":
        assert make(target_density=0.0).choose == SparsestWithin(0.5)
        free = make(target_density=0.0).levels
        assert (free.density, free.last.prune) == (None, free.level.prune), "the last level prunes as the others do"
        assert make(within=2.0).levels == make().levels


@pytest.mark.parametrize("name", AT_INIT)
def test_before_training_there_is_one(name):
    assert getattr(recipes, name)(density=0.2).choose == AtDensity(0.2)
    assert getattr(recipes, name)().choose == AtDensity(0.05)


@pytest.mark.parametrize("make", [sap, lottery, oneshot])
def test_with_another_until_the_density_is_a_limit(make):
    how = make(until="accuracy", target_density=0.2)
    assert (how.levels.density, how.choose) == (0.2, SparsestWithin(0.5))
    assert how.levels.last == how.levels.level
    (allocator,) = how.levels.level.prune
    assert (allocator.target_density, allocator.exact) == (0.2, False)


# -- the command -----------------------------------------------------------------------------------------------

COMMAND = ["--data", "digits", "--epochs", "1", "--batch-size", "250", "--no-control", "--threads", "1", "--out", "x"]


def lines(words: list[str], capsys) -> list[str]:
    assert main(words) == 0
    return capsys.readouterr().out.splitlines()


def test_the_command_says_what_it_answers_and_what_it_missed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = lines(["run", "oneshot", *COMMAND, "--rate", "0.99", "--target-density", "0.001", "--within", "0"], capsys)
    assert out[0] == SparsestWithin(0.0, density=0.001).question
    assert out[1].startswith("running oneshot on digits")
    with RunFolder.open(tmp_path / "x") as folder:
        run, levels = folder.record, folder.levels()
    assert [level.kept for level in levels] == [43520, 436, 44]
    assert run.chosen.level == 0
    assert run.chosen.missed.startswith(
        "the target density of 0.1 % was missed: 100 % of the weights are kept, 43,476 more than the target of 44; "
        "level 2, which reaches it, is "
    )
    assert out[-1] == f"Not what was asked for: {run.chosen.missed}."
    assert lines(["show", "x"], capsys)[-2] == out[-1]  # and last what is real
    assert f"Not what was asked for: {run.chosen.missed}." in (tmp_path / "x/report.html").read_text()
    assert json.loads("\n".join(lines(["show", "x", "--json"], capsys)))["chosen"]["missed"] == run.chosen.missed


def test_the_command_hands_over_the_density(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = lines(["run", "lottery", *COMMAND, "--rate", "0.9", "--target-density", "0.1"], capsys)
    assert out[0] == "Pruning to exactly 10 % of the prunable weights."
    assert any(line.startswith("* chosen: pruned to exactly 10 %, which is 4,352 of 43,520 weights;") for line in out)
    assert "Report: x/report.html" in out


def test_a_choice_of_ones_own_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nfrom sparsight.records.record import Choice\nfrom sparsight.recipes import lottery\n\n"
        "def first(records):\n    return Choice(0, records[0].id, 'the first')\n\n"
        "def recipe(*, epochs: int = 1, batch_size: int = 250, control: bool = False):\n"
        "    return dataclasses.replace(lottery(epochs=epochs, levels=0, control=control), choose=first)\n"
    )
    out = lines(["run", "mine:recipe", *COMMAND], capsys)
    assert out[0] == "The recipe's own rule chooses a level."
