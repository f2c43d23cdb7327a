"""`sparsight export`: of a checkpoint and a run, dense and compacted, and what is refused."""

from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsight.cli import main
from sparsight.zoo import mlp

ON = ["--model", "mlp", "--data", "digits"]


@pytest.fixture
def network(tmp_path, monkeypatch):
    """The mlp for the digits, three units of its first layer without inputs; its file is a.safetensors."""
    monkeypatch.chdir(tmp_path)
    model = mlp((1, 8, 8), 10, seed=0).eval()
    with torch.no_grad():
        model.fc1.weight[:3] = 0
    save_file(model.state_dict(), "a.safetensors")
    return model


def test_onnx(network, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["export", "a.safetensors", *ON, "-o", "n.onnx"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("n.onnx: a.safetensors, ")
    assert "kB, outputs differ by " in said
    session, x = onnxruntime.InferenceSession("n.onnx"), torch.randn(7, 1, 8, 8)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(got), network(x), atol=1e-5)


def test_a_compacted_program(network, capsys):
    assert main(["export", "a.safetensors", *ON, "--to", "exported", "--compact", "-o", "n.pt2"]) == 0
    assert "a.safetensors, compacted from 43,914 to 42,951 parameters, " in capsys.readouterr().out
    program = torch.export.load("n.pt2")
    assert program.state_dict["fc1.weight"].shape == (125, 64)
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(program.module()(x), network(x), atol=1e-5)


@pytest.mark.parametrize(("more", "units"), [([], 128), (["--compact"], 125)])
def test_a_state_dict(network, capsys, more, units):
    assert main(["export", "a.safetensors", *ON, "--to", "state-dict", *more, "-o", "n.safetensors"]) == 0
    assert "differ" not in capsys.readouterr().out
    assert load_file("n.safetensors")["fc1.weight"].shape == (units, 64)


@pytest.mark.parametrize(("words", "code", "said"), [
    (["nothing", "-o", "b"], 4, "nothing does not exist"),
    (["a.safetensors", "-o", "b"], 2, "which needs --model and --data: missing --model"),
    (["a.safetensors", *ON, "-o", "no/b"], 2, "the folder"),
    (["a.safetensors", *ON, "--to", "tflite", "-o", "b"], 2, "tflite"),
    (["a.safetensors", *ON], 2, "missing -o FILE, --out FILE"),
])  # fmt: skip
def test_what_cannot_be_is_refused(network, tmp_path, capsys, words, code, said):
    assert main(["export", *words]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_onnx_without_its_packages(network, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "a.safetensors", *ON, "-o", "n.onnx"]) == 2
    assert "onnx is not installed, which ONNX needs: pip install sparsight[export]" in capsys.readouterr().err
