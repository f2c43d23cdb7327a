"""Export: what is written computes what the module computes, or nothing is written."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from networks import Detector, Inverted, sparse_
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsight.deploy import compact, export
from sparsight.zoo.networks import KNOWN


def network(name: str) -> tuple[nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if name in ("detector", "inverted"):
        made = Detector() if name == "detector" else Inverted()
        return sparse_(made, 0.1), torch.randn(4, 3, 32, 32, generator=generator)
    return sparse_(KNOWN[name]((1, 16, 16), 10, seed=0), 0.02), torch.randn(4, 1, 16, 16, generator=generator)


def run_onnx(path, x: Tensor) -> list[Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


def run_exported(path, x: Tensor) -> list[Tensor]:
    found = torch.export.load(io.BytesIO(path.read_bytes())).module()(x)
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("to", ["onnx", "exported"])
@pytest.mark.parametrize("small", [False, True], ids=["dense", "compacted"])
@pytest.mark.parametrize("name", ["lenet-300-100", "resnet8", "vanilla-cnn", "detector", "inverted"])
def test_what_is_written_computes_the_same(tmp_path, name, small, to):
    if to == "onnx":
        pytest.importorskip("onnxscript")
    model, x = network(name)
    module = compact(model, x).module if small else model
    done = export(module, x, tmp_path / "n", to=to)
    assert done.difference <= 1e-4
    assert done.size == (tmp_path / "n").stat().st_size
    for inputs in (x, x[:1], torch.cat([x, x, x]) * 0.5):
        with torch.no_grad():
            wanted = model(inputs)
        wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
        got = (run_onnx if to == "onnx" else run_exported)(tmp_path / "n", inputs)
        for a, b in zip(got, wanted, strict=True):
            assert float((a.detach() - b).abs().max()) <= 1e-4 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("small", [False, True], ids=["dense", "compacted"])
def test_a_state_dict_has_the_same_bits(tmp_path, small):
    model, x = network("resnet8")
    module = compact(model, x).module if small else model
    done = export(module, x, tmp_path / "n.safetensors", to="state-dict")
    found = load_file(tmp_path / "n.safetensors")
    assert found.keys() == module.state_dict().keys()
    assert all(np.array_equal(found[n].numpy(), t.numpy()) for n, t in module.state_dict().items())
    assert done.difference == 0.0


def test_a_compacted_file_is_smaller(tmp_path):
    model, x = network("lenet-300-100")
    sizes = [export(m, x, tmp_path / "n", to="exported").size for m in (model, compact(model, x).module)]
    assert sizes[1] < sizes[0] / 2


class Rounding(nn.Module):
    """Computes something else when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.layer(x)
        return self.layer(x) + 1e-2


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("to", ["onnx", "exported"])
@pytest.mark.parametrize(("model", "said"), [
    (Rounding().eval(), r"what was exported differs by 0\.0\d+, expected at most 0\.0001"),
    (Branching().eval(), "cannot export this model"),
    (nn.Linear(3, 2), r"call model\.eval\(\)"),
])  # fmt: skip
def test_nothing_is_written_of_what_is_refused(tmp_path, to, model, said):
    if to == "onnx":
        pytest.importorskip("onnxscript")
    (tmp_path / "n").write_text("before")
    with pytest.raises(ValueError, match=said):
        export(model, torch.randn(2, 3), tmp_path / "n", to=to)
    assert (tmp_path / "n").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_is_refused_early(tmp_path):
    model = nn.Linear(3, 2).eval()
    with pytest.raises(ValueError, match="to must be one of .* got .tflite."):
        export(model, torch.randn(2, 3), tmp_path / "n", to="tflite")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="the folder"):
        export(model, torch.randn(2, 3), tmp_path / "no" / "n")


def test_onnx_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript is not installed.*pip install sparsight\[export\]"):
        export(nn.Linear(3, 2).eval(), torch.randn(2, 3), tmp_path / "n")


def test_more_weights_than_onnx_holds_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("sparsight.deploy.exporting._MOST", 31)
    with pytest.raises(ValueError, match="at most 31 bytes of weights, got 32"):
        export(nn.Linear(3, 2).eval(), torch.randn(2, 3), tmp_path / "n")


@pytest.mark.parametrize("to", ["onnx", "exported", "state-dict"])
def test_the_model_is_not_changed(tmp_path, to):
    if to == "onnx":
        pytest.importorskip("onnxscript")
    model, x = network("resnet8")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    export(model, x, tmp_path / "n", to=to)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in model.parameters())
