"""Rivals compute what the module computes, or say why they do not."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys

import pytest
import torch
from torch import nn

from sparsight.deploy.bench import RIVALS, Case, Unavailable, chosen, conv, linear
from sparsight.deploy.bench.compare import RIVALS_ERROR

CASES = {
    "convolution": conv((8, 16), 9, 3, 2, density=0.3, batch=2),
    "one image": conv((16, 16), 8, 1, density=0.3),
    "linear": linear((32, 24), density=0.3, batch=3),
    "one row": linear((32, 24), density=0.3),
    "network": Case(
        "network", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval(),
        torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
    ),
}  # fmt: skip
NEEDED = {
    "openvino": ("openvino",), "openvino-bf16": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_gives_what_the_module_gives(name, case):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    before = [p.detach().clone() for p in case.module.parameters()]
    with torch.inference_mode():
        want = case.module(case.x)
        try:
            way = RIVALS[name].make(case)
        except Unavailable as error:
            pytest.skip(str(error))
        way.call()
        got = way.result()
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    assert float((got - want).abs().max() / want.abs().max()) < RIVALS_ERROR[RIVALS[name].precision] / 5
    assert all(torch.equal(a, b) for a, b in zip(before, case.module.parameters(), strict=True))


@pytest.mark.skipif(os.name != "posix", reason="signal stacks are POSIX's")
def test_openvino_leaves_the_stack_that_signals_are_handled_on():
    pytest.importorskip("openvino")

    def stack() -> bytes:
        found = ctypes.create_string_buffer(24)
        ctypes.CDLL(None).sigaltstack(None, found)
        return found.raw

    before = stack()
    ways = [RIVALS["openvino"].make(CASES[name]) for name in ("one image", "linear")]
    assert stack() == before
    ways[0].call()
    del ways
    assert stack() == before


@pytest.mark.parametrize("case", ["convolution", "one image", "network"])
def test_csr_is_for_linear_layers(case):
    with pytest.raises(Unavailable, match="single linear layers alone"):
        RIVALS["torch-csr"].make(CASES[case])


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_package_is_named_with_the_extra(name, monkeypatch):
    wanted = importlib.import_module

    def absent(package):
        if package == NEEDED[name][-1]:
            raise ModuleNotFoundError(package)
        return sys if package in NEEDED[name] else wanted(package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Unavailable) as caught:
        RIVALS[name].make(CASES["linear"])
    assert str(caught.value) == f"{NEEDED[name][-1]} is not installed: pip install sparsight[bench]"


def test_rivals_by_name():
    assert [rival.name for rival in chosen()] == list(RIVALS)
    assert [rival.name for rival in chosen(["torch-csr", "torch"])] == ["torch", "torch-csr"]
    with pytest.raises(ValueError, match="rival must be one of 'torch', 'torch-bf16'"):
        chosen(["torch", "tvm"])
