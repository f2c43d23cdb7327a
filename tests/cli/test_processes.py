"""A command in several processes: who speaks, and with which exit code. Two real ones: tests/runs/test_several.py."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pytest

from sparsight.cli import processes
from sparsight.cli.entry import COMMANDS
from sparsight.cli.errors import Misuse
from sparsight.cli.run_options import understand


@pytest.fixture
def rank(monkeypatch, capsys):
    """Become one of four processes, two on this machine, without a launcher that keeps a store."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)

    def become(number: int) -> None:
        for name, value in {"LOCAL_RANK": number % 2, "RANK": number, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))

    return become


def test_one_process_is_as_it_was(capsys):
    assert not processes.several()
    assert processes.main_process()
    assert processes.last_word("it failed", 3) == 3
    assert capsys.readouterr().err == "sparsight: it failed\n"
    assert processes.launched(["run", "sap", "--out", "a b"]) == "sparsight run sap --out 'a b'"
    assert processes.told_folder() is None
    processes.part(3)


@pytest.mark.parametrize(("number", "spoken"), [(0, "sparsight: it failed\n"), (1, ""), (3, "")])
def test_without_a_store_the_main_process_speaks(rank, number, spoken, monkeypatch, capsys):
    rank(number)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    assert processes.last_word("it failed", 3) == 3
    assert capsys.readouterr().err == spoken


@pytest.mark.parametrize(
    ("first", "code", "spoken"), [("1 3", 3, "sparsight: it failed\n"), ("0 130", 130, ""), ("2 4", 4, "")]
)
def test_the_first_speaks_and_all_end_with_its_code(rank, first, code, spoken, monkeypatch, capsys):
    class Store:
        def compare_set(self, key: str, expected: str, own: str) -> bytes:
            assert (key, expected, own) == ("sparsight/2/ended", "", "1 3")
            return first.encode()

    rank(1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setattr(processes, "_store", Store)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    assert processes.last_word("it failed", 3) == code
    assert capsys.readouterr().err == spoken


@pytest.mark.parametrize("number", [0, 1, 2])
def test_all_but_the_main_process_are_silent(rank, number, monkeypatch):
    rank(number)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    processes.join("run")
    assert [isinstance(stream, io.StringIO) for stream in (sys.stdout, sys.stderr)] == [number == 0] * 2
    sys.stdout.close()


def test_the_others_wait_until_the_command_is_understood_or_has_ended(rank, monkeypatch):
    held: dict[str, bytes] = {}

    class Store:
        def set(self, key: str, value: str) -> None:
            held[key] = value.encode()

        def check(self, keys: list[str]) -> bool:
            return keys[0] in held

        def get(self, key: str) -> bytes:
            return held[key]

    monkeypatch.setattr(processes, "_store", Store)
    rank(1)
    held["sparsight/0/ended"] = b"0 2"
    with pytest.raises(SystemExit, match="2"):
        processes.told_folder()
    rank(0)
    assert processes.told_folder() is None
    processes.tell_folder(Path("runs/sap-002"))
    rank(3)
    assert processes.told_folder() == Path("runs/sap-002")


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"run", "recipes"}))
def test_other_commands_are_done_by_one_process(command, rank):
    rank(0)
    with pytest.raises(Misuse, match=f"sparsight {command} needs a single process: start it without torchrun"):
        processes.join(command)


def test_the_line_to_type_names_the_launcher(rank, monkeypatch):
    rank(0)
    assert processes.launched(["run", "sap"]) == "torchrun ... -m sparsight run sap"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.launched(["run", "sap"]) == "torchrun --nproc-per-node 2 -m sparsight run sap"


def test_a_folder_must_be_named_without_a_store(rank):
    rank(1)
    processes._store.cache_clear()
    with pytest.raises(Misuse, match="need a common run folder: give --out, or start them with torchrun"):
        understand("sap", ["--data", "digits"])
