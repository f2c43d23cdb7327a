"""Run folders of version 0.1 can be read; what it left unfinished is refused, by the name of the version.

Both were made by version 0.1.0 with `sparsight run sipp --variant det --data digits --model linear --levels 2
--epochs 1 --threads 1 --no-control`; the second was interrupted when level 1 was done.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sparsight import RunFolder, execute
from sparsight.cli import entry as cli
from sparsight.recipes import sipp
from sparsight.records import ForeignRun
from sparsight.records.identity import content_id

STORED = Path(__file__).parents[1] / "data"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with copies of both runs."""
    for name in ("run-0.1", "run-0.1-unfinished"):
        shutil.copytree(STORED / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *words: str) -> str:
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def test_the_folder_gives_the_same_networks():
    with RunFolder.open(STORED / "run-0.1") as folder:
        assert folder.record.environment["sparsight"] == "0.1.0"
        assert [(level.level, level.kept, level.total) for level in folder.levels()] == [
            (0, 640, 640), (1, 512, 640), (2, 64, 640),
        ]  # fmt: skip
        for level in folder.levels():
            weights, masks = folder.restore(level)
            assert content_id(weights, masks) == level.id
            assert sum(int(mask.sum()) for mask in masks.values()) == level.kept
            assert int(weights["fc1.weight"].count_nonzero()) == level.kept


def test_show(here, capsys):
    shown = json.loads(said(capsys, "show", "run-0.1", "--json"))
    assert shown["status"] == "finished"
    assert [(row["density"], row["chosen"]) for row in shown["rows"]] == [(1.0, False), (0.8, True), (0.1, False)]
    row = "* 1   80.0 %    0.1082       1     82.00 %   79.67 %"
    assert row in said(capsys, "show", "run-0.1")


def test_show_of_the_unfinished_one(here, capsys):
    assert json.loads(said(capsys, "show", "run-0.1-unfinished", "--json"))["status"] == "interrupted"


def test_report(here, capsys):
    assert said(capsys, "report", "run-0.1") == "run-0.1/report.html\n"
    page = (here / "run-0.1" / "report.html").read_text()
    assert "79.67 %" in page
    assert "b1d185de7a3953cefa1edcd8f366780cb9259f6a480956c56b219bff04d3ba54" in page  # the chosen level


def test_analyze(here, capsys):
    path = json.loads(said(capsys, "analyze", "run-0.1", "--json"))
    text = said(capsys, "analyze", "run-0.1")
    assert [step["density"] for step in path["steps"]] == [1.0, 0.8, 0.1]
    assert "1   80.0 %             0.1082     82.00 %  79.67 %" in text


def test_certify(here, capsys):
    told = json.loads(said(capsys, "certify", "run-0.1", "--level", "1", "--as-pruned", "--json"))
    (layer,) = told["certificate"]["layers"]
    assert (layer["name"], layer["kept"], layer["total"]) == ("fc1.weight", 512, 640)


def test_a_finished_run_is_not_taken_up(here, capsys):
    assert cli.main(["run", "sipp", "--resume", "--out", "run-0.1"]) == 3
    said = capsys.readouterr().err
    assert "0.1.0" in said
    assert "sparsight show" in said
    before = {path.name: path.read_bytes() for path in (STORED / "run-0.1").glob("*.json*")}
    assert before == {path.name: path.read_bytes() for path in (here / "run-0.1").glob("*.json*")}


def test_an_unfinished_run_is_refused(here, capsys):
    assert cli.main(["run", "sipp", "--resume", "--out", "run-0.1-unfinished"]) == 3
    said = capsys.readouterr().err
    assert "begun with sparsight 0.1.0" in said
    assert "sparsight==0.1.0" in said
    stored = STORED / "run-0.1-unfinished"
    after = here / "run-0.1-unfinished"
    assert {p.relative_to(stored): p.read_bytes() for p in stored.rglob("*") if p.is_file()} == {
        p.relative_to(after): p.read_bytes() for p in after.rglob("*") if p.is_file() and p.name != "run.lock"
    }


def test_an_unfinished_run_is_refused_in_python(here):
    recipe = sipp(variant="det", levels=2, epochs=1, control=False)
    with pytest.raises(ForeignRun, match=r"begun with sparsight 0\.1\.0"):
        execute(recipe, model="linear", data="digits", out=here / "run-0.1-unfinished", resume=True, threads=1)
