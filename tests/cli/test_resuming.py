"""A run folder never chooses code: what its record names is compared with the command line, and never imported."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from sparsight import RunFolder
from sparsight.cli.entry import main
from sparsight.cli.progress import Watcher

OWN = """
import torch
from sparsight.types import Data, Split

def build():
    torch.manual_seed(0)
    return torch.nn.Linear(6, 2)

def data():
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(40, 6, generator=g), torch.arange(40) % 2)
    return Data(name="mine", train=split, validation=split, test=split)

def loss(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

def optimizer(parameters):
    return torch.optim.SGD(parameters, lr=0.1)

def metric():
    from sparsight.train.judges import named_judge
    return named_judge("loss", loss)

def recipe(*, rate: float = 0.5, hook: str = ""):
    '''Half of it.'''
    import dataclasses
    from sparsight.recipes import lottery
    return dataclasses.replace(lottery(rate=rate, epochs=2, levels=1), name="mine")
"""

SHORT = ["--epochs", "2", "--levels", "1", "--no-control", "--out", "r"]
NAMES = {
    "model": ["--model", "own:build", "--data", "own:data"],
    "loss": ["--loss", "own:loss", "--data", "digits", "--model", "linear"],
    "optimizer": ["--optimizer", "own:optimizer", "--data", "digits", "--model", "linear"],
    "metric": ["--metric", "own:metric", "--data", "digits", "--model", "linear"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "evil.py").write_text("open('imported', 'w')\ndef anything(*about): pass\n")
    yield tmp_path
    for name in ("own", "evil"):
        sys.modules.pop(name, None)


def begun(monkeypatch, words: list[str]) -> str:
    """Run the command until its first level is half done; what it says at the end."""
    usual = Watcher.__call__

    def interrupted(self, event):
        usual(self, event)
        if event.kind == "epoch" and event.level == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "__call__", interrupted)
        assert main(words) == 130
    return words[1]


@pytest.mark.parametrize("what", NAMES)
def test_what_was_named_must_be_named_again_and_the_line_to_type_is_said(here, monkeypatch, capsys, what):
    begun(monkeypatch, ["run", "lottery", *NAMES[what], *SHORT])
    hint = capsys.readouterr().err.partition("resume with: ")[2].strip()
    del sys.modules["own"]
    assert main(["run", "lottery", "--resume", "--out", "r"]) == 2
    err = capsys.readouterr().err
    assert "your own code, which must be named again" in err
    assert "own" not in sys.modules
    line = err.partition("named again to resume: ")[2].strip()
    assert shlex.split(line) == shlex.split(hint)
    assert main(shlex.split(line)[1:]) == 0
    with RunFolder.open(Path("r")) as folder:
        assert (folder.record.status, folder.record.resumed) == ("finished", 1)


def test_the_line_keeps_what_was_given(here, monkeypatch, capsys):
    begun(monkeypatch, ["run", "own:recipe", *NAMES["model"], "--hook", "own:x", "--out", "r"])
    capsys.readouterr()
    words = ["run", "own:recipe", "--resume", "--out=r", "--threads", "1", "--data", "own:data"]
    assert main(words) == 2
    line = capsys.readouterr().err.partition("named again to resume: ")[2].strip()
    assert shlex.split(line) == ["sparsight", *words, "--model=own:build", "--hook=own:x"]
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize("option", ["--model", "--data", "--loss", "--optimizer", "--metric"])
def test_a_folder_of_someone_else_imports_nothing(here, monkeypatch, capsys, option):
    begun(monkeypatch, ["run", "lottery", "--data", "digits", "--model", "linear", *SHORT])
    with RunFolder.open(Path("r"), write=True) as folder:
        folder.update(command=f"{folder.record.command} {option} evil:anything")
    capsys.readouterr()
    for words in (
        ["run", "lottery", "--resume", "--out", "r"],
        ["run", "lottery", "--resume", "--out", "r", "--keep", "last"],
    ):
        assert main(words) == 2
        assert f"{option}=evil:anything" in capsys.readouterr().err
    for words in (["show", "r"], ["report", "r"], ["analyze", "r"], ["verify", "r"]):
        assert main(words) == 0
    assert not Path("imported").exists()
    assert "evil" not in sys.modules


def test_a_recipe_that_the_record_names_is_not_imported(here, monkeypatch, capsys):
    begun(monkeypatch, ["run", "lottery", "--data", "digits", "--model", "linear", *SHORT])
    with RunFolder.open(Path("r"), write=True) as folder:
        folder.update(command="sparsight run evil:anything --out r")
    assert main(["run", "lottery", "--resume", "--out", "r"]) == 3  # of the defaults: another run
    assert "evil" not in sys.modules


def test_a_command_that_is_none_is_damage(here, monkeypatch, capsys):
    begun(monkeypatch, ["run", "lottery", "--data", "digits", "--model", "linear", *SHORT])
    with RunFolder.open(Path("r"), write=True) as folder:
        folder.update(command="sparsight run lottery 'unended")
    assert main(["run", "lottery", "--resume", "--out", "r"]) == 3
    assert "r/run.json is damaged: its command cannot be read" in capsys.readouterr().err


def test_certify_imports_no_network_that_a_run_names(here, capsys):
    assert main(["run", "lottery", *NAMES["model"], *SHORT]) == 0
    del sys.modules["own"]
    capsys.readouterr()
    assert main(["certify", "r", "--data", "digits", "--as-pruned", "--level", "1"]) == 2
    assert "add --model own:build" in capsys.readouterr().err
    assert "own" not in sys.modules
