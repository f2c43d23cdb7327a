"""A ledger in words: the sentence in each case, and tables that fit."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from sparsight.deploy.ledger import Counted, Latency, Ledger, Measured, Memory, Times
from sparsight.deploy.ledger.records import CODE, REQUEST
from sparsight.report.ledger import document, rows, section, sentence, text
from sparsight.report.table import as_csv

COUNTED = Counted(1010, 900, 1000, 100, 4040, 4200, 400, 380, 2000, 200)
FOUND = Ledger("a.safetensors", "safetensors", COUNTED, None, {"latency": REQUEST, "memory": REQUEST})


def latency(runtime: str, ratio: float, dense_in: str = "", batch: int = 1, threads: int = 1) -> Latency:
    times = Times(1.0, 0.99, 0.01), Times(ratio, 0.99 * ratio, 0.01)
    return Latency(runtime, batch, threads, *times, dense_in or runtime)


def timed(*ways: Latency) -> Ledger:
    return replace(FOUND, measured=Measured({"processor": "a machine"}, 25, ways, ()), missing={})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            timed(latency("sparsight", 2.1, "torch"), latency("onnxruntime", 1.01), latency("torch", 0.98)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; it is 2.1× faster in "
            "Sparsight's runtime than dense in eager PyTorch at batch 1 on this machine and no faster in ONNX Runtime "
            "or eager PyTorch.",
        ),
        (
            timed(latency("sparsight", 0.7, "openvino"), latency("torch", 1.0)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; it is no faster in "
            "Sparsight's runtime or eager PyTorch at batch 1 on this machine.",
        ),
        (
            timed(latency("torch", 3.0), latency("torch", 1.0, batch=8)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; it is 3.0× faster in eager "
            "PyTorch at batch 1 on this machine; it is no faster in eager PyTorch at batch 8 on this machine.",
        ),
        (
            timed(latency("torch", 3.0), latency("torch", 2.0, threads=2)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; it is 3.0× faster in eager "
            "PyTorch at batch 1 on 1 thread on this machine; it is 2.0× faster in eager PyTorch at batch 1 on 2 "
            "threads on this machine.",
        ),
        (
            FOUND,
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; its speed was not measured "
            "(sparsight ledger --measure does).",
        ),
        (
            replace(FOUND, counted=replace(COUNTED, minus_zeros=1234)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed, and stores 1,234 zeros "
            "with a minus sign (add 0.0 to remove it); its speed was not measured (sparsight ledger --measure does).",
        ),
        (
            replace(FOUND, counted=replace(COUNTED, minus_zeros=1)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; its speed was not measured "
            "(sparsight ledger --measure does).",
        ),
        (
            replace(FOUND, counted=replace(COUNTED, parameters=0, zeros=0, prunable=None, alive=None)),
            "None of the weights is zero; this file is 10.1× smaller packed; its speed was not measured (sparsight "
            "ledger --measure does).",
        ),
        (
            replace(FOUND, missing={"latency": CODE}, counted=replace(COUNTED, prunable=None, alive=None)),
            "89.1 % of the weights are zero; this file is 10.1× smaller packed; its speed was not measured (sparsight "
            "ledger --measure does, with --model and --shape).",
        ),
        (
            replace(FOUND, missing={"latency": "measured of networks that return one tensor"}, format="module"),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller packed; its speed was not measured: "
            "measured of networks that return one tensor.",
        ),
        (
            replace(FOUND, format="sparsight-packed", counted=replace(COUNTED, file_bytes=400)),
            "90.0 % of the prunable weights are zero; this file is 10.1× smaller than dense; its speed was not "
            "measured (sparsight ledger --measure does).",
        ),
        (
            replace(FOUND, counted=replace(COUNTED, alive=1000, packed_bytes=4040)),
            "None of the prunable weights is zero; packed it is no smaller; its speed was not measured (sparsight "
            "ledger --measure does).",
        ),
        (
            replace(FOUND, counted=replace(COUNTED, packed_bytes=None), missing={"packed_bytes": "x cannot be packed"}),
            "90.0 % of the prunable weights are zero; it was not packed: x cannot be packed; its speed was not "
            "measured (sparsight ledger --measure does).",
        ),
    ],
    ids=[
        "gain",
        "no gain",
        "batches",
        "threads",
        "on request",
        "minus",
        "one minus",
        "no parameters",
        "checkpoint",
        "not traced",
        "packed",
        "dense",
        "odd",
    ],
)
def test_sentence(found, said):
    assert sentence(found) == said


def test_text_fits_80_columns_and_marks_every_number():
    memory = Memory("sparsight", 1, 470_000_000, 367_000_000)
    found = timed(latency("sparsight", 2.1, "torch"), latency("onnxruntime", 1.0))
    assert found.measured is not None
    found = replace(found, measured=replace(found.measured, memory=(memory,)), missing={"latency: openvino": "gone"})
    said = text(found)
    assert max(map(len, said.splitlines())) <= 80
    lines = [line.split() for line in said.splitlines()]
    assert ["of", "these", "alive,", "not", "0", "100", "(10.0", "%)", "counted"] in lines
    assert ["bytes", "packed", "400", "(10.1×)", "counted"] in lines
    assert any(line[:2] == ["peak", "memory,"] and line[-1] == "measured" for line in lines)
    assert "Dense beside sparsight is torch, the fastest way measured here." in said
    assert "Missing: latency: openvino: gone." in said
    assert said.endswith(sentence(found).rsplit(" ", 1)[1])


def test_what_was_not_counted_says_why():
    bare = replace(COUNTED, dense_macs=None, effective_macs=None)
    said = text(replace(FOUND, counted=bare, missing={"dense_macs": CODE, "effective_macs": CODE}))
    assert f"Missing: dense MACs, effective MACs: {CODE}." in " ".join(said.split())
    assert "not counted" in said
    assert max(map(len, said.splitlines())) <= 80


def test_rows_and_document_hold_every_number():
    found = timed(latency("torch", 2.0))
    made = list(csv.DictReader(io.StringIO(as_csv(rows(found)))))
    by_name = {row["column"]: row for row in made}
    assert by_name["alive"]["value"] == "100"
    assert by_name["alive"]["how"] == "counted"
    assert (by_name["dense median"]["value"], by_name["dense median"]["how"]) == ("2.0", "measured")
    assert (by_name["dense median"]["runtime"], by_name["dense median"]["unit"]) == ("torch", "s")
    whole = document(found)
    assert whole["sentence"] == sentence(found)
    assert whole["counted"]["floor_bytes"] == 380
    assert whole["measured"]["latency"][0]["dense"]["minimum"] == 1.98


def test_section_of_a_page():
    assert section(None) is None
    found = section(FOUND)
    assert (found.name, found.title, found.lead) == ("ledger", "What is real", sentence(FOUND))
    assert "effective MACs" in [row[0] for row in found.parts[0].rows]
