"""`sparsight compact`: of a run, of a checkpoint, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsight.cli import main
from sparsight.deploy import load_compacted
from sparsight.zoo import cnn, mlp

ON = ["--model", "mlp", "--data", "digits"]


@pytest.fixture
def network(tmp_path, monkeypatch):
    """The mlp for the digits, a unit of its first layer without inputs; its file is a.safetensors."""
    monkeypatch.chdir(tmp_path)
    model = mlp((1, 8, 8), 10, seed=0).eval()
    with torch.no_grad():
        model.fc1.weight[3], model.fc1.bias[3] = 0, 0.5
    save_file(model.state_dict(), "a.safetensors")
    return model


def test_a_checkpoint(network, capsys):
    assert main(["compact", "a.safetensors", *ON, "-o", "b.safetensors"]) == 0
    said = capsys.readouterr().out
    before, after = 43_914, 43_914 - 65 - 256
    assert said.startswith(
        f"b.safetensors: a.safetensors, {before:,} parameters, {after:,} left (1.0× smaller), outputs"
    )
    assert "\nstays: " not in said
    assert load_file("b.safetensors")["fc1.weight"].shape == (127, 64)
    with open("b.json") as file:
        told = json.load(file)
    assert told["kept"]["fc2.weight"] == {"1": [i for i in range(128) if i != 3]}
    assert (told["before"], told["after"], told["left"]) == (before, after, [])
    small, x = load_compacted("b.safetensors", network), torch.randn(5, 1, 8, 8)
    assert (small.fc1.out_features, small.fc2.in_features) == (127, 127)
    assert torch.allclose(small(x), network(x), atol=1e-5)


def test_a_run_and_where_the_maps_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "oneshot",
        "--data",
        "digits",
        "--model",
        "mlp",
        "--target-density",
        "0.02",
        "--epochs",
        "1",
        "--out",
        "run",
    ]
    assert main(["run", *words, "--no-control", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["compact", "run", "-o", "b.safetensors", "--maps", "m.json"]) == 0
    assert " of run, 43,914 parameters, " in capsys.readouterr().out
    with open("m.json") as file:
        told = json.load(file)
    assert told["after"] < told["before"] / 2
    assert told["after"] == sum(t.numel() for t in load_file("b.safetensors").values())


def test_what_stays_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = cnn((1, 8, 8), 10, width=0.1, seed=0)
    with torch.no_grad():
        model.fc.weight[2] = 0
    save_file(model.state_dict(), "a.safetensors")
    with open("tiny.py", "w") as file:
        file.write("from sparsight.zoo import cnn\ndef build():\n    return cnn((1, 8, 8), 10, width=0.1, seed=0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["compact", "a.safetensors", "--model", "tiny:build", "--data", "digits", "-o", "b.safetensors"]) == 0
    assert "\nnot removed: 1 unit of fc: an output of the network\n" in capsys.readouterr().out


def test_standard_output_holds_the_file_alone(network, capsysbinary):
    assert main(["compact", "a.safetensors", *ON, "-o", "b.safetensors"]) == 0
    capsysbinary.readouterr()
    assert main(["compact", "a.safetensors", *ON, "-o", "-", "--maps", "m.json"]) == 0
    with open("b.safetensors", "rb") as file:
        assert capsysbinary.readouterr().out == file.read()


@pytest.mark.parametrize(("words", "code", "said"), [
    (["nothing", "-o", "b"], 4, "nothing does not exist"),
    (["a.safetensors", "-o", "b"], 2, "which needs --model and --data: missing --model"),
    (["a.safetensors", "--model", "mlp", "-o", "b"], 2, "missing --data"),
    (["a.safetensors", *ON, "--level", "1", "-o", "b"], 2, "--level is for runs"),
    (["a.safetensors", "--model", "lenet-300-100", "--data", "digits", "-o", "b"], 2, "does not fit lenet-300-100"),
    (["a.safetensors", *ON, "-o", "no/b"], 2, "the folder"),
    (["a.safetensors", *ON, "-o", "-"], 2, "--out - needs --maps FILE"),
    (["a.safetensors", *ON, "-o", "b", "--maps", "no/b"], 2, "cannot write --maps no/b"),
    (["a.safetensors", *ON], 2, "missing -o FILE, --out FILE"),
])  # fmt: skip
def test_what_cannot_be_is_refused(network, tmp_path, capsys, words, code, said):
    assert main(["compact", *words]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("change", ["missing", "more", "larger", "dimensions"])
def test_files_that_are_no_smaller_network_are_refused(network, change):
    state = network.state_dict()
    if change == "missing":
        del state["fc2.bias"]
    elif change == "more":
        state["fc9.bias"] = torch.zeros(1)
    else:
        state["fc1.bias"] = torch.zeros(200) if change == "larger" else torch.zeros(1, 1)
    save_file(state, "c.safetensors")
    with pytest.raises(ValueError, match=r"c\.safetensors is no smaller MLP: "):
        load_compacted("c.safetensors", network)
