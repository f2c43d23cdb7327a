"""The table of a comparison, and its numbers as JSON and CSV."""

from __future__ import annotations

import json
from dataclasses import replace

from sparsight.deploy import Planned
from sparsight.deploy.bench import Comparison, Row, Timing
from sparsight.report.table import as_csv
from sparsight.report.timings import document, layers, rows, timings

MACHINE = {"processor": "A Processor With a Name That Is Rather Long @ 3.00 GHz (some-kind)", "threads": 1}


def row(name, ms, precision="fp32", ours=False, sparse=False):
    return Row(name, precision, ours, sparse, 2e-7, ms / 1e3, Timing(ms / 1e3, ms / 1e3 + 1, ms / 1e3 + 2))


FOUND = Comparison(
    "3×3 64 @ 56, batch 1", 0.1, 1, 1, 1_929_472,
    (
        row("sparsight", 0.3, ours=True), row("sparsight, converting", 0.45, ours=True), row("torch", 2.1),
        row("openvino-bf16", 1.05, "bf16"),
    ),
    {"torch-csr": "it is for others", "onnxruntime": "it is not installed"},
)  # fmt: skip


def test_the_text():
    assert timings(FOUND, 25, MACHINE) == (
        "3×3 64 @ 56, batch 1, density 10.0 %; 1 thread of A Processor With a Name That\n"
        "Is Rather Long @ 3.00 GHz (some-kind); least process time of 25 rounds.\n"
        "\n"
        "way                    numbers    ms  times ours  error\n"
        "---------------------  -------  ----  ----------  -----\n"
        "sparsight                 fp32   0.3              2e-07\n"
        "sparsight, converting     fp32  0.45       1.50×  2e-07\n"
        "torch                     fp32   2.1       7.00×  2e-07\n"
        "openvino-bf16             bf16  1.05       3.50×  2e-07\n"
        "\n"
        "sparsight is 7.00× as fast as the fastest in fp32, torch.\n"
        "sparsight is 3.50× as fast as the fastest of all, openvino-bf16.\n"
        "A call of sparsight holds 1.9 MB of activations and scratch.\n"
        "Left out: torch-csr: it is for others.\n"
        "Left out: onnxruntime: it is not installed."
    )


def test_the_text_without_rivals_and_with_a_faster_one():
    ours = row("sparsight", 2.0, ours=True)
    alone = timings(Comparison("a", 0.5, 1, 2, 0, (ours,)), 1, MACHINE)
    assert "There is no rival to compare with." in alone
    assert "2 threads of" in alone
    assert "least wall time of 1 round." in " ".join(alone.split())
    faster = timings(Comparison("a", 0.5, 1, 2, 0, (ours, row("torch", 1.0))), 1, MACHINE)
    assert "sparsight is 0.50× as fast as the fastest rival, torch." in faster


def test_layers_and_what_runs_them():
    long, both = "a.very.long.name.of.a.layer.in.the.middle.head", {"torch": 1.25, "sparse": 0.5}
    plan = [
        Planned("stem", "Conv2d", 0.1, "sparse", "2.50 times as fast", both),
        Planned(long, "Linear", 0.9, "torch", "sparse is 0.40 times as fast", {"torch": 0.5, "sparse": 1.25}),
        Planned("odd", "LSTM", 0.123, "torch", "its input is not one float32 tensor", {}),
    ]  # fmt: skip
    text = layers(plan)
    assert max(map(len, text.split("\n"))) <= 80
    said = " ".join(text.split())
    assert "In PyTorch: odd: its input is not one float32 tensor." in said
    assert "In PyTorch: a.very.long.name.of.a.layer.in.the.middle.head: sparse is 0.40 times as fast." in said
    assert "12.3 % torch – –" in said
    found = replace(FOUND, plan=tuple(plan))
    assert "1 of 3 layers run sparse, the others in PyTorch." in timings(found, 25, MACHINE)
    json.dumps(document([found], 25, MACHINE), allow_nan=False)


def test_the_numbers():
    found = json.loads(json.dumps(document([FOUND], 25, MACHINE), allow_nan=False))
    assert list(found) == ["machine", "rounds", "comparisons"]
    (one,) = found["comparisons"]
    assert set(one) == {"case", "density", "batch", "threads", "memory", "rows", "missing", "plan", "ratios"}
    assert {name: round(value, 6) for name, value in one["ratios"].items()} == {
        "fp32": 7.0, "all": 3.5, "dense fp32": 7.0, "dense": 3.5
    }  # fmt: skip
    assert set(one["rows"][0]) == {"name", "precision", "ours", "sparse", "error", "seconds", "timing"}
    assert set(one["rows"][0]["timing"]) == {"process", "wall", "median", "spread"}
    assert one["missing"]["torch-csr"] == "it is for others"
    lines = as_csv(rows([FOUND])).splitlines()
    assert lines[0] == "case,density,batch,threads,way,precision,seconds,process,wall,median,times_ours,error"
    assert len(lines) == 5
    assert lines[2].startswith('"3×3 64 @ 56, batch 1",0.1,1,1,"sparsight, converting",fp32,0.00045,0.00045,1.00045,2.')
