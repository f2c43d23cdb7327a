"""`sparsight phase`: what it prints and draws, and its exit codes."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
import torch
from pages import read, specs

from sparsight.cli.entry import main
from sparsight.measure.criticality import NAMED, chi, edge_of_chaos
from sparsight.report.phase_diagram import phase_diagram


def test_the_edge_is_printed_and_drawn(capsys, tmp_path):
    out = tmp_path / "phase.svg"
    assert main(["phase", "--activation", "tanh", "--sigma-b", "0.2", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "tanh, sigma_b = 0.2: edge of chaos at sigma_w = 1.30414584" in told
    assert re.search(r"0\.05  1\.122539  0\.1537 +yes", told)
    assert f"written: {out}" in told
    svg = ElementTree.fromstring(out.read_text())
    assert svg.tag.endswith("svg")
    fills = {node.get("fill") for node in svg.iter()}
    assert len(fills & {"#2d70a7", "rgb(45, 112, 167)"}) == 1, "the ordered end of the colours"
    assert len(fills) > 20


def test_a_network_is_placed(capsys, tmp_path):
    out = tmp_path / "phase.html"
    assert main(["phase", "--model", "lenet-300-100", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Signals and gradients get through a deep network if its weights begin at the\n")
    assert "relu, sigma_b = 0: edge of chaos at sigma_w = 1.414213562\n" in told
    assert re.search(r"fc2\.weight +300 +0\.5\d+ +0\.0000 +0 +0\.16\d+ +ordered", told)
    assert "ordered: chi 0.16" in told
    assert "fc2.weight" in out.read_text()
    layers = specs(out.read_text())["phase"]["datasets"]["layers"]
    assert [x["name"] for x in layers] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert read(out.read_text()).rows["The network's layers"][2][0] == "fc2.weight"
    assert main(["phase", "--model", "lenet-300-100", "--critical", "--sigma-b", "0"]) == 0
    assert re.search(r"^edge: chi (0\.9|1)", capsys.readouterr().out, re.MULTILINE)


def test_norms_are_told(capsys):
    assert main(["phase", "--model", "resnet8", "--seed", "1"]) == 0
    told = capsys.readouterr().out
    assert "it has norm layers" in told
    assert "it has shortcuts, past which signals get through" in told


def test_json(capsys):
    assert main(["phase", "--activation", "silu", "--sigma-b", "0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked"]["sigma_w"] == pytest.approx(1.6795316006916456, rel=1e-12)
    assert found["asked"]["stable"] is False
    assert found["network"] is None
    assert len(found["chi"]) == len(found["sigma_b"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--activation", "tahn"], 2, "unknown activation 'tahn'; did you mean 'tanh'?"),
        (["--sigma-b", "-1"], 2, "--sigma-b must be at least 0, got -1"),
        (["--out", "phase.png"], 2, "--out must end in .svg or .html, got phase.png"),
        (["--critical"], 2, "--critical needs --model"),
        (["--out", "no/such/phase.svg"], 2, "cannot write --out no/such/phase.svg: the folder"),
        (["--model", "resnet9"], 4, "unknown network 'resnet9'; did you mean"),
        (["--model", "no_such_module:build"], 4, "no module 'no_such_module'"),
        (["--activation", "math:pi"], 2, "math:pi must be a function or a module, got float"),
        (["--model", "linear"], 2, "give --activation"),
    ],
)
def test_errors(words, code, said, capsys):
    assert main(["phase", *words]) == code
    assert said in capsys.readouterr().err


def test_own_network_and_activation(capsys, tmp_path, monkeypatch):
    (tmp_path / "own_phase.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef bent(u):\n    return nn.functional.hardtanh(u, -0.3, 0.7)\n\n\n"
        "def build():\n    return nn.Sequential(nn.Linear(50, 60), nn.Tanh(), nn.Linear(60, 9))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["phase", "--activation", "own_phase:bent", "--model", "own_phase:build", "--sigma-b", "0.1"]) == 0
    told = capsys.readouterr().out
    assert "own_phase:bent, sigma_b = 0.1: edge of chaos" in told
    assert "2.weight" in told


@pytest.mark.parametrize("name", ["tanh", "relu", "silu"])
def test_the_diagram_is_chi(name):
    found = phase_diagram(name, NAMED[name], 0.2, steps=9)
    assert found.asked == (None if name == "relu" else edge_of_chaos(NAMED[name], 0.2))
    for i in range(0, 9, 4):
        for j in range(0, 9, 2):
            if name == "silu" and found.chi[i][j] > 1:
                continue  # an unstable variance: where it ends is a matter of the last digits
            exact = chi(NAMED[name], found.sigma_w[j], found.sigma_b[i])
            assert found.chi[i][j] == pytest.approx(exact, abs=3e-3)


def test_a_diagram_needs_steps():
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        phase_diagram("tanh", torch.tanh, steps=1)


@pytest.mark.parametrize("name", ["relu", "leaky-relu", "tanh", "gelu", "silu"])
def test_by_default_the_edge_is_where_the_activation_has_one(name, capsys):
    assert main(["phase", "--activation", name]) == 0
    line = capsys.readouterr().out.split("\n\n")[1].splitlines()[0]
    sigma_b = 0.0 if name in ("relu", "leaky-relu") else 0.2
    edge = edge_of_chaos(NAMED[name], sigma_b)
    assert line == f"{name}, sigma_b = {sigma_b:g}: edge of chaos at sigma_w = {edge.sigma_w:.10g}"


def test_a_sigma_b_without_an_edge_says_where_there_is_one(capsys):
    assert main(["phase", "--activation", "relu", "--sigma-b", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "relu has no edge of chaos at sigma_b = 0.2\n  at sigma_b = 0 it has one: sigma_w = 1.414213562\n" in said


@pytest.mark.parametrize(
    "words", [["--activation", "gelu"], ["--model", "lenet-300-100"], ["--model", "resnet8", "--sigma-b", "3"]]
)
def test_what_is_said_fits_80_columns_and_axes_have_round_steps(words, capsys, tmp_path):
    page = tmp_path / "phase.html"
    assert main(["phase", *words, "--out", str(page)]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80 and not line.startswith(("it has", "written"))] == []
    assert main(["phase", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for axis in (found["sigma_w"], found["sigma_b"]):
        steps = {round(b - a, 9) for a, b in pairwise(axis)}
        assert len(steps) == 1
        assert (step := steps.pop()) == round(0.02 * round(step / 0.02), 9)
