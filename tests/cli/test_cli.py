"""The command line: what it prints, where, and its exit codes."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sparsight import __version__
from sparsight.cli.entry import COMMANDS, main
from sparsight.cli.options import as_typed
from sparsight.cli.progress import Watcher
from sparsight.cli.recipes import names
from sparsight.recipes import incop
from sparsight.records.folder import RunFolder
from sparsight.records.journal import Event

SHORT = ["--data", "digits", "--model", "linear", "--epochs", "2", "--levels", "2"]

OWN = """
import torch
from sparsight.types import Data, Split
from sparsight.recipes.lottery import lottery

def build():
    return torch.nn.Linear(6, 2)

def data():
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(40, 6, generator=g), torch.arange(40) % 2)
    return Data(name="mine", train=split, validation=split)

def recipe(*, part: float = 0.5):
    '''Half of it at each level.

    Args:
        part: The share to remove.
    '''
    import dataclasses
    return dataclasses.replace(lottery(rate=part, epochs=1, levels=1), name="mine")

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSIGHT_DEBUG", "")
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that has finished. Tests only read it."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert main(["run", "lottery", *SHORT, "--rate", "0.3", "--out", str(path)]) == 0
    return path


def stored(path: Path):
    with RunFolder.open(path) as folder:
        return folder.record, folder.levels()


class InterruptAt:
    """A watcher that presses Ctrl-C when a level's epoch is over."""

    def __init__(self, monkeypatch, level: int, epoch: int) -> None:
        usual = Watcher.__call__

        def interrupted(self: Watcher, event: Event) -> None:
            usual(self, event)
            if event.kind == "epoch" and event.level == level and event.observation.epoch == epoch:
                raise KeyboardInterrupt

        monkeypatch.setattr(Watcher, "__call__", interrupted)


