"""`sparsight ledger`: runs, files and networks, what it refuses, and its sentence in `show` and the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from sparsight import execute
from sparsight.cli.entry import main
from sparsight.recipes import oneshot


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 640 prunable weights at density 0.2."""
    place = tmp_path_factory.mktemp("ledger")
    execute(oneshot(target_density=0.2, epochs=1, control=False), model="linear", data="digits", out=place / "run")
    return place


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = torch.get_num_threads()
    yield folder
    torch.set_num_threads(before)


def said(capsys, *words: str):
    assert main(["ledger", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_says_the_same_as_its_file_and_a_packed_one(here, capsys):
    assert main(["pack", "run", "-o", "p.safetensors"]) == 0
    capsys.readouterr()
    run, file = said(capsys, "run"), said(capsys, "run/model.safetensors")
    coded = said(capsys, "p.safetensors", "--model", "linear", "--shape", "1", "8", "8")
    kept = run["counted"]["alive"]
    assert run["counted"]["prunable"] == 640
    assert kept == 128
    assert (run["counted"]["dense_macs"], run["counted"]["effective_macs"]) == (640, 128)
    for name in ("parameters", "prunable", "alive", "dense_bytes", "floor_bytes", "packed_bytes"):
        assert run["counted"][name] == file["counted"][name] == coded["counted"][name], name
    assert coded["counted"]["effective_macs"] == 128
    assert file["counted"]["effective_macs"] is None
    assert run["sentence"].startswith("80.0 % of the prunable weights are zero; this file is ")
    assert run["sentence"].endswith("its speed was not measured (sparsight ledger --measure does).")
    assert file["sentence"].endswith("with --model and --shape).")


def test_a_level_of_a_run(here, capsys):
    dense = said(capsys, "run", "--level", "0")
    assert dense["counted"]["prunable"] == dense["counted"]["alive"] == 640
    assert dense["source"].endswith("levels/000/model.safetensors")


def test_show_and_the_report_have_the_sentence(here, capsys):
    sentence = said(capsys, "run")["sentence"]
    assert main(["show", "run"]) == 0
    assert f"What is real: {sentence}\n" in capsys.readouterr().out
    assert main(["show", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledger"] == sentence
    page = Path("run/report.html").read_text()
    assert '<section id="ledger"><h2>What is real</h2>' in page
    assert "effective MACs" in page
    ledger = page[page.index('<section id="ledger">') : page.index('<section id="frontier">')]
    assert main(["report", "run"]) == 0
    assert ledger in Path("run/report.html").read_text()


def test_times_stand_in_the_table_and_in_csv(here, capsys):
    words = ["run", "--measure", "--rounds", "1", "--runtimes", "torch", "--batch", "1", "2", "--threads", "1"]
    assert main(["ledger", *words, "--csv", "out.csv"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count(" sparse ") == 4
    made = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert {(row["runtime"], row["batch"]) for row in made if row["column"] == "sparse median"} == {
        (name, batch) for name in ("sparsight", "torch") for batch in ("1", "2")
    }
    assert " at batch 1 on this machine" in " ".join(out.split())


def test_a_network_of_the_zoo(here, capsys):
    found = said(capsys, "lenet-300-100", "--shape", "1", "28", "28")
    assert found["counted"]["dense_macs"] == 784 * 300 + 300 * 100 + 100 * 10
    assert found["sentence"].startswith("None of the prunable weights is zero; ")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["nope"], 4, "unknown network 'nope'"),
        (["run", "--level", "77"], 2, "run has no level 77: expected one of 0, "),
        (["mlp", "--level", "1"], 2, "--level is for runs: mlp is not a run folder"),
        (["mlp", "--model", "mlp"], 2, "--model is for files and runs"),
        (["run", "--batch", "2"], 2, "--batch needs --measure"),
        (["run", "--measure", "--batch", "0"], 2, "--batch must be at least 1, got 0"),
        (["run", "--measure", "--rounds", "0"], 2, "--rounds must be at least 1, got 0"),
        (["run", "--measure", "--threads", "0"], 2, "--threads must be"),
        (["run", "--measure", "--runtimes", "tvm"], 2, "runtimes must be one of 'torch'"),
        (["run", "--shape", "0"], 2, "--shape must be at least 1, got 0"),
        (["run/model.safetensors", "--measure"], 2, "--measure needs the network's code and the shape of its input"),
        (["run/model.safetensors", "--model", "mlp"], 1, "does not fit MLP"),
        (["run/run.json"], 3, "cannot read run/run.json"),
        (["damaged"], 3, "cannot read damaged"),
        (["run", "--json", "--csv", "-"], 2, "can go to standard output"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_refusals(here, capsys, words, code, why):
    Path("damaged").write_bytes(Path("run/model.safetensors").read_bytes()[:500])
    assert main(["ledger", *words]) == code
    assert why in capsys.readouterr().err
