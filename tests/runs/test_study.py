"""Studies: what is run, skipped and resumed, and the numbers that come out."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import statistics
import threading
import time
from pathlib import Path

import pytest
import scipy.stats
from stored import filled

from sparsight.cli.entry import main
from sparsight.cli.progress import Watcher
from sparsight.cli.study_trials import planned
from sparsight.records import trials
from sparsight.records.files import DamagedFile, seal
from sparsight.records.folder import RunFolder
from sparsight.runs.study import Trial, local, rows, run_study, summarise, write_csv, write_markdown

SHORT = {"epochs": 1, "levels": 1, "control": False}


def short(**changes) -> Trial:
    return Trial(**{"recipe": "lottery", "arguments": SHORT, "model": "linear", "data": "digits", **changes})


# -- numbers ---------------------------------------------------------------------------------------------------


def test_summary_is_the_textbook_interval():
    values = {"a": [0.1, 0.4, 0.5, 0.2], "b": [3.0]}
    table = [{"label": k, "seed": i, "x": v} for k, vs in values.items() for i, v in enumerate(vs)]
    table.append({"label": "b", "seed": 9, "x": None})
    a, b = summarise(table, by=["label"], value="x")
    low, high = scipy.stats.t.interval(0.95, 3, loc=statistics.mean(values["a"]), scale=scipy.stats.sem(values["a"]))
    assert (a["label"], a["value"], a["n"]) == ("a", "x", 4)
    assert a["mean"] - a["half_width"] == pytest.approx(low)
    assert a["mean"] + a["half_width"] == pytest.approx(high)
    assert a["standard_deviation"] == pytest.approx(statistics.stdev(values["a"]))
    assert b == {"label": "b", "value": "x", "n": 1, "mean": 3.0, "standard_deviation": None, "half_width": None}
    with pytest.raises(KeyError):
        summarise(table, by=["colour"], value="x")


def test_tables_are_written_whole(tmp_path):
    table = [{"label": "a|b", "x": 0.1 + 0.2, "none": None}, {"label": 'c,"d"', "x": 1.0, "none": "z"}]
    write_csv(table, tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="") as file:
        back = list(csv.DictReader(file))
    assert [(r["label"], float(r["x"]), r["none"]) for r in back] == [("a|b", 0.1 + 0.2, ""), ('c,"d"', 1.0, "z")]
    write_markdown(table, tmp_path / "t.md")
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines == ["| label | x | none |", "| --- | --- | --- |", r"| a\|b | 0.3 |  |", '| c,"d" | 1 | z |']


# -- trials ----------------------------------------------------------------------------------------------------


def test_keys_tell_runs_apart_and_ignore_labels():
    same = {short().key, short(label="x").key, short(arguments=dict(reversed(SHORT.items()))).key}
    assert len(same) == 1
    other = [short(seed=1), short(recipe="oneshot"), short(model="mlp"), short(arguments={**SHORT, "epochs": 2})]
    assert len({*same, *(trial.key for trial in other)}) == 5
    assert short(model="my.pkg:build", data="a/b c/").key.startswith("lottery-build-b-c-seed0-")
    assert short(model="my.pkg:build/../x").key.startswith("lottery-x-digits-seed0-")


def test_folders_that_a_study_named_by_whole_paths_go_on(tmp_path):
    """As the folders and the study.json of studies begun before; the trials of later calls join them."""
    trial, other = short(data="sparsight.zoo.data:digits"), short(seed=1)
    old = f"lottery-linear-sparsight.zoo.data-digits-seed0-{trial.digest}"
    fields = {f.name: getattr(trial, f.name) for f in dataclasses.fields(trial) if f.name != "folder"}
    shared = {"device": "auto", "precision": "no", "keep": "chosen"}

    def written(key: str) -> None:
        (tmp_path / "study.json").write_text(json.dumps(seal({"trials": {key: fields}, "shared": shared})) + "\n")

    written(old)
    folder = tmp_path / "trials" / old
    filled(folder, finished=True)
    (folder / "report.html").touch()
    before = (tmp_path / "study.json").read_text()
    assert [ended.status for ended in run_study([trial], tmp_path)] == ["skipped"]
    assert json.loads(before)["trials"] == json.loads((tmp_path / "study.json").read_text())["trials"]
    assert [*trials.read_study(tmp_path)[0]] == [old]
    placed = trials.remember([trial, other], tmp_path, trials.Shared())
    assert [each.key for each in placed] == [old, other.key]
    assert [*trials.read_study(tmp_path)[0]] == [old, other.key]
    assert {row["seed"] for row in rows(tmp_path)} == {0}
    another = old[:-1] + ("0" if old[-1] != "0" else "1")
    for wrong in (f"../../{old}", f"..-{trial.digest}", another, f"a\n-{trial.digest}"):
        written(wrong)
        with pytest.raises(DamagedFile, match="is another one"):
            trials.read_study(tmp_path)


def test_command_of_a_trial():
    arguments = {"control": False, "within": -0.5, "pairs": [[1, 2], [0.5, 1]], "min_keep": 1, "clip": None}
    words = trials.command(short(arguments=arguments, seed=3))
    assert words[:5] == ["run", "lottery", "--seed=3", "--model=linear", "--data=digits"]
    assert words[5:] == [
        "--no-control", "--within=-0.5", "--pairs", "1", "2", "0.5", "1", "--min-keep=1", "--clip=None",
    ]  # fmt: skip


def test_wrong_studies(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        run_study([short(), short(label="x")], tmp_path)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        run_study([short()], tmp_path, workers=0)
    with pytest.raises(ValueError, match="the seed is a field"):
        short(arguments={"seed": 1})
    run_study([], tmp_path)
    with pytest.raises(ValueError, match="take another folder"):
        run_study([], tmp_path, precision="bf16")


def test_seeds_of_a_file(tmp_path):
    entries = [{"recipe": "sap", "seeds": [4, 5], "label": "a"}, {"recipe": "lottery", "arguments": {"rate": 0.5}}]
    (tmp_path / "f.json").write_text(json.dumps(entries))
    assert [plan.trial for plan in planned(tmp_path / "f.json")] == [
        Trial("sap", {}, 4, label="a"),
        Trial("sap", {}, 5, label="a"),
        Trial("lottery", {"rate": 0.5}, label="lottery"),
    ]


class Fake:
    """A process that ends when asked how it is for the third time."""

    running = 0
    most = 0
    started: list[tuple[list[str], dict[str, str]]] = []  # noqa: RUF012

    def __init__(self, words, *, env, **rest):
        self.left, self.returncode = 3, 0
        Fake.started.append((words, env))
        Fake.running += int(env["OMP_NUM_THREADS"])
        Fake.most = max(Fake.most, Fake.running)

    def poll(self):
        self.left -= 1
        if self.left == 0:
            Fake.running -= int(Fake.started[0][1]["OMP_NUM_THREADS"])
        return 0 if self.left <= 0 else None


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "most"), [(8, 2, 4, 8), (8, 3, 2, 6), (2, 5, 1, 2), (3, 1, 3, 3)]
)
def test_workers_never_have_more_threads_than_cores(tmp_path, monkeypatch, cores, workers, threads, most):
    Fake.started, Fake.running, Fake.most = [], 0, 0
    monkeypatch.setattr(local, "available_cores", lambda: cores)
    monkeypatch.setattr(local.subprocess, "Popen", Fake)
    run_study([short(seed=i) for i in range(7)], tmp_path, workers=workers)
    assert len(Fake.started) == 7
    assert Fake.most == most
    for words, env in Fake.started:
        assert f"--threads={threads}" in words
        assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == str(threads)


def test_a_study_from_its_file_to_its_tables(tmp_path, capsys, monkeypatch):
    """One trial was finished before, one was interrupted, one fails."""
    entries = [
        {"label": "L", "recipe": "lottery", "arguments": SHORT, "model": "linear", "data": "digits", "seeds": [0, 1]},
        {"label": "bad", "recipe": "snip", "arguments": {"lr": 1e30, "epochs": 1}, "model": "linear", "data": "digits"},
    ]
    file, out = tmp_path / "f.json", tmp_path / "out"
    file.write_text(json.dumps(entries))
    first, second = (trial for trial in [plan.trial for plan in planned(file)] if trial.label == "L")
    for trial in (first, second):
        argv = [*trials.command(trial), "--threads=1", "--out", str(out / "trials" / trial.key)]
        with monkeypatch.context() as patch:
            if trial is second:
                patch.setattr(Watcher, "__call__", press_ctrl_c)
            assert main(argv) == (130 if trial is second else 0)
    before = {p: p.stat().st_mtime_ns for p in (out / "trials" / first.key).rglob("*.json*")}
    capsys.readouterr()

    assert main(["study", str(file), "--out", str(out), "--workers", "2", "--device", "cpu"]) == 1
    said = capsys.readouterr().out
    assert f"{first.key}: skipped" in said
    assert f"{second.key}: finished" in said
    (failed,) = [line for line in said.splitlines() if ": failed" in line]
    assert "training diverged" in failed
    log = Path(failed.partition("see ")[2].partition(": ")[0])
    assert "training diverged" in log.read_text()
    assert before == {p: p.stat().st_mtime_ns for p in (out / "trials" / first.key).rglob("*.json*")}
    with RunFolder.open(out / "trials" / second.key) as folder:
        assert (folder.record.status, folder.record.resumed) == ("finished", 1)

    found = rows(out)
    accuracies = [r["validation_accuracy"] for r in found if r["chosen"]]
    half = scipy.stats.t.ppf(0.975, 1) * scipy.stats.sem(accuracies)
    (told,) = [line for line in said.splitlines() if line.endswith("  L")]
    assert told.split()[0] == "2", "seeds"
    assert f"{100 * statistics.mean(accuracies):.2f} ± {100 * half:.2f} %" in told
    assert [(r["seed"], r["level"]) for r in found] == [(s, n) for s in (0, 1) for n in (0, 1)]
    row = found[3]
    with RunFolder.open(out / "trials" / second.key) as folder:
        level, evaluation = folder.levels()[1], folder.evaluation()
        chosen = folder.record.chosen
    assert (row["label"], row["recipe"], json.loads(row["arguments"]), row["model"]) == (
        "L",
        "lottery",
        SHORT,
        "linear",
    )
    assert (row["density"], row["kept"], row["steps"]) == (level.density, level.kept, level.steps)
    assert (row["pq(0.5, 1)"], row["pq(1, 2)"]) == level.pq
    assert (row["epochs"], row["cumulative_epochs"], row["reason"]) == (1.0, 2.0, "trained all 1 epochs")
    assert row["validation_accuracy"] == level.validation_accuracy
    assert row["test_accuracy"] == next(e.test_accuracy for e in evaluation.entries if e.id == level.id)
    assert row["chosen"] is (chosen.id == level.id)

    with open(out / "rows.csv", newline="") as lines:
        assert [float(r["density"]) for r in csv.DictReader(lines)] == [r["density"] for r in found]
    assert len((out / "rows.md").read_text().splitlines()) == 2 + len(found)
    page = (out / "compare.html").read_text()
    assert second.key in page
    assert f"Page: {out / 'compare.html'}" in said
    with open(out / "summary.csv", newline="") as lines:
        summary = list(csv.DictReader(lines))
    (line,) = [r for r in summary if r["which"] == "level 1" and r["value"] == "test_accuracy"]
    values = [r["test_accuracy"] for r in found if r["level"] == 1]
    assert int(line["n"]) == 2
    assert float(line["mean"]) == pytest.approx(statistics.mean(values))
    assert float(line["half_width"]) == pytest.approx(scipy.stats.t.ppf(0.975, 1) * scipy.stats.sem(values))


def press_ctrl_c(self, event):
    if event.kind == "epoch" and event.level == 1:
        raise KeyboardInterrupt
    if event.kind == "done" and event.level == 0:
        raise KeyboardInterrupt


def test_a_study_that_is_stopped_stops_its_trials(tmp_path, capsys):
    number = signal.SIGTERM
    entries = [{"recipe": "lottery", "arguments": {"epochs": 2000}, "model": "linear", "data": "digits"}]
    (tmp_path / "f.json").write_text(json.dumps(entries))
    (trial,) = [plan.trial for plan in planned(tmp_path / "f.json")]
    folder = tmp_path / "out" / "trials" / trial.key

    def stop() -> None:
        until = time.monotonic() + 240
        while not (folder / "state.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    stopper = threading.Thread(target=stop)
    stopper.start()
    code = main(["study", str(tmp_path / "f.json"), "--out", str(tmp_path / "out"), "--device", "cpu"])
    stopper.join()
    assert signal.getsignal(number) is before
    assert code == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    with RunFolder.open(folder, write=True) as run:  # no process holds its lock
        assert run.record.status == "interrupted"


@pytest.mark.parametrize("there", [True, False])
def test_a_log_is_not_written_through_a_link(tmp_path, there):
    trial, other = Trial("lottery"), tmp_path / "other"
    run_study([], tmp_path / "s")
    (tmp_path / "s" / "logs" / f"{trial.key}.log").symlink_to(other)
    if there:
        other.write_text("precious")
    with pytest.raises(OSError, match=rf"cannot write .*{trial.key}\.log: it is not a regular file"):
        run_study([trial], tmp_path / "s")
    assert other.read_text() == "precious" if there else not other.exists()
    assert not list((tmp_path / "s" / "trials").iterdir())


def test_a_finished_run_is_taken_up_until_it_is_tidied_up(tmp_path, monkeypatch):
    """Killed between its end and its report, its folder holds weights that `keep` does not ask for."""
    started = []

    class Fake:
        returncode = 0

        def __init__(self, words, **about):
            started.append(words)

        def poll(self):
            return 0

    monkeypatch.setattr(local.subprocess, "Popen", Fake)
    trial, out = Trial("lottery"), tmp_path / "s"
    run = filled(out / "trials" / trial.key, finished=True, keep="chosen")
    assert [ended.status for ended in run_study([trial], out)] == ["finished"]
    assert "--resume" in started[0]
    (run / "report.html").touch()
    assert [ended.status for ended in run_study([trial], out)] == ["skipped"]
    assert len(started) == 1
