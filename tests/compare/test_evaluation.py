"""Evaluating a run: tidy rows, stored ones read again, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace

import pandas
import pytest
import torch

from sparsight import Data, RunFolder, Split, execute
from sparsight.cli.entry import main
from sparsight.compare import Corrupted, evaluate, predictions, stored
from sparsight.compare.evaluation import networks
from sparsight.compare.evaluation.evaluate import FAMILIES, USUAL
from sparsight.compare.gather import gather
from sparsight.compare.text import text
from sparsight.recipes import lottery, oneshot
from sparsight.records import verify_run
from sparsight.runs.adapt import adapted
from sparsight.zoo.data import digits

TWO = Corrupted(("contrast", "rotation"), (2, 4), 100)
QUICK = ("accuracy", "classes", "agreement", "calibration", "corruptions", "potential", "structure")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluate") / "run"
    execute(lottery(rate=0.5, levels=2, epochs=2, batch_size=64), model="linear", data="digits", out=place)
    return place


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run that nothing has been measured of."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    place = shutil.copytree(finished, tmp_path_factory.mktemp("done") / "run")
    return place, evaluate(place, FAMILIES[:-1], corrupted=TWO)


def of(found, metric, level=None, **where):
    return [
        row for row in found.rows
        if row["metric"] == metric and level in (None, row["level"])
        and all(row[name] == value for name, value in where.items())
    ]  # fmt: skip


def test_rows_agree_with_the_run_s_own_evaluation(evaluated):
    path, found = evaluated
    with RunFolder.open(path) as folder:
        entries = folder.evaluation().entries
    assert len(of(found, "accuracy")) == len(entries) == 4
    for entry in entries:
        (row,) = of(found, "accuracy", entry.level, role=entry.role)
        (loss,) = of(found, "nll", entry.level, role=entry.role)
        assert row["value"] == pytest.approx(entry.test_accuracy, abs=1e-12)
        assert loss["value"] == pytest.approx(entry.test_loss, rel=1e-5)
        assert row["n"] == entry.samples


def test_every_network_has_every_metric(evaluated):
    _, found = evaluated
    assert len({tuple(row) for row in found.rows}) == 1, "all rows have the same keys, in one order"
    metrics = {
        (level, role): {row["metric"] for row in of_network}
        for (level, role), of_network in pandas.DataFrame(found.rows).dropna(subset=["level"]).groupby(
            ["level", "role"]
        ).apply(lambda frame: frame.to_dict("records"), include_groups=False).items()
    }  # fmt: skip
    dense = {"agreement", "churn", "lost", "gained", "class_impact"}
    assert metrics[(1, "level")] == metrics[(2, "level")] == metrics[(2, "level")] | dense
    assert metrics[(0, "level")] >= {"accuracy", "ece", "brier", "class_accuracy", "corrupted_accuracy", "mce",
                                     "robust_accuracy", "packed_bytes", "effective_macs"}  # fmt: skip
    assert not metrics[(0, "level")] & dense


def test_corruptions_are_counted_on_the_same_images(evaluated):
    _, found = evaluated
    rows = of(found, "corrupted_accuracy", 2)
    assert {(row["group"], row["severity"]) for row in rows} == {
        ("none", 0), *((name, severity) for name in TWO.names for severity in TWO.severities)
    }  # fmt: skip
    assert {row["n"] for row in rows} == {100}
    hurt = [1 - row["value"] for row in rows if row["group"] != "none"]
    (robust,), (clean,) = of(found, "robust_accuracy", 2), [row for row in rows if row["group"] == "none"]
    assert robust["value"] == pytest.approx(1 - sum(hurt) / 4)
    dense = of(found, "corrupted_accuracy", 0)
    before = [1 - row["value"] for row in dense if row["group"] != "none"]
    untouched = next(1 - row["value"] for row in dense if row["group"] == "none")
    (excess,) = of(found, "excess_error", 2)
    assert excess["value"] == pytest.approx((sum(hurt) / 4 - (1 - clean["value"])) - (sum(before) / 4 - untouched))
    assert of(found, "mce", 0)[0]["value"] == 1


def test_classes_have_names_and_add_up(evaluated):
    path, found = evaluated
    told = predictions(path)
    with RunFolder.open(path) as folder:
        record = next(x for x in folder.levels() if x.level == 2 and x.role == "level")
    right = told[record.id] == told["labels"]
    rows = of(found, "class_accuracy", 2, role="level")
    assert [row["group"] for row in rows] == list(map(str, digits().facts["class_names"]))
    assert sum(row["value"] * row["n"] for row in rows) == pytest.approx(int(right.sum()))
    assert min(row["value"] for row in rows) == of(found, "worst_class_accuracy", 2, role="level")[0]["value"]
    (lost,), (gained,) = of(found, "lost", 2), of(found, "gained", 2)
    accuracies = [of(found, "accuracy", level, role="level")[0]["value"] for level in (0, 2)]
    assert gained["value"] - lost["value"] == pytest.approx(accuracies[1] - accuracies[0])


def test_potentials_are_of_the_run(evaluated):
    _, found = evaluated
    rows = of(found, "prune_potential(5)")
    assert {(row["group"], row["level"], row["role"]) for row in rows} == {
        ("clean", None, "run"), ("contrast", None, "run"), ("rotation", None, "run")
    }  # fmt: skip
    errors = {1 - row["density"]: 1 - row["value"] for row in of(found, "accuracy", role="level")}
    (clean,) = [row for row in rows if row["group"] == "clean"]
    assert clean["value"] == max(s for s, error in errors.items() if error <= errors[0.0] + 0.05)


# -- storing -------------------------------------------------------------------------------------------------------


def test_what_is_known_is_read_and_not_measured_again(run, monkeypatch):
    first = evaluate(run, QUICK, corrupted=TWO)
    assert verify_run(run) == ()
    assert (run / "report.html").exists()

    def refuse(*_):
        raise AssertionError("the data were read again")

    monkeypatch.setattr(networks.readers, "load", refuse)
    assert evaluate(run, QUICK, corrupted=TWO).rows == first.rows
    assert evaluate(run, ("accuracy",), levels=[1]).rows == tuple(of(first, "accuracy", 1) + of(first, "nll", 1))
    narrow = replace(TWO, names=("contrast",), severities=(4,))
    some = of(evaluate(run, ("corruptions",), corrupted=narrow), "corrupted_accuracy", 1)
    assert some == [row for row in of(first, "corrupted_accuracy", 1) if row["group"] in ("none", "contrast")
                    and row["severity"] in (0, 4)]  # fmt: skip
    assert stored(run, QUICK).rows == first.rows
    with pytest.raises(AssertionError, match="read again"):
        evaluate(run, ("corruptions",), corrupted=replace(TWO, samples=50))


def test_only_what_is_new_is_measured(run, monkeypatch):
    evaluate(run, ("accuracy",), levels=[1])
    seen = []
    once = networks.Networks.outputs
    monkeypatch.setattr(
        networks.Networks, "outputs", lambda self, record, *a: seen.append(record.level) or once(self, record, *a)
    )
    evaluate(run, ("classes", "calibration", "agreement"))
    assert seen == [2, 2, 3, 3]  # test and validation, of level 2 and the control; levels 0 and 1 were known


def test_a_level_that_is_trained_again_is_forgotten(run):
    evaluate(run, ("accuracy",))
    with RunFolder.open(run, write=True) as folder:
        folder.drop_levels(1)
    assert stored(run).rows == ()
    assert predictions(run) == {}


def test_damaged_rows_are_told(run):
    evaluate(run, ("accuracy",))
    for name in ("rows.json", "predictions.safetensors"):
        before = (run / name).read_bytes()
        (run / name).write_bytes(before[:-20])
        assert [damage.path.name for damage in verify_run(run)] == [name]
        (run / name).write_bytes(before)
    assert verify_run(run) == ()


def test_without_the_dense_network_nothing_is_compared(tmp_path):
    path = tmp_path / "run"
    recipe = oneshot(target_density=0.5, epochs=1, control=False)
    execute(recipe, model="linear", data="digits", keep="chosen", out=path)
    found = evaluate(path, QUICK, corrupted=TWO)
    with RunFolder.open(path) as folder:
        assert {row["level"] for row in found.rows} == {folder.record.chosen.level}
    assert not of(found, "agreement") + of(found, "class_impact") + of(found, "mce")
    gone, alone = found.notes
    assert "not evaluated, because not kept on disk (keep='chosen'): level 0" in gone
    assert (
        alone == "nothing is compared with the dense network, which was not kept (keep='chosen'): run with --keep all"
    )


# -- what is refused -----------------------------------------------------------------------------------------------


def test_what_is_refused(run):
    with pytest.raises(ValueError, match="metric must be one of .*, got 'f1'"):
        evaluate(run, ("f1",))
    with pytest.raises(ValueError, match="has no level 7: expected one of 0, 1, 2"):
        evaluate(run, levels=[7])
    data = digits()
    with pytest.raises(ValueError, match="must be the run's own: its"):
        evaluate(run, data=replace(data, test=data.validation))
    with pytest.raises(ValueError, match="no test split"):
        evaluate(run, data=replace(digits(), test=None))
    with RunFolder.open(run, write=True) as folder:
        folder.update(status="interrupted")
    with pytest.raises(ValueError, match="the run is interrupted, and only a finished run may read the test split"):
        evaluate(run)


def test_a_network_of_one_s_own_must_be_given(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    path, data = tmp_path / "run", replace(digits(), name="mine")
    execute(lottery(levels=1, epochs=1, control=False), model=model, data=data, out=path)
    with pytest.raises(ValueError, match="'mine', are your own: give --data"):
        evaluate(path)
    with pytest.raises(ValueError, match="built in Python: give --model"):
        evaluate(path, data=data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate(path, data=data, model=model)
    assert len(of(found, "accuracy")) == 2
    assert len(of(found, "effective_macs")) == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_without_classes_has_the_metrics_that_need_none(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g)
    model, parts = torch.nn.Linear(4, 1), zip(("train", "validation", "test"), x.split(20), strict=True)
    data = Data(name="first", **{name: Split(part, part[:, :1]) for name, part in parts})
    recipe = adapted(lottery(levels=1, epochs=1, batch_size=10, control=False), loss="mse", metric="mse")
    execute(recipe, model=model, data=data, out=tmp_path / "run")
    with pytest.raises(ValueError, match="scores of at least two classes.*; structure, size and latency need no class"):
        evaluate(tmp_path / "run", data=data, model=model)
    found = evaluate(tmp_path / "run", ["structure", "size"], data=data, model=model)
    assert len(of(found, "packed_bytes")) == 2
    assert "test mse" in text(gather([tmp_path / "run"], "all"))


# -- the command ---------------------------------------------------------------------------------------------------


def test_command_writes_rows_in_every_format(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--metrics", "accuracy", "classes"]
    assert main(["evaluate", "run", *short, "-o", "rows.csv"]) == 0
    out = capsys.readouterr().out
    assert "worst" in out
    assert "rows in rows.csv" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    for name in ("rows.json", "rows.parquet"):
        assert main(["evaluate", "run", *short, "-o", name]) == 0
    from_json = json.loads((tmp_path / "rows.json").read_text())
    from_parquet = pandas.read_parquet(tmp_path / "rows.parquet").to_dict("records")
    assert len(rows) == len(from_json) == len(from_parquet) > 80
    for one, two, three in zip(rows, from_json, from_parquet, strict=True):
        assert float(one["value"]) == two["value"] == three["value"]
        assert one["group"] == two["group"] == three["group"]
    capsys.readouterr()
    assert main(["evaluate", "run", *short, "-o", "-"]) == 0
    assert list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == rows
    assert main(["evaluate", "run", "--metrics", "accuracy", "--level", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["level"] for row in document["rows"]] == [2, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give at least one run folder"),
        (["nothing"], "nothing is neither a run folder nor a study folder"),
        (["run", "-o", "rows.xlsx"], "expected a file that ends in .csv, .json, .parquet"),
        (["run", "--metrics", "corruptions", "--corruptions", "fog"], "--corruptions must be one of"),
        (["run", "--severities", "6"], "--severities must be one of 1, 2, 3, 4, 5, got 6"),
        (["run", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["run", "--samples", "100"], "--samples needs --metrics corruptions"),
        (["run", "--metrics"], "--metrics needs at least one family"),
        (["run", "--level", "7"], "has no level 7: expected one of 0, 1, 2"),
    ],
)
def test_command_refuses(words, said, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words]) == 2
    assert said in capsys.readouterr().err


def test_default_metrics_are_those_of_the_function():
    from sparsight.cli.record_options import EvaluateOptions

    assert EvaluateOptions(()).metrics == USUAL
