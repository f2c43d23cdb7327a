"""Benchmarks refuse what they cannot time."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (["--weights", "1000000"], "got 4096 x 4096 and 1000000"),
        (["--weights", "0", "--memory"], "got 4096 x 4096 and 0"),
        (["--rows", "0"], "got 0 x 4096 and 100663296"),
    ],
)
def test_analyze_needs_room_for_one_tensor(words, got, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / "analyze.py"), run_name="__main__")
    assert ended.value.code == 2
    assert got in capsys.readouterr().err


# -- the runtime -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime():
    return runpy.run_path(str(BENCHMARKS / "runtime.py"))


def compared(ours, **rivals):
    """A comparison as it is stored: seconds by name."""
    rows = [{"name": name.replace("_", "-"), "seconds": s} for name, s in {"sparsight": ours, **rivals}.items()]
    dense = {name: s for name, s in rivals.items() if name != "torch_csr"}
    fp32 = min((s for name, s in dense.items() if "bf16" not in name), default=None)
    ratios = {"dense fp32": fp32 and fp32 / ours, "dense": min(dense.values()) / ours if dense else None}
    return {"rows": rows, "ratios": ratios}


def results(comparisons, features=("avx512f",)):
    machine = {"features": list(features), "cores": 2, "processor": "P", "python": "3", "versions": {"torch": "2"}}
    return {"machine": machine, "rounds": 1, "first call": {}, "comparisons": comparisons}


def row(table, begin):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {begin}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_worst_layer_must_reach_both_bars(runtime):
    key, kind = runtime["key"], "1×1, batch 1"
    found = {
        key(kind, name, 0.1): compared(1.0, torch=fp32, torch_bf16=bf16)
        for name, fp32, bf16 in (("64@56", 2.6, 1.9), ("256@14", 3.5, 1.6), ("512@7", 2.9, 1.5))
    }
    assert row(runtime["bars"](results(found)), kind)[1:] == ["2.60×", "1.50×", "–", "2.6× / 1.5×", "reached", "–"]
    found[key(kind, "512@7", 0.1)] = compared(1.0, torch=2.9, torch_bf16=1.49)
    assert row(runtime["bars"](results(found)), kind)[1:] == ["2.60×", "1.49×", "–", "2.6× / 1.5×", "**missed**", "–"]
    with_amx = runtime["bars"](results(found, ["amx-bf16"]))
    assert row(with_amx, kind)[1:] == ["2.60×", "1.49×", "–", "2.6×", "reached", "–"]
    del found[key(kind, "256@14", 0.1)]
    assert row(runtime["bars"](results(found)), kind)[-2] == "not measured"


def test_csr_has_a_column_of_its_own(runtime):
    found = {runtime["key"]("matrix-vector", "1024→1024", 0.1): compared(1.0, torch=2.5, torch_bf16=1.6, torch_csr=1.2)}
    table = runtime["bars"](results(found))
    assert row(table, "matrix-vector: 1024")[1:] == ["2.50×", "1.60×", "1.20×", "2.5× / 1.5×", "reached", "–"]


def test_weights_in_bfloat16_are_compared_with_the_fastest_of_all(runtime):
    found = {runtime["key"]("matrix-vector", "1024→1024", 0.1): compared(1.0, torch=2.5, torch_bf16=1.6)}
    (one,) = found.values()
    one["rows"].append({"name": "sparsight, bf16 weights", "seconds": 0.8 * one["rows"][0]["seconds"]})
    assert row(runtime["bars"](results(found)), "matrix-vector: 1024")[-1] == "2.00×"


def test_networks_are_compared_with_one_rival(runtime):
    name = "ResNet-18, 90 % zeros"
    found = {runtime["at"](name, 2): compared(0.004, torch=0.02, openvino_bf16=0.008, openvino=0.016)}
    cells = row(runtime["networks"](results(found)), "ResNet-18, 90")
    assert cells[1:] == ["4.00", "20.00", "–", "–", "16.00", "8.00", "2.00×", "1.8×", "reached", "–"]
    found = {runtime["at"](name, 1): compared(0.004, openvino_bf16=0.01)}
    assert row(runtime["networks"](results(found)), "ResNet-18, 90")[-3:] == ["1.8×", "not measured", "2.50×"]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({0.6: 1.1, 0.1: 5.0}, "< 40 %"),
        ({0.5: 0.5, 0.3: 2.0}, "60 %"),  # half way, in logarithms
        ({0.5: 1.5, 0.3: 0.5, 0.1: 2.0}, "80 %"),  # what comes before the last loss does not count
        ({0.5: 0.5, 0.1: 0.9}, "never here"),
        ({}, "–"),
    ],
)
def test_where_it_begins_to_pay(runtime, ratios, said):
    assert runtime["even"](ratios) == said


def test_marked_tables_are_made_anew(runtime):
    page = "a\n<!-- runtime: about -->\nold\n<!-- end -->\nb\n"
    told = runtime["documented"](page, results({}))
    assert told == "a\n<!-- runtime: about -->\n\nMeasured on 2 cores of P, Python 3, torch 2.\n\n<!-- end -->\nb\n"
    assert runtime["documented"](told, results({})) == told


def test_the_page_shows_the_results(runtime):
    path = BENCHMARKS / "results" / "runtime.json"
    if not path.exists():
        pytest.skip("no results")
    page = runtime["PAGE"].read_text()
    assert runtime["documented"](page, json.loads(path.read_text())) == page


def test_results_are_gone_on_with_only_where_they_were_made(runtime, tmp_path):
    path = tmp_path / "out.json"
    fresh = runtime["opened"](path, 3)
    fresh["comparisons"]["a"] = {}
    path.write_text(json.dumps(fresh))
    assert runtime["opened"](path, 3) == fresh
    with pytest.raises(SystemExit, match="is of another round"):
        runtime["opened"](path, 4)
    path.write_text(json.dumps({**fresh, "machine": {}}))
    with pytest.raises(SystemExit, match="is of another machine"):
        runtime["opened"](path, 3)


def test_every_bar_names_layers_there_are(runtime):
    names = [name for name, *_ in runtime["todo"](1)]
    assert len(set(names)) == len(names)
    layers = runtime["layers"]()
    for bar in runtime["BARS"]:
        assert {runtime["key"](bar.kind, name, 0.1) for name in bar.layers or layers[bar.kind]} <= set(names)


@pytest.mark.parametrize(
    ("words", "said"), [(["--rounds", "0"], "--rounds must be at least 1, got 0"), (["--docs"], "--docs needs --json")]
)
def test_runtime_refuses(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["runtime.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / "runtime.py"), run_name="__main__")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
