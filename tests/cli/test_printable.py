"""Text from files never reaches a terminal, a table or a spreadsheet raw."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stored import filled, level, network, run_record

from sparsight import RunFolder
from sparsight.cli import entry
from sparsight.cli.entry import main
from sparsight.cli.errors import say
from sparsight.cli.progress import Watcher, line
from sparsight.model.left_out import LeftOut
from sparsight.records.identity import content_id
from sparsight.records.journal import LevelResult
from sparsight.records.record import Choice, Layer, LevelTimes
from sparsight.report.escape import cell, plain, printable
from sparsight.runs.study import write_csv, write_markdown
from sparsight.train.metric import Metric

EVIL = {
    "clears the screen": "w\x1b[2J",
    "sets a title": "\x1b]0;mine\x07w",
    "C1": "w\x9b31m",
    "forges a row": "w\n* 9   100.0 %   100.00 %",
    "forges a row by a return": "w\r* 9   100.0 %",
    "forges a paragraph": "w\u2029w\u2028w\x85w",
    "turns the line": "w\u202e\u2066txt",
    "erases": "w\x08\x08\x7f",
}


def steers(text: str) -> list[str]:
    """What of the text moves a cursor, or turns or ends a line, beyond "\n"."""
    return [
        c for c in text if c != "\n" and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202e\u2066")
    ]


@pytest.fixture(params=EVIL.values(), ids=EVIL)
def evil(request) -> str:
    return request.param


# -- the functions -------------------------------------------------------------------------------------------------


def test_printable_is_one_line_that_says_what_was_there(evil):
    said = printable(evil)
    assert not steers(said)
    assert "\n" not in said
    assert said.encode("ascii", "backslashreplace").decode() == said
    assert said.encode().decode("unicode_escape") == evil


def test_text_that_does_no_harm_is_left_alone():
    for text in ("Gewichte größer als 0", "重み", "a\\b", "–  ×", "\u00a0%", "👩\u200d👩\u200d👧"):
        assert printable(text) == plain(text) == text
    assert printable("a\tb\nc") == r"a\u0009b\u000ac"
    assert plain("a\tb\nc") == "a\tb\nc"
    assert printable(os.fsdecode(b"\xff")) == r"\udcff"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_taken_for_a_formula(start):
    text = f"{start}cmd|' /C calc'!A0"
    assert cell(text) == f"'{printable(text)}"
    assert (cell(-1.5), cell(None), cell("a=b"), cell("")) == (-1.5, None, "a=b", "")


# -- a checkpoint --------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path, evil, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    tensors = {f"=1+{evil}": torch.randn(3, 4), evil: torch.randn(3, 4), f"{evil}.n": torch.ones(3).int()}
    save_file(tensors, "w.safetensors", {"note": evil})
    return "w.safetensors"


def test_names_in_the_table_of_a_checkpoint(checkpoint, evil, capsys):
    assert main(["analyze", checkpoint, "--all", "--neurons"]) == 0
    out = capsys.readouterr().out
    assert not steers(out)
    assert sum(row.startswith(("w", "=1+w", "\\u001b", "=1+\\u001b")) for row in out.splitlines()) >= 2
    assert not any(row.startswith("* 9") for row in out.splitlines())


def test_names_in_its_csv(checkpoint, evil, capsys):
    assert main(["analyze", checkpoint, "--csv", "t.csv"]) == 0
    text = Path("t.csv").read_text()
    assert not steers(text)
    table = list(csv.DictReader(io.StringIO(text)))
    assert {row["tensor"] for row in table} == {f"'=1+{printable(evil)}", printable(evil), f"{printable(evil)}.n", "*"}
    assert len(text.splitlines()) == 1 + len(table)


def test_a_damaged_file_of_that_name(tmp_path, evil, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"{evil}.safetensors").write_bytes(b"no")
    assert main(["analyze", f"{evil}.safetensors"]) == 3
    err = capsys.readouterr().err
    assert not steers(err)
    assert err.startswith("sparsight: ")
    assert all(row.startswith(("sparsight: ", "  ")) for row in err.splitlines())


def test_lines_of_an_error_cannot_pass_for_others(capsys):
    say("one\nsparsight: finished\r\nthree")
    assert capsys.readouterr().err == "sparsight: one\n  sparsight: finished\\u000d\n  three\n"


# -- a run ---------------------------------------------------------------------------------------------------------


def evil_run(path: Path, evil: str) -> Path:
    metric = Metric(evil, "higher", share=True)
    left = (LeftOut(evil, (3, 5), 0.1, evil, evil),)
    weights, masks = network(0)
    record = level(0)
    seen = dataclasses.replace(record.observations[0], metrics={evil: 0.5})
    record = dataclasses.replace(
        record, id=content_id(weights, masks), layers=(Layer(evil, (3, 5), 15, 15, (0.1,)),), metric=metric,
        observations=(seen,), collapsed=(evil,), floors=(evil,),
    )  # fmt: skip
    with RunFolder.create(path, run_record(left_out=left, recipe=evil)) as folder:
        kept = folder.keep_level(LevelResult(record, LevelTimes(0, "level"), weights, masks)).record
        folder.save_chosen(kept, f"it is {evil}", f"not {evil}")
        folder.update(status="finished", why_ended=evil, chosen=Choice(0, kept.id, f"it is {evil}", f"not {evil}"))
    return path


@pytest.mark.parametrize("words", [["show"], ["analyze"], ["report"], ["show", "--json"], ["verify"]])
def test_what_a_run_says_of_names_in_its_records(tmp_path, evil, capsys, words):
    run = evil_run(tmp_path / "run", evil)
    assert main([words[0], str(run), *words[1:]]) == 0
    out = capsys.readouterr().out
    assert not steers(out)
    assert not any(row.startswith("* 9") for row in out.splitlines())


def test_what_a_run_says_on_a_terminal(tmp_path, evil, capsys, monkeypatch):
    run = evil_run(tmp_path / "run", evil)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    assert not steers(out)
    assert not any(row.startswith("* 9") for row in out.splitlines())


def test_what_is_said_while_it_runs(evil):
    record = dataclasses.replace(level(0), metric=Metric(evil, "higher", share=True))
    assert not steers(line(record))
    assert "\n" not in line(record)
    stream = io.StringIO()
    Watcher(stream).say(f"{evil}")
    assert not steers(stream.getvalue())


def test_a_run_in_a_folder_of_that_name(tmp_path, evil, capsys):
    run = filled(tmp_path / evil, finished=True)
    for words in (["show"], ["report"], ["verify"]):
        assert main([*words, str(run)]) == 0
    (run / "times.jsonl").write_text("")
    assert main(["verify", str(run)]) == 3
    said = capsys.readouterr()
    assert not steers(said.out + said.err)


def test_a_warning_with_that_name(evil, capsys, monkeypatch):
    def warn(argv):
        sys.stderr.write(
            warnings.formatwarning(UserWarning(f"few zeros: {evil}"), UserWarning, "where.py", 3, "code()")
        )
        return 0

    monkeypatch.setattr(entry, "_dispatch", warn)
    before = warnings.formatwarning
    assert main(["recipes"]) == 0
    assert capsys.readouterr().err == f"where.py:3: UserWarning: few zeros: {printable(evil)}\n  code()\n"
    assert warnings.formatwarning is before


# -- a study -------------------------------------------------------------------------------------------------------


def test_tables_of_a_study(tmp_path, evil):
    rows = [{"label": evil, "x": -0.5, "y": None}, {"label": f"={evil}", "x": 1.0, "y": "+1"}]
    write_csv(rows, tmp_path / "t.csv")
    write_markdown(rows, tmp_path / "t.md")
    text = (tmp_path / "t.csv").read_text()
    back = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in back] == [printable(evil), f"'={printable(evil)}"]
    assert [(row["x"], row["y"]) for row in back] == [("-0.5", ""), ("1.0", "'+1")]
    assert not steers(text)
    lines = (tmp_path / "t.md").read_text().split("\n")
    assert not steers("".join(lines))
    assert len(lines) == 5


def test_json_is_ascii(tmp_path, evil, capsys):
    run = evil_run(tmp_path / "run", evil)
    assert main(["show", str(run), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["why_ended"] == evil
    assert all((run / name).read_bytes().isascii() for name in ("run.json", "levels.jsonl"))
