"""The stopping study: its arithmetic on numbers written by hand, its trials, and its rows and page from a real run."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from study_files import study_modules

from sparsight import dense, execute
from sparsight.pruning import SiPPDet, carry_on
from sparsight.records.identity import describe

parts = study_modules(
    "stopping", "arithmetic", "gather", "networks", "results", "rules", "study", "summary", "tables", "ways"
)
T2, T4 = 4.302652729911275, 2.7764451051977987  # t(0.975) with 2 and 4 degrees of freedom


# -- arithmetic ------------------------------------------------------------------------------------------------


def test_between_is_linear_and_extrapolates_nothing(parts):
    curve = [(25.0, 88.0), (21.5, 86.0), (39.0, 88.7)]
    assert parts.arithmetic.between(curve, 23.25) == pytest.approx(87.0)
    assert parts.arithmetic.between(curve, 25.0) == pytest.approx(88.0)
    assert parts.arithmetic.between(curve, 32.0) == pytest.approx(88.35)
    assert parts.arithmetic.between(curve, 39.0 + 1e-12) == pytest.approx(88.7)
    assert parts.arithmetic.between(curve, 21.4) is None
    assert parts.arithmetic.between(curve, 39.1) is None


def test_equal_places_count_as_their_mean(parts):
    assert parts.arithmetic.between([(1.0, 2.0), (1.0, 4.0), (2.0, 5.0)], 1.5) == pytest.approx(4.0)


def test_the_matched_control_lies_at_the_mean_cost_and_is_taken_seed_by_seed(parts):
    costs = [{0: 21.5, 1: 21.5}, {0: 25.0, 1: 25.0}, {0: 81.0, 1: 81.0}]
    accuracies = [{0: 86.0, 1: 80.0}, {0: 88.0, 1: 81.0}, {0: 89.0, 1: 90.0}]
    rule = {0: 21.5, 1: 25.0}  # in the mean 23.25: half way
    assert parts.arithmetic.matched(costs, accuracies, rule) == {0: pytest.approx(87.0), 1: pytest.approx(80.5)}


def test_the_matched_control_takes_the_place_of_budgets_from_common_seeds(parts):
    costs = [{0: 20.0, 1: 30.0, 2: 99.0}, {0: 40.0, 1: 50.0}]  # seed 2 lacks a budget: places are 25 and 45
    accuracies = [{0: 80.0, 1: 82.0, 2: 0.0}, {0: 84.0, 1: 90.0}]
    found = parts.arithmetic.matched(costs, accuracies, {0: 35.0, 1: 35.0, 2: 35.0})
    assert found == {0: pytest.approx(82.0), 1: pytest.approx(86.0)}
    assert parts.arithmetic.matched(costs, accuracies, {0: 60.0, 1: 60.0}) == {}
    assert parts.arithmetic.matched([], [], {0: 1.0}) == {}


# -- tables ----------------------------------------------------------------------------------------------------


def row(rule: str, setting: str, seed: int, epochs: float, test: float, **changed: Any) -> dict[str, Any]:
    seconds = {"seconds_train": epochs / 2, "seconds_validate": 1.0, "seconds_measure": 0.1}
    found = {"block": "lenet-lottery", "rule": rule, "setting": setting, "seed": seed, "epochs": epochs}
    found |= {"levels": 8, "density": 0.0577, "kept": 15347, "mean_middle_epochs": (epochs - 18) / 7, **seconds}
    return {**found, "test_accuracy": test / 100, "validation_accuracy": (test + 1) / 100, **changed}


def some(seeds: range) -> list[dict[str, Any]]:
    """Fixed budgets of 1 and 9, and a rule between them that is better than its control by 0.2, 0.3 and so on."""
    found = []
    for seed in seeds:
        found += [row("fixed", "1", seed, 25.0, 87.0 + seed), row("fixed", "9", seed, 81.0, 89.0 + seed)]
        found += [row("mask-stable", "loose", seed, 27.0 - seed % 2, 87.25 + seed + 0.01 * seed)]
    return found


def test_the_table_compares_with_the_full_budget_and_the_matched_control(parts):
    found = parts.tables.table(parts.tables.cells(some(range(3)), searched=True))
    rule = next(r for r in found if r["rule"] == "mask-stable")
    epochs = (27 + 26 + 27) / 3
    control = 87.0 + 2.0 * (epochs - 25) / 56
    assert rule["test_minus_full"] == pytest.approx(87.26 - 89.0)
    assert rule["test_minus_matched"] == pytest.approx(87.26 - control)
    assert rule["test_minus_matched_half_width"] == pytest.approx(T2 * 0.01 / math.sqrt(3))
    assert rule["validation_minus_matched"] == pytest.approx(87.26 - control)
    assert rule["test_verdict"] == "above"
    assert rule["of_full_epochs"] == pytest.approx(epochs / 81)
    one = next(r for r in found if r["setting"] == "1")
    assert (one["test_minus_full"], one["test_minus_matched"]) == (pytest.approx(-2.0), None)
    full = next(r for r in found if r["setting"] == "9")
    assert (full["test"], full["test_minus_full"]) == (pytest.approx(90.0), None)


def test_search_and_confirmation_do_not_mix(parts):
    rows = some(range(8))
    assert {s for runs in parts.tables.cells(rows, searched=True).values() for s in runs} == {0, 1, 2}
    assert {s for runs in parts.tables.cells(rows, searched=False).values() for s in runs} == {3, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("lost", "epochs", "passes"), [(0.1, 27.0, True), (0.1, 27.5, False), (0.4, 27.0, False), (0.28, 27.0, False)]
)
def test_a_setting_passes_by_its_cost_and_by_its_interval(parts, lost, epochs, passes):
    rows = []
    for seed in range(3, 8):
        rows += [row("fixed", "9", seed, 81.0, 89.0 + seed), row("fixed", "1", seed, 25.0, 88.0 + seed)]
        rows += [row("pqi-stable", "loose", seed, epochs, 89.0 + seed - lost + 0.02 * (seed - 5))]
    found = parts.tables.confirmation(parts.tables.cells(rows, searched=False))
    rule = next(r for r in found if r["rule"] == "pqi-stable")
    assert rule["test_minus_full"] == pytest.approx(-lost)
    # deviation of 0.02 x (-2, -1, 0, 1, 2); at a loss of 0.28 the mean is within the bar and the interval is not
    assert rule["test_minus_full_half_width"] == pytest.approx(T4 * 0.02 * math.sqrt(2.5) / math.sqrt(5))
    assert rule["passes"] is passes
    assert rule["test_minus_one_epoch"] == pytest.approx(1.0 - lost)


def test_candidates_are_chosen_on_validation_data_and_by_their_cost(parts):
    rows = [
        row("fixed", "9", 0, 81.0, 89.0),
        row("fixed", "1", 0, 25.0, 88.0, validation_accuracy=0.885),
        row("mask-stable", "loose", 0, 26.0, 99.0, validation_accuracy=0.880),  # better on the test split alone
        row("pqi-stable", "loose", 0, 40.0, 89.0, validation_accuracy=0.899),  # too dear
    ]
    found = parts.tables.candidates(parts.tables.table(parts.tables.cells(rows, searched=True)))
    assert [(r["rule"], r["allowed"]) for r in found] == [("fixed", True), ("mask-stable", True), ("pqi-stable", False)]
    assert found[0]["validation_minus_full"] == pytest.approx(88.5 - 90.0)


def test_a_setting_that_a_block_lacks_is_no_candidate(parts):
    rows = [*some(range(1)), row("fixed", "9", 0, 81.0, 89.0, block="cnn-lottery")]
    rows += [row("fixed", "1", 0, 25.0, 89.0, block="cnn-lottery")]
    found = parts.tables.candidates(parts.tables.table(parts.tables.cells(rows, searched=True)))
    assert [(r["rule"], r["setting"]) for r in found] == [("fixed", "1")]


def test_unequal_densities_are_told(parts):
    rows = some(range(1))
    assert [r["equal"] for r in parts.tables.densities(parts.tables.cells(rows, searched=True))] == [True]
    rows[0]["kept"] -= 1
    (found,) = parts.tables.densities(parts.tables.cells(rows, searched=True))
    assert (found["equal"], found["least_kept"], found["most_kept"]) == (False, 15346, 15347)


# -- trials ----------------------------------------------------------------------------------------------------


def test_trials_differ_and_early_seeds_come_first(parts):
    trials = parts.study.trials()
    keys = [trial.key for _, trial in trials]
    assert len(set(keys)) == len(keys)
    seeds = [trial.seed for _, trial in trials]
    assert seeds == sorted(seeds)
    assert set(seeds) == {0, 1, 2}
    budgets = {(block, t.arguments["setting"]) for block, t in trials if t.arguments["rule"] == "fixed"}
    assert {(block, setting) for block in parts.study.BLOCKS for setting in ("0.5", "1", "9")} <= budgets


def test_what_was_looked_at_four_times_is_judged_by_wider_intervals(parts):
    found = parts.study.confirming("carried-recovery", "3")
    seeds = {block: {t.seed for b, t in found if b == block} for block in parts.study.BLOCKS}
    assert {block: (min(of), max(of)) for block, of in seeds.items()} == {
        "lenet-lottery": (8, 27), "lenet-sap": (8, 17), "cnn-lottery": (8, 67),
    }  # fmt: skip
    rows = []
    for seed in range(8, 13):
        rows += [
            row("fixed", "9", seed, 81.0, 89.0),
            row("carried-recovery", "3", seed, 27.0, 89.0 + 0.02 * (seed - 10)),
        ]
    (told,) = parts.tables.confirmation(parts.tables.cells(rows, searched=False))
    assert told["confidence"] == pytest.approx(1 - 0.05 / 4)
    t = 4.314656049  # t(1 - 0.05 / 8) with 4 degrees of freedom
    assert told["test_minus_full_half_width"] == pytest.approx(t * 0.02 * math.sqrt(2.5) / math.sqrt(5))


def test_blocks_that_came_later_are_run_where_they_are_named_and_judged_by_one_look(parts, capsys):
    def listed(*more: str) -> set[str]:
        assert parts.study.main(["--confirm", "carried-recovery", "3", "--list", *more]) == 0
        return {line.split("\t")[1] for line in capsys.readouterr().out.splitlines() if "\t" in line}

    assert listed() == set(parts.study.BLOCKS)
    assert listed("--only", "cnn-sipp") == {"cnn-sipp"}
    assert set(parts.study.THEIRS) == set(parts.study.LATER) == set(parts.tables.ONCE)
    rows = [
        {**row(rule, setting, seed, epochs, accuracy), "block": "cnn-sipp"}
        for seed in range(100, 103)
        for rule, setting, epochs, accuracy in (("fixed", "9", 81.0, 89.0), ("carried-recovery", "3", 27.0, 89.0))
    ]
    (told,) = parts.tables.confirmation(parts.tables.cells(rows, searched=False))
    assert told["confidence"] == 0.95


def test_the_cnn_is_pruned_in_every_way_with_the_same_densities(parts):
    found = parts.ways.trials()
    assert len({trial.key for trial in found}) == len(found) == 2 * 7
    recipes = {t.label: parts.networks.sipp(**t.arguments, seed=t.seed) for t in found if t.seed == 100}
    for way, recipe in recipes.items():
        assert [level.prune[0].density for level in recipe.levels[1:]] == pytest.approx([0.7**n for n in range(1, 9)])
        assert recipe.levels[1].prune[0].refill == recipe.scoring.scorer.propagate == way.endswith("refilled")
        assert isinstance(recipe.scoring.scorer, parts.networks.Size) == way.startswith("magnitude")
    scorers = {way: recipe.scoring.scorer for way, recipe in recipes.items() if not way.startswith("magnitude")}
    reductions = {way: scorer.reduction for way, scorer in scorers.items()}
    assert {way for way, reduction in reductions.items() if reduction == "mean"} == {"det, mean", "det, mean, refilled"}


def test_size_ranks_by_magnitude_and_knows_what_is_dead(parts):
    model = parts.networks.SmallCNN((2, 3, 4))
    masks = dense(model)
    batch = (torch.rand(12, 1, 28, 28), torch.arange(12) % 10)
    scores = parts.networks.Size(points=12, propagate=True)(model, masks, [batch])
    plan = SiPPDet(0.3).plan({name: p.abs() for name, p in scores.items()}, masks)
    refilled = SiPPDet(0.3, refill=True).plan(scores, masks)
    for name in masks:
        assert torch.equal(scores[name], model.get_parameter(name).abs())
    assert sum(int(m.sum()) for m in refilled.masks.values()) == sum(int(m.sum()) for m in plan.masks.values())
    assert not any(
        bool((d & refilled.masks[n]).any()) for n, d in scores.silent(refilled.masks, None).items() if n in masks
    )


def test_confirming_trials_are_paired_on_new_seeds(parts):
    found = parts.study.confirming("mask-stable", "loose")
    assert {trial.seed for _, trial in found} == {3, 4, 5, 6, 7}
    assert len(found) == 5 * 3 * 3
    assert len(parts.study.confirming("fixed", "1")) == 5 * 3 * 2


def test_sap_ends_at_the_lottery_ticket_s_last_count(parts):
    left = parts.study.PRUNABLE
    for _ in range(8):
        left -= math.floor(0.3 * left + 1e-9)
    assert left == parts.study.KEPT


def test_a_rule_acts_between_the_first_and_the_last_level(parts):
    for rule, setting in [("fixed", "0.5"), *parts.rules.SETTINGS]:
        recipe = parts.networks.lottery(rule=rule, setting=setting)
        search = recipe.search
        ends = [describe(level.train.stop) for level in (search.first, search.last)]
        assert ends[0] == ends[1] == describe(parts.rules.FixedEpochs())
        assert describe(search.level.train.stop) != ends[0]
        assert {level.train.evaluate_every for level in (search.first, search.level, search.last)} == {0.5}
    assert parts.networks.lottery(rule="fixed", setting="9").plan.evaluate_every == 1.0


@pytest.mark.parametrize("name", ["lottery", "sap", "sipp"])
def test_short_levels_have_budgets_and_restarts_of_their_own(parts, name):
    """First, middle and last level of each: epochs, and whether it goes on from the weights as they are."""
    expected = {
        ("short-levels", "1"): [(9, False), (1, False), (9, False)],
        ("short-levels", "2-carried"): [(2, False), (2, True), (9, False)],
        ("carried", "1-2"): [(1, False), (2, True), (9, True)],
        ("fixed", "9"): [(9, False), (9, False), (9, False)],
    }
    for (rule, setting), levels in expected.items():
        search = getattr(parts.networks, name)(rule=rule, setting=setting).search
        given = (
            (search.levels[0], search.levels[3], search.levels[-1])
            if name == "sipp"
            else (search.first, search.level, search.last)
        )
        found = [(level.train.epochs, level.restart is carry_on) for level in given]
        if name == "sipp":  # its pruned levels go on by themselves
            levels = [levels[0], *((epochs, True) for epochs, _ in levels[1:])]
        assert found == levels, (rule, setting)


@pytest.mark.parametrize(("rule", "setting"), [("mask-stable", "tight"), ("fixed", "0.7")])
def test_unknown_settings_are_refused(parts, rule, setting):
    with pytest.raises(ValueError, match=setting):
        parts.rules.rule_of(rule, setting)


# -- from runs to pages ----------------------------------------------------------------------------------------


def test_rows_and_page_from_finished_runs(parts, tmp_path, capsys):
    shared = {"levels": 3, "epochs": 1}
    trials = [
        parts.study.Trial(
            "networks:lottery",
            {"rule": rule, "setting": setting, **shared},
            model="lenet-300-100",
            data="digits",
            label=f"lenet-lottery: {rule} {setting}",
        )
        for rule, setting in (("fixed", "0.5"), ("information-consistent", "paper"))
    ]
    for trial in trials:
        recipe = parts.networks.lottery(**trial.arguments, seed=trial.seed)
        execute(recipe, model=trial.model, data=trial.data, out=tmp_path / "trials" / trial.key)
    known = {t.key: {**vars(t), "arguments": dict(t.arguments)} for t in trials}
    (tmp_path / "study.json").write_text(json.dumps({"trials": known}))
    assert parts.results.main([str(tmp_path), "--into", str(tmp_path / "results"), "--no-pictures"]) == 0
    assert "2 of 2 trials have finished" in capsys.readouterr().out
    runs = {(r["rule"], r["setting"]): r for r in parts.gather.read(tmp_path / "results" / "runs.csv")}
    half = runs["fixed", "0.5"]  # 19 of 38 steps are half an epoch
    assert (half["epochs"], half["first_epochs"], half["last_epochs"], half["middle_levels"]) == (3.0, 1.0, 1.0, 2)
    flow = runs["information-consistent", "paper"]
    assert flow["forward"] > 0
    assert half["forward"] == 0
    levels = parts.gather.read(tmp_path / "results" / "levels.csv")
    assert [r["epochs"] for r in levels if r["run"] == half["run"]] == [1.0, 0.5, 0.5, 1.0]
    assert "information flow" in next(r["reason"] for r in levels if r["run"] == flow["run"] and r["level"] == 1)
    page = (tmp_path / "results" / "summary.md").read_text()
    assert "information-consistent" in page
    assert "NOT alike" not in page