# -- answers at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["recipes"], ["recipes", "--json"], ["rum"], ["run", "spa"]]
)
def test_answers_without_importing_anything_heavy(argv):
    code = (
        f"import sys; from sparsight.cli.entry import main; main({argv!r})\n"
        "heavy = {'torch', 'numpy', 'numba', 'scipy', 'pydantic', 'tyro', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(command):
    code = (
        f"import sys; from sparsight.cli.entry import main; assert main([{command!r}, '--help']) == 0\n"
        "heavy = {'torch', 'numba', 'scipy', 'pydantic', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: sparsight {command}" in done.stdout


def test_help_names_commands_and_exit_codes(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in ("run RECIPE", "show RUN", "report RUN", "recipes", "study FILE", "exit codes", "130", "--resume"):
        assert word in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sparsight {__version__}\n"


def test_no_command_is_wrong_use(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out == ""


def test_recipes_are_those_of_the_package(capsys):
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"sap", "lottery", "oneshot"} <= {entry["name"] for entry in listed}
    for entry in listed:
        stem = entry["name"].replace("-", "_")
        function = getattr(importlib.import_module(f"sparsight.recipes.{stem}"), stem)
        assert function.__doc__.splitlines()[0] == entry["description"]
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert all(entry["description"] in out for entry in listed)


@pytest.mark.parametrize("columns", ["1", "9", "40"])
def test_help_ends_on_a_terminal_of_any_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["show", "--help"]) == 0
    assert "--json" in capsys.readouterr().out
    assert os.environ["COLUMNS"] == columns


def test_a_file_in_place_of_a_run_folder_is_not_called_a_run(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main(["run", "lottery", "--data", "digits", "--model", "linear", "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert f"{out} cannot be a folder: give another --out" in said
        assert "--resume" not in said
    assert (tmp_path / "file").read_text() == "mine"


def test_what_ascii_cannot_show_is_spelled_out(tmp_path):
    torch.save({"é.weight": torch.ones(2, 3)}, tmp_path / "a.pt")
    words = [sys.executable, "-m", "sparsight", "analyze", str(tmp_path / "a.pt")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9.weight" in done.stdout
    assert "2\\xd73" in done.stdout


def test_module_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "sparsight", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout == f"sparsight {__version__}\n"


def test_reader_that_leaves_early_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m sparsight recipes | true"
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("recipe", sorted(names()))
def test_help_of_a_recipe(recipe, capsys):
    assert main(["run", recipe, "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--control, --no-control", "--epochs N", "--lr X", "Default: 0."):
        assert word in out, word
    for word in ("recipe options", "run options", "--resume", "--threads N", f"sparsight run {recipe} --resume"):
        assert word in out, word


# -- wrong use -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["rum"], 2, "unknown command 'rum'; did you mean 'run'?"),
        (["--versoin"], 2, "unknown option '--versoin'; did you mean '--version'?"),
        (["recipes", "--jsn"], 2, "did you mean '--json'?"),
        (["run", "lotery"], 2, "unknown recipe 'lotery'; did you mean 'lottery'?"),
        (["run", "zzz"], 2, "expected one of grasp, incop, lottery, "),
        (["run", "--seed", "3", "lottery"], 2, "the recipe must come before the options"),
        (
            ["run", "lottery", "--epoch", "3"],
            2,
            "unknown option '--epoch'; did you mean '--epochs' or '--total-epochs' or '--rewind-epoch'?",
        ),
        (["run", "lottery", "--qqq=1"], 2, "unknown option '--qqq'; sparsight run lottery --help lists them"),
        (["run", "lottery", "--no-seed"], 2, "unknown option '--no-seed'"),
        (["run", "lottery", "--rate", "1.5"], 2, "rate must be in [0, 1], got 1.5"),
        (["run", "lottery", "--epochs", "0"], 2, "epochs must be at least 1, got 0"),
        (["run", "lottery", "--epochs", "many"], 2, "--epochs"),
        (["run", "lottery", "--scope", "layr"], 2, "--scope"),
        (["run", "lottery", "surplus"], 2, "surplus"),
        (["run", "sap", "--p", "2", "--q", "1"], 2, "p"),
        (["run", "lottery", "--target-density", "1.2"], 2, "--target-density must be in [0, 1], got 1.2"),
        (["run", "lottery", "--threads", "0", "--data", "digits"], 2, "--threads must be at least 1, got 0"),
        (["run", "lottery", "--data", "digits", "--device", "mars"], 2, "--device"),
        (["run", "lottery", "--data", "digts"], 4, "unknown data 'digts'; did you mean 'digits'?"),
        (["run", "lottery", "--data", "digits", "--model", "mpl"], 4, "unknown model 'mpl'; did you mean 'mlp'"),
        (["run", "lottery", "--data", "digits", "--model", "no_such:build"], 4, "no module 'no_such'"),
        (["run", "no_such:recipe"], 2, "no module 'no_such'"),
        (["run", "lottery", "--resume"], 2, "no unfinished run of 'lottery'"),
        (["run", "lottery", "--resume", "--out", "nowhere"], 2, "nowhere is not a run folder"),
        (["show", "nowhere"], 2, "nowhere is not a run folder"),
        (["report", "nowhere"], 2, "nowhere is not a run folder"),
        (["study", "nowhere.json", "--out", "x"], 2, "cannot read nowhere.json"),
    ],
)
def test_wrong_use(here, capsys, argv, code, said):
    assert main(argv) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not list(here.glob("**/*.*")), "nothing is left behind"


def test_data_that_cannot_be_had(here, capsys, monkeypatch):
    from sparsight.zoo.data import mnist_family

    monkeypatch.setattr(mnist_family, "_places", lambda root: [here])
    missing = mnist_family._no_fashion_mnist(None, "no")
    monkeypatch.setattr(mnist_family, "_download", lambda publisher: (_ for _ in ()).throw(missing))
    assert main(["run", "lottery"]) == 4
    assert "--data digits" in capsys.readouterr().err
    assert not list(here.glob("runs/*")), "a run that did not begin leaves no folder"


def test_exit_codes_are_of_errors_that_exist():
    from sparsight.cli import errors

    for name in errors.CODES:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception)


def test_traceback_only_where_it_is_asked_for(here, capsys, monkeypatch):
    monkeypatch.setenv("SPARSIGHT_DEBUG", "1")
    assert main(["show", "nowhere"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_folder_that_is_taken(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert main(["run", "lottery", *SHORT, "--out", str(finished)]) == 2
    assert "add --resume, or give another --out" in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    assert {p: t for p, t in after.items() if p.name != "run.lock" and p.is_file()} == {
        p: t for p, t in before.items() if p.name != "run.lock" and p.is_file()
    }


def test_show_writes_rows(finished, here, capsys):
    """To a file, beside the table; to standard output, alone. The same numbers as in the JSON document."""
    assert main(["show", str(finished), "--csv", "rows.csv"]) == 0
    assert "validation" in capsys.readouterr().out
    assert main(["show", str(finished), "--csv", "-"]) == 0
    text = capsys.readouterr().out
    assert text == Path("rows.csv").read_text()
    assert main(["show", str(finished), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["rows"]
    rows = list(csv.DictReader(text.splitlines()))
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert dict(row) == {k: "" if v is None else str(v) for k, v in wanted.items()}
        assert 0 < float(row["validation_accuracy"]) <= 1
    assert main(["show", str(finished), "--csv", "nowhere/rows.csv"]) == 2
    assert "--csv nowhere/rows.csv" in capsys.readouterr().err
    assert main(["show", str(finished), "--csv", "-", "--json"]) == 2
    assert "name a file" in capsys.readouterr().err


# -- a run -----------------------------------------------------------------------------------------------------


def test_a_run_says_what_it_does(here, capsys):
    argv = ["run", "lottery", *SHORT, "--rate", "0.3", "--seed", "5", "--threads", "1"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert re.search(r"^level 0: density 100 %, PQ index \(0.5, 1\) 0\.\d+, 2 epochs, validation accuracy", out, re.M)
    assert re.search(r"^level 2: density 49\.\d %", out, re.M)
    assert re.search(r"^dense control: density 100 %.* 6 epochs", out, re.M)
    assert re.search(r"^ +PQ index +validation +test$", out, re.M)
    assert re.search(r"control: .*, \d+ s$", out, re.M)
    assert "for the dense control (6 epochs)" in out
    assert "Report: runs/lottery-001/report.html\n" in out
    assert (here / "runs/lottery-001/report.html").exists()
    record, levels = stored(here / "runs/lottery-001")
    assert shlex.split(record.command) == ["sparsight", *argv]
    assert (record.arguments["rate"], record.arguments["scope"], record.arguments["control"]) == (0.3, "global", True)
    assert "model" not in record.arguments
    assert (record.seed, record.environment["threads"]) == (5, 1)
    assert [level.role for level in levels] == ["level", "level", "level", "control"]
    assert main(["run", "lottery", *SHORT, "--levels", "0", "--no-control"]) == 0
    assert "Report: runs/lottery-002/report.html\n" in capsys.readouterr().out
    record, levels = stored(here / "runs/lottery-002")
    assert record.arguments["control"] is False
    assert [level.role for level in levels] == ["level"]


def test_json_is_one_document(here, capsys):
    assert main(["run", "oneshot", *SHORT, "--json", "--out", "x"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert "level 1: density 80" in captured.err
    assert document["status"] == "finished"
    assert [row["level"] for row in document["rows"] if row["role"] == "level"] == [0, 1, 2]
    assert document["report"] == "x/report.html"
    assert any("on 300 samples, differences" in finding for finding in document["findings"])
    assert sum(row["chosen"] for row in document["rows"]) == 1
    assert main(["show", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_show_and_report(finished, capsys):
    assert main(["show", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert "validation accuracy" in shown
    assert f"Report: {finished / 'report.html'}\n" in shown
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert capsys.readouterr().out == f"{finished / 'report.html'}\n"
    assert (finished / "report.html").read_bytes() == page


def test_resuming_a_finished_run_shows_it(finished, capsys):
    record = (finished / "run.json").read_bytes()
    assert main(["run", "lottery", "--resume", "--out", str(finished)]) == 0
    out = capsys.readouterr().out
    assert f"{finished} is already finished" in out
    assert "validation accuracy" in out
    assert (finished / "run.json").read_bytes() == record


@pytest.mark.parametrize(("level", "epoch", "named"), [(1, 1, True), (0, 2, False)])
def test_interrupted_and_resumed(finished, here, capsys, monkeypatch, level, epoch, named):
    argv = ["run", "lottery", *SHORT, "--rate", "0.3"]
    with monkeypatch.context() as patch:
        InterruptAt(patch, level, epoch)
        assert main(argv) == 130
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    hint = captured.err.partition("resume with: ")[2].strip()
    assert hint == "sparsight run lottery --resume --out runs/lottery-001"
    assert stored(here / "runs/lottery-001")[0].status == "interrupted"
    assert main(["show", "runs/lottery-001"]) == 0
    assert "interrupted" in capsys.readouterr().out
    again = shlex.split(hint)[1:] if named else ["run", "lottery", "--resume"]
    assert main(again) == 0
    assert "Report: runs/lottery-001/report.html" in capsys.readouterr().out
    record, levels = stored(here / "runs/lottery-001")
    assert (record.status, record.resumed) == ("finished", 1)
    assert levels == stored(finished)[1], "the same bits as a run that never stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_told_to_end_can_be_resumed(tmp_path, number):
    """A process of its own, as a scheduler or Ctrl-C ends it."""
    out, state = tmp_path / "x", tmp_path / "x" / "state.safetensors"
    argv = ["lottery", "--data", "digits", "--model", "linear", "--epochs", "3000", "--levels", "1", "--no-control"]

    def listening() -> None:
        """Whoever runs the tests in the background may have had SIGINT ignored, which is inherited."""
        signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-m", "sparsight", "run", *argv, "--out", str(out), "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=listening,
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + 240
            while not state.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            process.send_signal(number)
            said = process.communicate(timeout=120)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"resume with: sparsight run lottery --resume --out {out}" in said
    assert "Traceback" not in said
    with RunFolder.open(out, write=True) as run:  # no process holds its lock
        assert run.record.status == "interrupted"
        assert run.progress() is not None


def test_another_run_damage_and_lock_are_told_apart(here, capsys, monkeypatch):
    argv = ["run", "lottery", *SHORT, "--out", "x"]
    with monkeypatch.context() as patch:
        InterruptAt(patch, 1, 1)
        assert main(argv) == 130
    resume = ["run", "lottery", "--resume", "--out", "x"]
    capsys.readouterr()
    assert main([*resume, "--seed", "7"]) == 3
    assert "seed is 0, not 7" in capsys.readouterr().err
    assert main(["run", "oneshot", *SHORT, "--resume", "--out", "x"]) == 3
    assert "'lottery', not 'oneshot'" in capsys.readouterr().err
    with RunFolder.open(Path("x"), write=True):
        assert main(resume) == 3
    err = capsys.readouterr().err
    assert err.startswith("sparsight: ")
    assert err.count("\n") == 1
    path = Path("x/levels.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"kept":6', b'"kept":5', 1))
    assert main(resume) == 3
    assert "x/levels.jsonl is damaged" in capsys.readouterr().err
    assert main(["show", "x"]) == 3


def test_a_run_that_diverges_has_failed(here, capsys):
    (here / "diverging.py").write_text(
        "from sparsight.zoo.data import digits\nimport torch, dataclasses\n"
        "def data():\n    d = digits()\n    d.train.x.fill_(float('inf'))\n    return d\n"
    )
    assert main(["run", "lottery", *SHORT, "--data", "diverging:data", "--out", "x"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("sparsight: training diverged")
    assert stored(here / "x")[0].status == "failed"


def test_own_model_data_and_recipe_from_the_current_folder(here, capsys):
    (here / "mine_cli.py").write_text(OWN)
    argv = ["run", "mine_cli:recipe", "--model", "mine_cli:build", "--data", "mine_cli:data"]
    assert main([*argv, "--part", "0.25"]) == 0
    record, levels = stored(here / "runs/mine-001")
    assert (record.data["name"], record.model["spec"], dict(record.arguments)) == (
        "mine",
        "mine_cli:build",
        {"part": 0.25},
    )
    assert [level.kept for level in levels][:2] == [12, 9]
    capsys.readouterr()
    assert main(["run", "mine_cli:number"]) == 2
    assert "of type int" in capsys.readouterr().err
    assert main(["run", "mine_cli:build"]) == 2
    assert "must return a sparsight Recipe" in capsys.readouterr().err
    assert main([*argv[:2], "--data", "mine_cli:data", "--model", "mine_cli:number"]) == 2
    assert "must be a Module or a function that returns one, got int" in capsys.readouterr().err
    assert main([*argv[:2], "--data", "mine_cli:nothing"]) == 4
    assert "mine_cli has no 'nothing'" in capsys.readouterr().err
    assert len(list((here / "runs").iterdir())) == 1


FAILING = """
import dataclasses
import torch
from torch import nn
from sparsight.recipes import lottery, snip
from sparsight.runs import Level, Scoring, Search
from sparsight.train.plan import TrainingPlan
from sparsight.zoo.data import digits

def scorer(model: nn.Module, masks: dict, batches: tuple = ()) -> dict:
    raise ValueError("cannot score this")

def broken(model, masks, batches):
    raise ValueError("cannot score this")

def recipe(*, density: float = 0.1):
    return dataclasses.replace(snip(density=density, control=False), score=Scoring(broken))

def untyped(a, b=3):
    return None

def dictionary(*, rate: float = 0.3) -> dict:
    return {}

def data():
    d = digits()
    d.train.x.fill_(float("nan"))
    return d

class Things:
    pass
"""


@pytest.mark.parametrize("out", [None, "x", "empty"])
def test_a_run_that_fails_before_it_trains_leaves_nothing(here, capsys, out):
    """No folder, no number that is gone; a folder that was there stays, and so does what else is in it."""
    (here / "failing_cli.py").write_text(FAILING)
    (here / "empty").mkdir()
    where = [] if out is None else ["--out", out]
    assert main(["run", "failing_cli:recipe", "--data", "digits", *where]) == 2
    assert "cannot score this" in capsys.readouterr().err
    assert list((here / "empty").iterdir()) == []
    assert not (here / "x").exists()
    assert not any((here / "runs").iterdir()) if out is None else not (here / "runs").exists()
    assert main(["run", "snip", "--data", "digits", "--epochs", "1", "--no-control", *where]) == 0
    assert stored(here / (out or "runs/snip-001"))[0].status == "finished"


def test_a_resumed_run_that_fails_keeps_its_folder(here, capsys, monkeypatch):
    argv = ["run", "lottery", *SHORT, "--out", "x"]
    with monkeypatch.context() as patch:
        InterruptAt(patch, 1, 1)
        assert main(argv) == 130
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("sparsight.runs.run"), "_take_up", lambda state: 1 / 0)
        assert main(["run", "lottery", "--resume", "--out", "x"]) == 1
    assert stored(here / "x")[0].status == "failed"
    assert main(["run", "lottery", "--resume", "--out", "x"]) == 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("scorer", "returns a dict"),
        ("broken", "takes 'model', which cannot be given as an option"),
        ("untyped", "takes 'a', which cannot be given as an option"),
        ("dictionary", "returns a dict"),
        ("Things", "is a class"),
    ],
)
def test_what_is_no_recipe_is_refused_in_our_words(here, capsys, name, why):
    (here / "failing_cli.py").write_text(FAILING)
    assert main(["run", f"failing_cli:{name}", "--data", "digits"]) == 2
    expected = "expected a function that returns a Recipe and whose parameters are options"
    assert capsys.readouterr().err == f"sparsight: 'failing_cli:{name}' {why}: {expected}\n"
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sap --p 2 --q 1", "--p must be less than q, both finite and above 0, got --p=2.0, --q=1.0"),
        ("sap --target-density 4", "--target-density must be in [0, 1], got 4.0"),
        ("lottery --rewind-epoch 9", "--rewind-epoch must be at most the 3 epochs of level 0, got 9"),
        ("lottery --until accuracy --stop loss-plateau", "--stop='loss-plateau' needs --until='density', got"),
        ("snip --density 3", "--density must be in (0, 1], got 3.0"),
        ("incop --rate 0.9", "--rate=0.9 needs --prune='lottery', got 'sap'"),
        ("incop --prune lottery --q 3", "--q=3 needs --prune='sap', got 'lottery'"),
        ("incop --prune lottery --p 1", "--p=1 needs --prune='sap', got 'lottery'"),
    ],
)
def test_errors_name_options_as_they_are_typed(here, capsys, words, said):
    assert main(["run", *words.split(), "--data", "digits"]) == 2
    assert f"sparsight: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("levels must be at least 0; try more levels", "--levels must be at least 0; try more levels"),
        ("no p is in reach, p=1 or q=2", "no p is in reach, --p=1 or --q=2"),
        ("give target_density, or none", "give --target-density, or none"),
        ("stop.p=2, stop-p=3, p==4", "stop.p=2, stop-p=3, p==4"),
        ("targets are p", "targets are p"),
    ],
)
def test_names_in_a_message_as_they_are_typed(message, typed):
    assert as_typed(message, ["p", "q", "levels", "target_density", "stop"]) == typed
    assert as_typed(message, []) == message


def test_incop_takes_what_its_pruning_uses():
    own = incop(prune="lottery", rate=0.5).levels.level.prune[0]
    assert (type(own).__name__, own.rate) == ("Shrink", 0.5)
    assert incop(prune="lottery").levels.level.prune[0].rate == 0.2
    assert (incop(p=0.5, q=1.0).levels.level.prune[0].p, incop().levels.level.prune[0].q) == (0.5, 2.0)
    assert incop().pq[0] == (1.0, 2.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(here, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["run", "lottery", *SHORT, "--levels", "1", "--out", "x"]) == 0
    said = terminal.getvalue()
    assert "━" in said, "a bar was drawn"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    assert re.search(r"level 1: density 80\.\d %", plain)
    assert "Report: x/report.html" in plain
