"""What is seen of a run while it runs: how long it takes, and what happens if nobody reads it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from samples import sample

from sparsight.cli.entry import main
from sparsight.cli.progress import Watcher, epochs_left, levels_left, rough
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import lottery, snip
from sparsight.records.folder import RunFolder
from sparsight.records.journal import Event
from sparsight.runs import Done, Level, Recipe, Search, Until
from sparsight.runs.budget import budgeted
from sparsight.runs.search import Listed
from sparsight.train.observation import Observation
from sparsight.train.plan import TrainingPlan

LEVEL = Level((Shrink(0.5),), train=TrainingPlan(epochs=3))


def done(*kept: int, epochs: float = 3.0):
    """Records of levels that keep these weights of the first's."""
    record = sample(1).levels[0]
    return [replace(record, level=i, kept=k, total=kept[0], epochs=epochs) for i, k in enumerate(kept)]


class Open(Search):
    def next(self, history):
        return Done("enough") if len(history) > 3 else LEVEL


@pytest.mark.parametrize(
    ("search", "kept", "left"),
    [
        (Listed((LEVEL, LEVEL, LEVEL)), (100,), 2),
        (Listed((LEVEL,)), (100,), 0),
        (Until(LEVEL, levels=5), (100, 50), 4),
        (Until(LEVEL, density=0.1, levels=15), (1000,), 15),  # at which rate is not known yet
        (Until(LEVEL, density=0.1, levels=15), (1000, 500), 3),  # 250, 125, 62
        (Until(LEVEL, density=0.1), (1000, 500, 250), 2),
        (Until(LEVEL, density=0.25), (1000, 500, 250), 0),
        (Until(LEVEL, density=0.1, levels=2), (1000, 500), 1),
        (Until(LEVEL, density=0.0, levels=4), (1000, 500), 3),
        (Until(LEVEL, density=0.1, levels=9), (1000, 500, 500), 7),  # the last removed nothing
        (Until(LEVEL, density=0.1), (1000,), None),
        (Open(), (1000, 500), None),
    ],
)
def test_levels_left(search, kept, left):
    assert levels_left(search, done(*kept)) == left


@pytest.mark.parametrize(
    ("kind", "role", "control", "epoch", "left"),
    [
        ("begin", "level", False, None, 3 + 3 * 2),  # level 2 of 4: this one, and two more
        ("epoch", "level", False, 1.0, 2 + 3 * 2),
        ("done", "level", False, 3.0, 3 * 3),
        ("begin", "level", True, None, 3 + 6 + (6 + 3 + 6)),
        ("done", "level", True, 3.0, 9 + (6 + 9)),
        ("epoch", "control", True, 5.0, 10),
        ("done", "control", True, 15.0, 0),
    ],
)
def test_epochs_left(kind, role, control, epoch, left):
    recipe = Recipe(name="x", score=Magnitude(), levels=Until(LEVEL, levels=4), control=control)
    seen = None if epoch is None else Observation(epoch, 10)
    event = Event(kind, role, 2, 15 if role == "control" else 3, 250, 1000, seen)
    assert epochs_left(recipe, done(1000, 500), event) == left


def test_epochs_left_are_not_known_of_a_search_that_does_not_say():
    recipe = Recipe(name="x", score=Magnitude(), levels=Open())
    assert epochs_left(recipe, done(1000), Event("begin", "level", 1, 3, 500, 1000)) is None
    assert epochs_left(lottery(levels=2), [], Event("begin", "level", 0, 3, 10, 10)) == 3 + 6 + 9
    budget = budgeted(lottery(epochs=3, control=False), 20)
    assert epochs_left(budget, done(1000), Event("begin", "level", 1, 3, 500, 1000)) == 20 - done(1000)[0].epochs
    assert epochs_left(snip(epochs=7), [], Event("begin", "level", 0, 7, 1, 10)) == 7 + 7


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (12.4, "12 s"), (65.0, "1 min 05 s"), (7325.0, "2 h 02 min")]
)
def test_rough(seconds, text):
    assert rough(seconds) == text


def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path):
    """As `sparsight run ... | head -1`: the first line is read, then the pipe is closed."""
    words = ["run", "lottery", "--data=digits", "--model=linear", "--epochs=1", "--levels=3", "--device=cpu", "--out=x"]
    with subprocess.Popen(
        [sys.executable, "-m", "sparsight", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("Looking for")
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert said == "sparsight: the output was closed; the run continues\n"
    with RunFolder.open(tmp_path / "x") as folder:
        assert folder.record.status == "finished"
        assert len(folder.levels()) == 5


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_of_80_columns_words_and_numbers_stay_whole(tmp_path, monkeypatch):
    """The bar, the table and the sentences below it."""
    for name, value in {"TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["run", "lottery", "--data=digits", "--levels=10", "--epochs=1", "--rate=0.7", "--device=cpu"]) == 0
    drawn = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in re.split(r"[\r\n]+", terminal.getvalue())]
    table = drawn[next(i for i, line in enumerate(drawn) if "PQ index  " in line) :]
    assert max(map(len, table)) <= 80
    assert not any("\u2026" in line for line in drawn)
    monkeypatch.setattr(sys, "stdout", plain := io.StringIO())
    assert main(["show", "runs/lottery-001"]) == 0
    *_, told = plain.getvalue().partition("What is real")[0].partition("* chosen")
    assert told.split() == " ".join(table).partition("* chosen")[2].split()


@pytest.mark.parametrize("hours", [0.001, 0.3, 7.5])
@pytest.mark.parametrize("role", ["level", "control"])
def test_the_bar_fits_80_columns(role, hours, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    clock = iter([0.0, 0.0, *[3600.0 * hours] * 9])
    monkeypatch.setattr("sparsight.cli.progress.monotonic", lambda: next(clock))
    recipe = Recipe(name="x", score=Magnitude(), levels=Until(LEVEL, levels=40), control=True)
    with Watcher(terminal, recipe, done(1000, 500)) as watcher:
        watcher(Event("begin", role, 12, 300, 412, 1000))
        watcher(Event("epoch", role, 12, 300, 412, 1000, Observation(1.0, 9, validation_accuracy=0.98331)))
        watcher._bar.refresh()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").rstrip("\n").split("\n")[-1]
    assert "41.2 %, accuracy 98.33 %" in last
    assert last.rstrip().endswith("left")
    assert len(last.rstrip()) <= 80
