"""The PQ-index study: its arithmetic, its tables on runs made by hand, and its rows from a real run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats
from study_files import study_modules

from sparsight import RunFolder, execute, pq_index, recipes
from sparsight.runs.study import Trial

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "pq_index"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "pqi_golden.json").read_text())
parts = study_modules(
    "pq_index", "compare", "contests", "gather", "networks", "results", "runs", "study", "summary", "tables"
)


# -- arithmetic ------------------------------------------------------------------------------------------------


def test_interpolation_is_linear_in_log_density(parts):
    curve = [(1.0, 0.9), (0.01, 0.5)]
    assert parts.compare.at_density(curve, 0.1) == pytest.approx(0.7)  # linear in density: 0.536
    assert parts.compare.at_density(curve, 1.0) == pytest.approx(0.9)
    assert parts.compare.at_density(curve, 0.01) == pytest.approx(0.5)


def test_interpolation_takes_the_two_levels_around_it(parts):
    curve = [(1.0, 0.0), (0.5, 1.0), (0.25, 5.0), (0.125, 0.0)]
    assert parts.compare.at_density(curve, math.sqrt(0.5 * 0.25)) == pytest.approx(3.0)
    assert parts.compare.at_density(curve, 0.5) == pytest.approx(1.0)


def test_nothing_is_extrapolated(parts):
    assert parts.compare.at_density([(1.0, 0.9), (0.2, 0.8)], 0.19) is None
    assert parts.compare.at_density([(0.5, 0.9), (0.2, 0.8)], 0.6) is None
    assert parts.compare.at_density([], 0.5) is None


def test_levels_that_removed_nothing_count_as_their_mean(parts):
    curve = [(1.0, 0.9), (0.1, 0.4), (0.1, 0.6), (0.0, 0.1)]
    assert parts.compare.at_density(curve, 0.1) == pytest.approx(0.5)
    assert parts.compare.at_density(curve, math.sqrt(0.1)) == pytest.approx(0.7)


def test_epochs_buy_whole_levels_only(parts):
    curve = [(3.0, 0.9), (6.0, 0.8), (9.0, 0.7)]
    assert parts.compare.at_epochs(curve, 8.9) == 0.8
    assert parts.compare.at_epochs(curve, 9.0) == 0.7
    assert parts.compare.at_epochs(curve, 2.0) is None


def test_sparsest_within_points_of_dense_and_epochs(parts):
    levels = [(3, 1.0, 0.900), (6, 0.5, 0.905), (9, 0.2, 0.890), (12, 0.1, 0.889), (15, 0.05, 0.895)]
    assert parts.compare.sparsest_within(levels, 15, 1.0) == 0.05
    assert parts.compare.sparsest_within(levels, 14, 1.0) == 0.2  # 0.1 is 1.1 points below
    assert parts.compare.sparsest_within(levels, 3, 1.0) == 1.0
    assert parts.compare.sparsest_within([], 3, 1.0) is None


@pytest.mark.parametrize(
    ("indices", "word"),
    [
        ([0.30, 0.25, 0.20, 0.25, 0.40, 0.60, 0.30, 0.10], "falls, rises, falls"),
        ([0.30, 0.25, 0.20, 0.22, 0.25, 0.30, 0.40, 0.50], "falls, rises"),
        ([0.30, 0.25, 0.20, 0.18, 0.17, 0.165, 0.163, 0.162], "falls"),
        ([0.30, 0.25, 0.20, 0.204, 0.197, 0.206, 0.199, 0.203], "falls"),  # noise is no rise
        ([0.20, 0.25, 0.30, 0.40, 0.50, 0.55, 0.58, 0.60], "rises"),
        ([0.20, 0.199, 0.201, 0.2, 0.202, 0.2, 0.199, 0.2], "flat"),
        ([0.30, 0.20, None, 0.25, 0.40, None, 0.30, 0.10], "falls, rises, falls"),
    ],
)
def test_shape_of_a_trajectory(parts, indices, word):
    assert parts.compare.shape([0.7**i for i in range(8)], indices).word == word


def test_a_finer_tolerance_sees_a_smaller_rise(parts):
    densities, indices = [0.7**i for i in range(6)], [0.30, 0.20, 0.10, 0.107, 0.107, 0.107]
    assert not parts.compare.shape(densities, indices, 0.01).rises
    assert parts.compare.shape(densities, indices, 0.005).rises


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda v: v["id"])
def test_prune_counts_are_the_golden_ones(parts, vector):
    pairs = {(0.5, 1.0): "p=0.5,q=1.0", (1.0, 2.0): "p=1.0,q=2.0"}
    checked = 0
    for setting in settings_of(vector):
        index = vector["pqi"].get(pairs.get((setting["p"], setting["q"]), ""))
        if index is not None:
            values = (setting[name] for name in ("p", "q", "eta", "gamma", "beta"))
            assert parts.compare.count(vector["d"], index, *values) == setting["c_paper"], setting
            checked += 1
    assert checked


def settings_of(vector: dict[str, Any]) -> list[dict[str, Any]]:
    found = vector["prune"]
    return found if isinstance(found, list) else list(found.values())


@pytest.mark.parametrize(("eta", "kept"), [(0.01, 0.674), (0.1, 0.569), (1.0, 0.172), (0.0, 0.688)])
def test_first_counts_of_the_paper_follow_from_its_dense_index(parts, eta, kept):
    removed = parts.compare.count(1_555_136, 0.312, 0.5, 1.0, eta, 1.0, 0.9)
    assert 1 - removed / 1_555_136 == pytest.approx(kept, abs=0.0006)


# -- tables, on runs made by hand ------------------------------------------------------------------------------

DENSITIES = (1.0, 0.5, 0.1, 0.01)


def made(parts: SimpleNamespace, method: str, seed: int, accuracies: tuple[float, ...], **more: Any) -> Any:
    """A run of four levels of 3 epochs; `fc1` holds nine tenths of the weights."""
    rows, layers = [], {}
    for level, (density, accuracy) in enumerate(zip(DENSITIES, accuracies, strict=True)):
        needed = 6.0 if method == "one-shot" and level else 3.0 * (level + 1)
        rows.append(
            {"level": level, "density": density, "pq_05_1": (0.3, 0.2, 0.4, 0.1)[level], "pq_1_2": 0.1, "floors": 0}
            | {"epochs": 3.0, "cumulative_epochs": 3.0 * (level + 1), "needed_epochs": needed}
            | {"validation_accuracy": accuracy + 0.01, "test_accuracy": accuracy}
        )
        parts_of = (("fc1", density), ("fc2", density * more.get("fc2", 1.0) if level else 1.0))
        layers[level] = tuple(
            {"layer": name, "density": d, "rows": 10, "empty_rows": level if name == "fc2" else 0}
            for name, d in parts_of
        )
    what = {
        "run": f"{method}-{seed}",
        "kind": "grid",
        "network": "mlp",
        "scope": "global",
        "method": method,
        "seed": seed,
    }
    ended = {"levels": 3, "why_ended": more.get("ended", "all 3 pruned levels are done (density 0.01)")}
    return parts.runs.Run({**what, **ended}, tuple(rows), layers)


@pytest.fixture
def grid(parts) -> Any:
    runs = [
        made(parts, method, seed, tuple(a + 0.01 * seed + shift for a in (0.90, 0.92, 0.88, 0.60)), **more)
        for seed in (0, 1, 2)
        for method, shift, more in (
            ("SAP (0.5, 1)", 0.004 * seed, {}),
            ("lottery ticket", 0.0, {}),
            ("one-shot", -0.05, {"fc2": 0.05}),
        )
    ]
    return parts.runs.cells(runs)


def only(rows: list[dict[str, Any]], **what: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[name] == value for name, value in what.items())]
    return found


def test_equal_density_pairs_seeds(parts, grid):
    rows = parts.contests.equal_density(grid, (0.1,))
    found = only(rows, split="test", what="SAP (0.5, 1) - lottery ticket")
    assert (found["n"], found["mean"]) == (3, pytest.approx(0.4))
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.4 / math.sqrt(3))
    assert only(rows, split="validation", what="one-shot")["mean"] == pytest.approx(85.0)
    assert only(rows, split="test", what="SAP (1, 2)")["n"] == 0


def test_equal_epochs_charge_one_shot_for_what_it_needs(parts, grid):
    rows = parts.contests.equal_epochs(grid, (6, 12))
    at = {"epochs": 6, "quantity": "sparsest"}
    assert only(rows, **at, what="lottery ticket")["mean"] == pytest.approx(0.5)
    assert only(rows, **at, what="one-shot")["mean"] == pytest.approx(0.5)  # 0.1 loses two points
    assert only(rows, epochs=6, quantity="density", what="one-shot")["mean"] == pytest.approx(0.5)  # as it was run
    assert only(rows, epochs=12, quantity="test", what="lottery ticket")["mean"] == pytest.approx(61.0)
    assert only(parts.contests.epochs_to(grid, (0.1,)), what="one-shot")["mean"] == pytest.approx(6.0)
    assert only(parts.contests.epochs_to(grid, (0.1,)), what="SAP (0.5, 1)")["mean"] == pytest.approx(9.0)


def test_epochs_that_a_run_was_not_given_are_unknown(parts):
    capped = made(parts, "SAP (1, 2)", 0, (0.9, 0.9, 0.8, 0.7))
    collapsed = made(parts, "lottery ticket", 0, (0.9, 0.9, 0.8, 0.7), ended="two levels in a row removed nothing")
    rows = parts.contests.equal_epochs(parts.runs.cells([capped, collapsed]), (60,))
    assert only(rows, quantity="test", what="SAP (1, 2)")["n"] == 0
    assert only(rows, quantity="test", what="lottery ticket")["mean"] == pytest.approx(70.0)


def test_losses_are_against_the_run_s_own_dense_network(parts, grid):
    rows = parts.tables.losses(grid)
    at = {"method": "lottery ticket", "index": "pq_05_1"}
    low = only(rows, at="confirmed minimum", **at)
    assert (low["n"], low["test_mean"], low["density_least"]) == (3, pytest.approx(-2.0), 0.5)
    assert only(rows, at="peak", **at)["test_mean"] == pytest.approx(2.0)
    assert only(rows, at="peak", method="lottery ticket", index="pq_1_2")["n"] == 0
    assert only(parts.tables.shapes(grid), tolerance=0.01, **at)["falls_again"] == 3


def test_over_pruned_layers_are_counted(parts, grid):
    rows = parts.tables.robustness(grid)
    found = only(rows, method="one-shot")
    assert (found["over_levels"], found["levels"], found["over_runs"]) == (9, 9, 3)
    assert (found["over_first_density"], found["over_layers"]) == (0.5, "fc2 (9)")
    assert found["empty_rows_at_0.1"] == pytest.approx(10.0)  # two of twenty
    assert only(rows, method="lottery ticket")["over_levels"] == 0
    assert only(rows, method="lottery ticket")["test_deviation_at_0.1"] == pytest.approx(1.0)


def test_a_wrong_count_is_found(parts):
    run = made(parts, "SAP (0.5, 1)", 0, (0.9, 0.9, 0.8, 0.7))
    run.what.update(p=0.5, q=1.0, eta=0.0, gamma=1.0, beta=0.9)
    group = {"run": run.what["run"], "level": 1, "group": "global", "d": 1000, "index": 0.25, "defined": True}
    group["floor_bound"] = False
    (found,) = parts.tables.checks(
        [run], [{**group, "c": 250}, {**group, "c": 249}, {**group, "c": 1, "floor_bound": True}]
    )
    assert (found["equal"], found["unequal"], found["floor_bound"]) == (1, 1, 1)
    (told,) = parts.tables.ablations([run], [{**group, "c": 249}])
    assert (told["predicted_c"], told["recorded_c"], told["capped"]) == (250, 249, False)


# -- the trials, and rows from a real run ----------------------------------------------------------------------


def test_trials_differ_and_early_seeds_come_first(parts):
    trials = [trial for _, trial in parts.study.trials()]
    assert len({trial.key for trial in trials}) == len(trials) == 100
    seeds = [trial.seed for trial in trials]
    assert seeds == sorted(seeds)
    for trial in trials:
        function = getattr(recipes, trial.recipe.rpartition(":")[2])
        made = function(**trial.arguments, seed=trial.seed)
        assert not made.control
        assert made.search.next(()).prune == ()


def test_rows_tables_and_page_from_a_finished_run(parts, tmp_path, capsys):
    arguments = {"p": 0.5, "q": 1.0, "eta": 0.0, "gamma": 1.0, "beta": 0.9, "scope": "layer", "target_density": 0.0}
    arguments |= {"levels": 2, "epochs": 1, "control": False}
    trials = [Trial("sap", arguments, seed=seed, data="digits") for seed in (0, 1)]
    out, into = tmp_path / "study", tmp_path / "results"
    execute(recipes.sap(**arguments), data="digits", keep="chosen", out=out / "trials" / trials[0].key)
    known = {trial.key: {**vars(trial), "arguments": arguments} for trial in trials}
    (out / "study.json").write_text(json.dumps({"trials": known, "shared": {}}))

    assert parts.results.main([str(out), "--into", str(into), "--no-pictures"]) == 0
    assert "1 of 2 trials" in capsys.readouterr().out
    assert "1 of 2 trials have finished" in (into / "summary.md").read_text()

    rows, layers, counts = (parts.gather.read(into / f"{name}.csv") for name in ("rows", "layers", "counts"))
    with RunFolder.open(out / "trials" / trials[0].key) as run:
        levels, evaluation = run.levels(), run.evaluation()
    assert evaluation is not None
    assert [row["test_accuracy"] for row in rows] == [pytest.approx(e.test_accuracy) for e in evaluation.entries]
    assert [row["kept"] for row in rows] == [level.kept for level in levels]
    assert [row["cumulative_epochs"] for row in rows] == [1.0, 2.0, 3.0]
    assert rows[1]["removed"] == rows[0]["kept"] - rows[1]["kept"] == sum(x["c"] for x in counts if x["level"] == 1)
    assert [(x["layer"], x["kept"]) for x in layers if x["level"] == 2] == [(x.name, x.kept) for x in levels[2].layers]
    (checked,) = parts.tables.checks(parts.runs.runs_of(parts.gather.read(into / "runs.csv"), rows, layers), counts)
    assert (checked["groups"], checked["equal"]) == (6, 6)
    with RunFolder.open(out / "trials" / trials[0].key) as run:
        weights, masks = run.chosen()
    level = next(x for x in levels if x.kept == sum(int(m.sum()) for m in masks.values()))
    for x in (x for x in layers if x["level"] == level.level):
        assert x["pq_1_2"] == pytest.approx(
            float(pq_index(weights[x["layer"]], 1, 2, mask=masks[x["layer"]])), rel=1e-6
        )
        assert x["empty_rows"] == int((~masks[x["layer"]].any(1)).sum())


def test_published_trajectories_are_those_of_the_tests():
    mine, theirs = (STUDY / "cifar10_trajectories.json", ROOT / "tests" / "data" / "cifar10_trajectories.json")
    assert json.loads(mine.read_text()) == json.loads(theirs.read_text())
