"""The verdict: the walk, the evidence, what would make it surer, and the words."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import sample
from scipy import stats

from sparsight import RunFolder, execute, prune
from sparsight.cli.entry import main
from sparsight.compare import difference, evaluate, knee, lower_bound, paired_shares, predictions, verdict, verdicts
from sparsight.compare.statistics import Sparsest
from sparsight.compare.verdict import of_folder, report
from sparsight.compare.verdict.evidence import enough, evidence, surer
from sparsight.compare.verdict.history import APART, NOTHING, SAMPLES, SEEDS, History, walk
from sparsight.compare.verdict.verdict import _pays
from sparsight.measure.pq import turning_points
from sparsight.model.collapse import Collapse
from sparsight.numerics.format import percent
from sparsight.recipes import lottery
from sparsight.records.rows import Row, store_rows, stored_rows
from sparsight.records.verdict import Evidence, Pays, Speed
from sparsight.report.verdict import paragraph, section
from sparsight.train.metric import Metric
from sparsight.types import GroupRecord
from sparsight.zoo import data, networks


def of_values(*values: float, seed: int = 0, rate: float = 0.5, samples: int = 1000, **levels) -> History:
    """A run with these validation accuracies, dense first."""
    made = sample(len(values), rate=rate, control=False)
    seen = [
        replace(x, observations=(replace(x.observations[-1], validation_accuracy=v, samples=samples),), **levels)
        for x, v in zip(made.levels, values, strict=True)
    ]
    run = replace(made.run, seed=seed)
    return History(Path(f"runs/{seed}"), run, tuple(seen), made.times, seen[0], {}, ())


def test_a_stored_certificate_of_the_network_found_is_evidence():
    run = of_values(0.90, 0.91, 0.89)
    level = run.levels[1]

    def says(value: float, when: str = "", of=level) -> list[tuple[str, str]]:
        kept = {"certified": value, "certificate_delta": 1e-16}
        rows = tuple(Row(of.level, of.role, of.id, name, when, None, x, n=40) for name, x in kept.items())
        found = evidence([replace(run, rows=rows)], level.density, 0.01)
        return [(each.says, each.text) for each in found if each.kind == "certificate"]

    text = "bounds the outputs for 40 of 40 inputs, except with probability at most 1e-16"
    assert says(1.0) == [("for", f"SiPP's certificate {text}")]
    assert says(1.0, "as pruned") == [("open", f"SiPP's certificate of the network before training {text}")]
    assert says(0.5)[0][0] == "open"
    assert says(1.0, of=run.levels[2]) == []


# -- the walk ------------------------------------------------------------------------------------------------------


def test_one_run_is_judged_by_its_samples():
    run = of_values(0.90, 0.91, 0.89)
    basis, steps = walk([run], 0.95)
    assert basis == APART
    assert [step.difference for step in steps] == pytest.approx([0.01, -0.01])
    assert [step.lower for step in steps] == pytest.approx([difference(v, 0.9, 1000, 0.9)[0] for v in (0.91, 0.89)])
    assert [step.level for step in steps] == [1, 2]


def test_answers_on_the_same_samples_make_a_narrower_bound():
    run = of_values(0.99, 0.99, samples=100)
    labels = torch.zeros(100, dtype=torch.int32)
    dense, pruned = labels.clone(), labels.clone()
    dense[0], pruned[1] = 1, 1
    ids = [x.id for x in run.records]
    told = {"validation labels": labels, f"validation {ids[0]}": dense, f"validation {ids[1]}": pruned}
    basis, (step,) = walk([replace(run, predictions=told)], 0.95)
    assert basis == SAMPLES
    assert (step.difference, step.n) == (0.0, 100)
    assert step.lower == pytest.approx(paired_shares(1, 1, 100, 0.9)[0])
    assert step.lower > walk([run], 0.95)[1][0].lower


def test_a_metric_that_is_no_share_has_no_bound_in_one_run():
    run = of_values(0.9, 0.8)
    loss = Metric("perplexity", "lower")
    records = tuple(
        replace(x, metric=loss, observations=(replace(x.observations[-1], metrics={"perplexity": v}),))
        for x, v in zip(run.records, (10.0, 12.0), strict=True)
    )
    basis, (step,) = walk([replace(run, records=records, dense=records[0])], 0.95)
    assert basis == NOTHING
    assert (step.difference, step.lower) == (-2.0, None)


def test_seeds_are_read_at_one_density_each_beside_its_own_dense():
    runs = [of_values(0.9 + s, 0.91 + s, 0.89 + 1.5 * s, seed=i) for i, s in enumerate((0.0, 0.01, -0.01))]
    basis, steps = walk(runs, 0.9)
    assert basis == SEEDS
    lost = [[0.01] * 3, [-0.01, -0.005, -0.015]]
    assert [step.difference for step in steps] == pytest.approx([0.01, -0.01])
    assert [step.lower for step in steps] == pytest.approx([lower_bound(values, 0.9) for values in lost])
    assert [(step.level, step.n, step.interpolated) for step in steps] == [(1, 3, False), (2, 3, False)]


def test_densities_that_differ_are_interpolated_and_said():
    runs = [of_values(0.9, 0.9, 0.8, seed=0, rate=0.5), of_values(0.9, 0.9, 0.8, seed=1, rate=0.4)]
    _, steps = walk(runs, 0.9)
    assert [step.interpolated for step in steps] == [True, True]
    assert [step.level for step in steps] == [None, None]
    densities = sorted((a.density + b.density) / 2 for a, b in zip(*(run.levels[1:] for run in runs), strict=True))
    assert [step.density for step in steps] == pytest.approx(densities[::-1])
    assert steps[1].n == 1  # the second run does not go that far
    assert steps[1].lower is None


# -- evidence ------------------------------------------------------------------------------------------------------


def told(run: History, density: float | None, kind: str) -> list[Evidence]:
    return [each for each in evidence([run], density, 0.005) if each.kind == kind]


def test_a_knee_is_the_highest_place_above_the_chord():
    curve = [(1.0, 0.9), (0.5, 0.9), (0.25, 0.89), (0.125, 0.6), (0.0625, 0.3)]
    assert knee(curve) == knee(curve[::-1]) == 0.25
    assert knee([(x, 1 + math.log2(x)) for x, _ in curve]) is None  # a straight line
    assert knee([(x, -y) for x, y in curve]) is None
    assert knee(curve[:3]) is knee([]) is knee([(0.5, 0.1)] * 5) is None
    assert knee([*curve, (0.0, 0.1), (0.03, math.nan)]) == 0.25


def test_a_knee_that_lies_ahead_speaks_for_going_on():
    run = of_values(0.9, 0.9, 0.89, 0.6, 0.3)
    densities = [x.density for x in run.levels]
    for density, says in ((densities[1], "for"), (densities[2], "open"), (densities[3], "against"), (None, "for")):
        assert [each.says for each in told(run, density, "knee")] == [says]
    flat = of_values(0.9, 0.9, 0.9, 0.898, 0.8951)
    assert knee(flat.points) is not None
    assert [each.says for each in told(flat, densities[1], "knee")] == ["open"]


def test_the_minimum_of_the_pq_index():
    run = of_values(*[0.9] * 6)
    indices = (0.30, 0.25, 0.10, 0.18, 0.25, 0.26)
    assert turning_points([x.density for x in run.levels], indices).minimum == 2
    records = tuple(replace(x, pq=(i, 0.1)) for x, i in zip(run.records, indices, strict=True))
    run = replace(run, records=records, dense=records[0])
    ahead, flat = told(run, records[1].density, "pq-minimum")
    assert (ahead.says, flat.says) == ("for", "open")
    assert "is lowest at 25.0 % density" in ahead.text
    assert [each.says for each in told(run, records[4].density, "pq-minimum")] == ["against", "open"]


def test_sap_s_bound_of_the_network_found():
    run = of_values(0.9, 0.9, 0.9)
    first, second, third = run.records
    bound = GroupRecord("global", second.kept, second.kept - third.kept, 0.3, 0.25 * second.total)
    records = first, second, replace(third, groups=(bound,))
    (found,) = told(replace(run, records=records), second.density, "pq-bound")
    assert found.says == "for"
    assert "at least 25.0 % of the weights" in found.text
    tight = replace(bound, r=float(second.kept))
    (found,) = told(replace(run, records=(first, second, replace(third, groups=(tight,)))), second.density, "pq-bound")
    assert found.says == "open"
    missing = replace(bound, r=None)
    assert not told(
        replace(run, records=(first, second, replace(third, groups=(missing,)))), second.density, "pq-bound"
    )


@pytest.mark.parametrize(("distances", "says"), [((0.1, 0.1), "for"), ((0.1, 0.3), "open"), ((0.3, 0.4), "against")])
def test_flows_of_sparser_levels(distances, says):
    run = of_values(0.9, 0.9, 0.9, 0.9)
    name = "information flow (rms)"
    records = list(run.records)
    for i, distance in zip((2, 3), distances, strict=True):
        seen = replace(records[i].observations[-1], values={f"distance:{name}": distance, f"threshold:{name}": 0.2})
        records[i] = replace(records[i], observations=(seen,))
    assert [each.says for each in told(replace(run, records=tuple(records)), records[1].density, "flow")] == [says]


def test_collapse_of_this_network_speaks_against_it():
    run = of_values(0.9, 0.9, 0.9, 0.1)
    records = (*run.records[:3], replace(run.records[3], collapse=Collapse(disconnected=True)))
    run = replace(run, records=records)
    assert [each.says for each in told(run, records[2].density, "collapse")] == ["open"]
    assert [each.says for each in told(run, records[3].density, "collapse")] == ["against"]


# -- which classes pay ---------------------------------------------------------------------------------------------


def test_classes_that_pay_are_told_by_mcnemar_and_holm():
    run = of_values(0.9, 0.9)
    dense, pruned = run.records
    labels = torch.tensor([0] * 100 + [1] * 100 + [2] * 100, dtype=torch.int32)
    before, now = labels.clone(), labels.clone()
    now[:12], before[12:14] = 1, 1  # class 0 loses 12 and gains 2
    now[100:106], before[106:108] = 2, 2  # class 1 loses 6 and gains 2: p = 0.29
    p = [stats.binomtest(12, 14).pvalue, stats.binomtest(6, 8).pvalue, 1.0]
    assert 3 * p[0] < 0.05 < p[1]
    facts = {**run.run.data, "facts": {"class_names": ["a", "b", "c"]}}
    told = {"labels": labels, dense.id: before, pruned.id: now}
    run = replace(run, predictions=told, run=replace(run.run, data=facts))
    (only,) = _pays([run], pruned.density)
    assert (only.name, only.impact) == ("a", pytest.approx(-0.10))
    assert only.low < only.impact < only.high < 0
    assert _pays([replace(run, predictions={})], pruned.density) is None
    assert _pays([run], None) is None


# -- what would make it surer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "deviation"), [(0.005, 0.004), (0.001, 0.002), (1.0, 1e-6)])
def test_the_number_of_seeds_is_the_least_that_is_enough(gap, deviation):
    n = enough(gap, deviation, 0.95)

    def bound(n: int) -> float:
        return stats.t.ppf(0.95, n - 1) * deviation / math.sqrt(n)

    assert bound(n) <= gap
    assert n == 2 or bound(n - 1) > gap
    assert enough(1e-9, 1.0, 0.95) is None


def test_what_is_still_to_be_run():
    runs = [of_values(0.9, 0.9, 0.8975 + d, seed=i) for i, d in enumerate((0.004, 0.0, -0.003))]
    _, steps = walk(runs, 0.95)
    one, two = steps
    assert two.lower < -0.005 < two.difference
    told = surer(runs, steps, Sparsest(one.density, two.density, ()), 0.005, 0.95)
    assert "more seeds, which would show 25.0 % to be within" in told[0]
    assert any(text.startswith("levels between 50.0 % and 25.0 %") for text in told)
    assert any("latency" in text for text in told)
    told = surer(runs, steps, Sparsest(two.density, None, ()), 0.005, 0.95)
    assert any(text.startswith("sparser levels") for text in told)
    told = surer(runs[:1], steps, Sparsest(None, one.density, ()), 0.005, 0.95)
    assert told[0].startswith("sparsight evaluate")
    assert "at least two more seeds" in told[1]
    assert any(text.startswith("levels between dense and 50.0 %") for text in told)


# -- a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two runs of one setting, and one of another."""
    place = tmp_path_factory.mktemp("verdict")
    for seed in (0, 1):
        recipe = lottery(rate=0.3, levels=3, epochs=3, batch_size=32, seed=seed, control=False)
        arguments = {"rate": 0.3, "levels": 3, "seed": seed}
        execute(recipe, model="linear", data="digits", out=place / f"seed{seed}", arguments=arguments)
    recipe = lottery(rate=0.5, levels=2, epochs=1, control=False)
    execute(recipe, model="linear", data="digits", out=place / "other", arguments={"rate": 0.5})
    return place


