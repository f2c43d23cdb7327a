"""`sparsight bench`: its options, what it refuses, and what it writes. No time is asserted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import sparsight
from sparsight import execute
from sparsight.checkpoint import pack
from sparsight.cli.entry import main
from sparsight.deploy.runtime import choice
from sparsight.recipes import oneshot

LAYERS = ("sparsight", "sparsight, converting", "sparsight, bf16 weights")
QUICK = ["--rounds", "1", "--rivals", "torch"]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("words", "case", "density"),
    [
        (["conv", "--channels", "4", "6", "--size", "8", "--kernel", "1"], "1×1 4→6 @ 8, batch 1", 2 / 24),
        (["conv", "--channels", "4", "4", "--size", "8", "--stride", "2"], "3×3 4 @ 8, stride 2, batch 1", 14 / 144),
        (["linear", "--features", "20", "5", "--batch", "3"], "linear 20→5, batch 3", 0.1),
        (["lenet-300-100", "--batch", "2", "--density", "0.25"], "lenet-300-100, batch 2", 0.25),
    ],
)  # fmt: skip
def test_what_is_timed(capsys, words, case, density):
    assert main(["bench", *words, *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["processor"]
    assert found["machine"]["versions"]["torch"] == torch.__version__
    (one,) = found["comparisons"]
    assert one["case"] == case
    assert one["density"] == pytest.approx(density, abs=1e-4)
    names = [row["name"] for row in one["rows"]]
    assert names == [*(LAYERS if words[0] in ("conv", "linear") else LAYERS[:1]), "torch"]
    assert one["rows"][0]["error"] < 1e-5


def test_a_table_for_each_density_in_80_columns_and_a_row_for_each_way(capsys, tmp_path):
    words = ["--features", "20", "5", "--density", "0.5", "0.2", "--csv", str(tmp_path / "out.csv")]
    assert main(["bench", "linear", *words, *QUICK, "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "density 50.0 %" in out
    assert "density 20.0 %" in out
    assert out.count("sparsight is ") == 2
    rows = list(csv.DictReader(Path(tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["density"], row["way"]) for row in rows] == [
        (density, way) for density in ("0.5", "0.2") for way in (*LAYERS, "torch")
    ]


def test_missing_extras_are_named(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert main(["bench", "linear", "--features", "20", "5", "--rounds", "1", "--rivals", "openvino", "torch"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Left out: openvino: openvino is not installed: pip install sparsight[bench]." in out


def test_a_run_has_its_own_weights_shape_and_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(oneshot(target_density=0.2, epochs=1, control=False), model="linear", data="digits", out="run")
    assert main(["bench", "run", *QUICK, "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert one["case"] == "level 8 of run, batch 1"
    assert one["density"] == pytest.approx(0.2, abs=1e-3)
    assert main(["bench", "run", *QUICK, "--density", "0.1"]) == 2
    assert (
        "--density does not apply to run: its options are --shape, --level, --model, --data" in capsys.readouterr().err
    )
    assert main(["bench", "run", *QUICK, "--level", "70"]) == 2
    assert "has no level 70" in capsys.readouterr().err


def test_a_file_needs_its_network_and_layers_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "_file", lambda: tmp_path / "runtime.json")
    model = sparsight.zoo.lenet_300_100((1, 8, 8), 10)
    with torch.no_grad():
        model.fc1.weight[::2] = 0
    pack(model, "packed.safetensors")
    words = ["bench", "packed.safetensors", "--model", "lenet-300-100", "--shape", "1", "8", "8", *QUICK]
    assert main([*words, "--batch", "1", "16", "--threads", "1", "--layers"]) == 0
    out = capsys.readouterr().out
    assert "packed.safetensors, batch 1," in " ".join(out.split())
    assert "packed.safetensors, batch 16," in " ".join(out.split())
    assert out.count("sparse ms") == 2
    assert out.count("fc1") >= 2
    assert max(map(len, out.splitlines())) <= 80
    assert main(["bench", "packed.safetensors", *QUICK]) == 2
    assert "--model must be given for packed.safetensors" in capsys.readouterr().err
    assert main([*words, "--density", "0.1"]) == 2
    assert "--density does not apply to packed.safetensors: its options are --shape, --model" in capsys.readouterr().err
    assert main(["bench", "linear", "--layers", *QUICK]) == 2
    assert "--layers is for networks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["conv", "--density", "1.5"], 2, "--density must be in [0, 1], got 1.5"),
        (["conv", "--density", "0.1", "-1"], 2, "--density must be in [0, 1], got -1.0"),
        (["conv", "--density", "nan"], 2, "--density must be a number"),
        (["linear", "--batch", "0"], 2, "--batch must be at least 1, got 0"),
        (["linear", "--rounds", "0"], 2, "--rounds must be at least 1, got 0"),
        (["conv", "--channels", "64", "0"], 2, "--channels must be at least 1, got 0"),
        (["conv", "--kernel", "0"], 2, "--kernel must be at least 1, got 0"),
        (["linear", "--threads", "0"], 2, "--threads must be"),
        (["linear", "--seed", "-1"], 2, "--seed must be"),
        (["linear", "--rivals", "tvm"], 2, "rivals must be one of 'torch', 'torch-bf16', 'torch-csr'"),
        (["linear", "--kernel", "3"], 2, "--kernel does not apply to linear: its options are --features, --density"),
        (["conv", "--features", "3", "3"], 2, "--features does not apply to conv: its options are --channels, --size"),
        (["mlp", "--size", "3"], 2, "--size does not apply to mlp: its options are --shape, --density"),
        (["mlp", "--level", "3"], 2, "--level does not apply to mlp"),
        (["con"], 4, "unknown network 'con'; did you mean 'conv'"),
        (["nobody.knows:it"], 4, "nobody"),
        (["torch.nn:Identity"], 2, "torch.nn:Identity needs --shape"),
        (["linear", "--json", "--csv", "-"], 2, "can go to standard output"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_refusals(capsys, monkeypatch, tmp_path, words, code, said):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
