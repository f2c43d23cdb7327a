"""What is no run, no checkpoint, or no number, is refused by every command: one message, one class, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from stored import filled

from sparsight import execute
from sparsight.checkpoint import CheckpointError
from sparsight.cli.entry import exit_code, main
from sparsight.numerics.checks import check_seed, check_threads
from sparsight.recipes import lottery, sap
from sparsight.records import DamagedFile, masks_from, verify_run
from sparsight.runs.study import Trial
from sparsight.train.optimizers import Adam, NesterovSGD, named_optimizer

ON = ["--data", "digits", "--model", "linear"]
COMMANDS = {
    "show": lambda path: ["show", path],
    "report": lambda path: ["report", path],
    "verify": lambda path: ["verify", path],
    "analyze": lambda path: ["analyze", path],
    "certify": lambda path: ["certify", path, "--dense", path, *ON],
    "bench": lambda path: ["bench", path],
    "ledger": lambda path: ["ledger", path],
    "compact": lambda path: ["compact", path, *ON, "-o", "out"],
    "export": lambda path: ["export", path, *ON, "-o", "out"],
    "resume": lambda path: ["run", "lottery", *ON, "--resume", "--out", path],
    "weights": lambda path: ["run", "lottery", *ON, "--weights", path, "--out", "out"],
}
PATHS = {
    "too long a name": ("x" * 300, {2, 4}),
    "too long a path": ("/".join(["d" * 200] * 30), {2, 4}),
    "a null": ("a\0b", {2, 4}),
    "nothing": ("nothing", {2, 4}),
    "a link to itself": ("loop", {2, 4}),
    "a file": ("file", {2, 3}),
    "an empty folder": ("empty", {2, 3}),
    "a FIFO": ("fifo", {2, 3}),
    "an endless device": ("/dev/zero", {2, 3}),
    "a run whose record is a FIFO": ("fifo-run", {2, 3}),
    "a run whose record is a folder": ("folder-run", {2, 3}),
    "a run whose record is endless": ("device-run", {2, 3}),
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("loop").symlink_to("loop")
    os.mkfifo("fifo")
    for name in ("empty", "fifo-run", "folder-run/run.json", "device-run"):
        Path(name).mkdir(parents=True)
    os.mkfifo("fifo-run/run.json")
    Path("device-run/run.json").symlink_to("/dev/zero")
    return tmp_path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_run_and_no_checkpoint(here, capsys, command, path):
    name, codes = PATHS[path]
    assert main(COMMANDS[command](name)) in codes
    said = capsys.readouterr()
    err = said.err or said.out  # verify tells damage on standard output
    assert err.count("\n") == 1
    assert "Errno" not in err
    assert "unexpected" not in err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--threads", "100000000"], ["--threads", "0"], ["--seed", "9" * 30], ["--seed", "-1"], ["--lr", "nan"],
        ["--lr", "inf"], ["--lr", "-0.1"], ["--momentum", "nan"], ["--weight-decay", "nan"], ["--weight-decay", "inf"],
        ["--clip", "nan"], ["--rate", "nan"], ["--within", "nan"], ["--target-density", "nan"],
        ["--evaluate-every", "nan"], ["--epochs", "9" * 30], ["--levels", "9" * 30], ["--batch-size", "9" * 30],
        ["--min-keep", "9" * 30], ["--rewind-epoch", "9" * 30],
    ],
    ids=" ".join,
)  # fmt: skip
def test_numbers_that_no_run_can_have(here, capsys, words):
    assert main(["run", "lottery", *ON, "--out", "out", *words]) == 2
    assert words[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("synflow", ["--rounds", "9" * 30]), ("snip", ["--rounds", "100001"]), ("sipp", ["--levels", "9" * 30]),
        ("incop", ["--warmup", "9" * 30]), ("incop", ["--probes", "9" * 30]), ("grasp", ["--score-batches", "9" * 30]),
        ("sbp", ["--sigma-b", "1e300", "--activation", "tanh"]),
    ],
)  # fmt: skip
def test_numbers_that_no_recipe_can_have(here, capsys, recipe, words):
    assert main(["run", recipe, *ON, "--out", "out", *words]) == 2
    said = capsys.readouterr().err
    assert words[0].strip("-").replace("-", "_").removeprefix("score_") in said.replace("-", "_")
    assert "unexpected" not in said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["analyze", "file", "--threads", "100000000"], ["analyze", "file", "--eta", "0.1", "nan"],
        ["phase", "--sigma-b", "nan"], ["phase", "--seed", "9" * 30], ["certify", "file", "--delta", "nan"],
    ],
)  # fmt: skip
def test_numbers_of_other_commands(here, capsys, words):
    assert main(words) == 2
    option = next(word for word in words if word.startswith("--"))
    assert f"{option} must be" in capsys.readouterr().err


def test_numbers_in_python(tmp_path):
    for threads in (10**8, 0, 1.5, True):
        with pytest.raises(ValueError, match="threads must be"):
            execute(sap(epochs=1), model="linear", data="digits", out=tmp_path / "out", threads=threads)
    check_threads(1024)
    check_seed(2**63 - 1)
    for seed in (2**63, 10**30, -1, 0.0):
        for make in (check_seed, lambda s: Trial("sap", seed=s), lambda s: lottery(seed=s)):
            with pytest.raises(ValueError, match="seed must be"):
                make(seed)
    nan = float("nan")
    for make in (
        lambda: NesterovSGD(lr=nan), lambda: NesterovSGD(momentum=nan), lambda: NesterovSGD(weight_decay=-1.0),
        lambda: Adam(lr=float("inf")), lambda: Adam(weight_decay=nan), lambda: named_optimizer("adamw", nan, 0.9, 0.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be finite and at least 0"):
            make()
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_tensors_has_the_same_exit_code_at_every_door(here, capsys):
    torch.save({"w": torch.ones(2, 2)}, "cut.pt")
    os.truncate("cut.pt", 300)
    for words in (["analyze", "cut.pt"], COMMANDS["weights"]("cut.pt"), COMMANDS["certify"]("cut.pt")):
        assert main(words) == 3
        assert "cut.pt" in capsys.readouterr().err
    with pytest.raises(CheckpointError) as caught:
        masks_from("cut.pt")
    assert exit_code(caught.value) == 3


def test_what_could_not_be_done_with_a_file_is_said(here, capsys):
    """Who gives weights to a run has not asked for an analysis."""
    torch.save({"w": torch.ones(2, 2)}, "cut.pt")
    os.truncate("cut.pt", 300)
    torch.save({"b": torch.ones(2)}, "bias.pt")
    for words, doing, path in (
        (COMMANDS["weights"]("cut.pt"), "load weights from", "cut.pt"),
        (COMMANDS["certify"]("cut.pt"), "read", "cut.pt"),
        (["analyze", "cut.pt"], "read", "cut.pt"),
        (["analyze", "bias.pt"], "analyse", "bias.pt"),
    ):
        assert main(words) == 3
        assert capsys.readouterr().err.startswith(f"sparsight: cannot {doing} {path}: "), words


@pytest.mark.parametrize("place", ["fifo", "fifo.npz", "cifar/train.bin", "images/b/1.png"])
def test_data_that_would_wait_for_ever_are_refused(here, capsys, place):
    for folder in ("cifar", "images/a", "images/b"):
        Path(folder).mkdir(parents=True)
    Path("cifar/test.bin").write_bytes(bytes(3074))
    Path(place).unlink(missing_ok=True)
    os.mkfifo(place)
    path = place.split("/")[0]
    assert main(["run", "lottery", "--data", f"./{path}", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"sparsight: cannot read {'data from ' if path == place else ''}{place}: ")
    assert not Path("out").exists()


def test_data_in_a_folder_that_may_not_be_read(here, capsys, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["run", "lottery", "--data", "./empty", "--out", "out"]) == 2
    assert capsys.readouterr().err == "sparsight: cannot read data from empty: Permission denied (empty)\n"


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep")])
def test_memory_that_is_not_there_is_damage_of_the_file_that_asked_for_it(tmp_path, monkeypatch, error):
    from sparsight.records import files

    run = filled(tmp_path / "run")

    def fail(*about):
        raise error

    monkeypatch.setattr(files, "unseal", fail)
    (found,) = verify_run(run)
    assert isinstance(found, DamagedFile)
    assert found.path == run / "run.json"


def test_memory_that_is_not_there_is_said_in_words(monkeypatch, capsys):
    from sparsight.cli import entry

    def fail(argv):
        raise MemoryError

    monkeypatch.setattr(entry, "_dispatch", fail)
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err == "sparsight: not enough memory\n"


def test_a_folder_that_vanishes_in_mid_run_is_said_to_be_gone(tmp_path, monkeypatch, capsys):
    import shutil

    from sparsight.cli.progress import Watcher

    monkeypatch.chdir(tmp_path)
    usual = Watcher.__call__

    def vanish(self, event):
        usual(self, event)
        if event.kind == "epoch" and event.level == 1:
            shutil.rmtree("out")

    monkeypatch.setattr(Watcher, "__call__", vanish)
    assert main(["run", "lottery", *ON, "--epochs", "2", "--levels", "1", "--no-control", "--out", "out"]) == 1
    err = capsys.readouterr().err
    assert "its folder is gone, with all that was in it" in err
    assert "intact" not in err