def test_the_record_agrees_with_the_run(study):
    found = verdict(study / "seed0", within=2)
    with RunFolder.open(study / "seed0") as folder:
        levels = folder.levels()
    values = {x.level: x.value for x in levels}
    assert [step.difference for step in found.steps] == pytest.approx([values[i] - values[0] for i in (1, 2, 3)])
    passed = [step.density for step in found.steps if step.lower >= -0.02]
    walked = [s.density for i, s in enumerate(found.steps) if all(x.lower >= -0.02 for x in found.steps[: i + 1])]
    assert found.density == (walked[-1] if walked else None)
    assert found.beyond == tuple(d for d in passed if d not in walked)
    assert found.epochs == sum(x.epochs for x in levels)
    assert found.optimizer_steps == sum(x.steps for x in levels)
    assert found.seconds > 0
    assert dataclasses.is_dataclass(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.margin = 1.0


def test_a_verdict_reads_what_evaluate_stored_and_measures_nothing(study):
    before = verdict(study / "other", within=20)
    assert before.pays is None
    assert before.basis == APART
    evaluate(study / "other", ("accuracy", "size"))
    files = {path: path.stat().st_mtime_ns for path in (study / "other").rglob("*")}
    after = verdict(study / "other", within=20)
    assert {path: path.stat().st_mtime_ns for path in (study / "other").rglob("*")} == files
    assert after.basis == SAMPLES
    assert after.pays is not None
    assert all(b.lower > a.lower for a, b in zip(before.steps, after.steps, strict=True))
    assert after.density is not None
    assert after.packed_bytes == before.packed_bytes > 0
    assert len(predictions(study / "other", "validation")["labels"]) == after.steps[0].n


def test_speed_is_read_from_what_was_measured(study):
    path = study / "other"
    with RunFolder.open(path, write=True) as folder:
        level = folder.levels()[2]
        one = Row(level.level, level.role, level.id, "speedup", "torch, batch 1, 2 threads", None, 1.5)
        store_rows(folder, [*stored_rows(folder), one, replace(one, metric="faster", value=1.0)])
    assert verdict(path, within=90).speed == (Speed("torch", "batch 1, 2 threads", 1.5, True),)


def test_runs_of_several_settings_are_told_apart(study):
    both = [study / "seed0", study / "seed1"]
    found = verdict(both, within=2)
    assert (found.seeds, found.basis) == ((0, 1), SEEDS)
    assert [step.n for step in found.steps] == [2, 2, 2]
    one, two = verdicts([study / "seed1", study / "other", study / "seed0"])
    assert (one.seeds, two.seeds) == ((0, 1), (0,))
    with pytest.raises(ValueError, match="got 2 settings: use verdicts"):
        verdict([study / "seed0", study / "other"])
    with pytest.raises(ValueError, match="must have different seeds, got 0, 0 for"):
        verdict([study / "seed0", study / "seed0"])


def test_what_is_refused(study, tmp_path):
    with pytest.raises(ValueError, match="margin must be at least 0"):
        verdict(study / "seed0", within=-1)
    with pytest.raises(ValueError, match=r"greater than 0\.5"):
        verdict(study / "seed0", confidence=0.5)
    with pytest.raises(ValueError, match="got 0 settings"):
        verdict([])
    path = tmp_path / "run"
    execute(lottery(levels=0, epochs=1, control=False), model="linear", data="digits", out=path)
    with pytest.raises(ValueError, match="no pruned level was evaluated"):
        verdict(path)
    with RunFolder.open(path, write=True) as folder:
        folder.update(status="interrupted")
    with pytest.raises(ValueError, match="the run is interrupted; finish it first"):
        verdict(path)


# -- words ---------------------------------------------------------------------------------------------------------


def test_the_paragraph_says_what_was_found_and_what_was_not(study):
    found = verdict(study / "seed0", within=50)
    told = paragraph(found)
    assert told.startswith("With lottery, linear on digits (1 seed), within 50 points of dense at 95 % confidence, the")
    assert f"level {found.level}, keeps {percent(found.density)} of 640 weights (2.9×)" in told
    assert "No sparser network was tried." in told
    assert "Its speed was not measured. Which classes pay was not measured." in told
    assert "To be surer, run: sparsight evaluate" in told
    none = paragraph(verdict(study / "seed0", within=0, confidence=0.9999))
    assert "no pruned network can be shown to be within 0 points" in none
    assert "packed" not in none


def test_the_paragraph_of_a_metric_of_which_less_is_better(study):
    found = verdict(study / "seed0", within=50)
    first, second = found.steps[:2]
    steps = (replace(first, difference=-0.25, lower=-0.5), replace(second, difference=0.125, lower=-1.0))
    error = replace(
        found, metric=Metric("rmse", "lower"), steps=steps, density=first.density, refused=second.density, beyond=()
    )
    told = paragraph(error)
    assert "its validation rmse is +0.25 relative to dense, and at most +0.5. " in told
    assert "is -0.125 and may be as high as +1. " in told
    (table,) = section(error).parts
    assert "upper bound" in table.headings
    assert table.rows[0][2:4] == ("+0.25", "+0.5")


def test_the_paragraph_of_what_was_measured(study):
    found = verdict(study / "seed0", within=50)
    steps = found.steps
    rich = replace(
        found, density=steps[0].density, refused=steps[1].density, beyond=(steps[2].density,), surer=(),
        evidence=(Evidence("knee", "for", "x"), Evidence("flow", "against", "y")),
        pays=(Pays("Shirt", -0.021, -0.03, -0.01),),
        speed=(Speed("sparsight", "batch 1", 2.14, True), Speed("torch", "batch 1", 0.9, False)),
    )  # fmt: skip
    told = paragraph(rich)
    assert f"The next, at {percent(found.steps[1].density)}, is " in told
    assert f"Alone {percent(found.density)} would pass too, after denser networks did not: that may be luck." in told
    assert "For going further: x. Against: y." in told
    assert (
        "It is 2.1× faster than without zeros in sparsight and no faster in torch, where that was measured, at batch 1."
        in told
    )
    assert "Classes that pay: Shirt (-2.10 points)." in told
    assert "surer" not in told
    assert "No class is shown to pay." in paragraph(replace(rich, pays=()))
    (steps,) = section(rich).parts
    table = steps.rows
    assert [row[-1] for row in table] == ["yes", "not shown", "alone"]
    assert {len(row) for row in table} == {len(steps.headings)}


def test_command(study, capsys, monkeypatch):
    monkeypatch.chdir(study)
    assert main(["verdict", "seed0", "seed1", "--within", "2", "--confidence", "90"]) == 0
    out = capsys.readouterr().out
    assert " ".join(out.split()) == paragraph(verdict(["seed0", "seed1"], 2, 0.9))
    assert all(len(line) <= 80 for line in out.splitlines())
    assert main(["verdict", "seed0", "../" + study.name + "/seed0"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == paragraph(verdict("seed0"))
    assert main(["verdict", "seed0", "other", "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["seeds"], two["runs"]) == ([0], ["other"])
    assert one["paragraph"] == paragraph(verdict("seed0"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed0", "--within", "-1"], "--within must be finite and at least 0"),
        (["seed0", "--within", "inf"], "--within must be finite and at least 0"),
        (["seed0", "--confidence", "0.95"], "--confidence must be greater than 50 and less than 100"),
        (["nothing"], "nothing is neither a run folder nor a study folder"),
    ],
)
def test_command_refuses(words, said, study, capsys, monkeypatch):
    monkeypatch.chdir(study)
    assert main(["verdict", *words]) == 2
    assert said in capsys.readouterr().err


# -- in the report -------------------------------------------------------------------------------------------------


def test_a_run_s_report_has_its_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--rate", "0.5", "--levels", "2", "--epochs", "1", "--no-control", "--within", "3"]
    assert main(["run", "lottery", "--model", "linear", "--data", "digits", *short, "--out", "run"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    told = paragraph(verdict("run", within=3))
    assert "How far can I go?" in page
    assert told in " ".join(html.unescape(page).replace("\u00a0", " ").split())
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", "run"]) == 0
    assert (tmp_path / "run" / "report.html").read_text() == page
    evaluate("run", ("accuracy",))
    assert "answer by answer" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("way", ["execute", "prune"])
def test_a_run_from_python_has_its_verdict_on_its_report(way, tmp_path):
    if way == "execute":
        recipe = lottery(rate=0.5, levels=2, epochs=1, control=False, within=3)
        execute(recipe, model="linear", data="digits", out=tmp_path / "run")
    else:
        digits = data.load("digits")
        prune(networks.build("linear", digits, 0), digits, 0.3, epochs=1, out=tmp_path / "run")
    told = paragraph(verdict(tmp_path / "run", within=3 if way == "execute" else 0.5))
    page = html.unescape((tmp_path / "run" / "report.html").read_text()).replace("\u00a0", " ")
    assert told in " ".join(page.split())


def test_a_run_that_allows_no_verdict_has_a_report_without_one(tmp_path):
    path = tmp_path / "run"
    execute(lottery(levels=0, epochs=1, control=False), model="linear", data="digits", out=path)
    with RunFolder.open(path) as folder:
        assert of_folder(folder) is None
        assert "How far can I go?" not in report(folder).read_text()
