"""The SiPP study: its plan, its rows on the disk, its arithmetic on rows made by hand, and cells of a real network."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from scipy import stats
from study_files import study_modules

parts = study_modules("sipp", "cells", "results", "study", "tables")


def row(method: str, density: float, seed: int = 0, **values: Any) -> dict[str, Any]:
    made = {"data": "d", "network": "n", "start": "trained", "order": "one-shot", "method": method, "density": density}
    sizes = {"seed": seed, "kept": int(1000 * density), "total": 1000, "keep_ratio": density, "flops": density}
    return {**made, **sizes, **values}


# -- the plan and the disk -------------------------------------------------------------------------------------


def test_the_plan_has_every_cell_once_and_seed_0_first(parts):
    work = parts.study.plan({"fashion": "fashion-mnist", "lenet5": "mnist"})
    keys = [c.key(data, parts.study.BLOCKS[name].network, seed) for name, seed, data, todo in work for c in todo]
    assert len(set(keys)) == len(keys) == 3 * (3 * 6 * 8 + 2) + 3 * (3 * 7 * 5 + 2)
    assert [seed for _, seed, *_ in work] == [0, 0, 1, 1, 2, 2]
    assert len(parts.study.DENSITIES) == 8
    assert len(parts.study.FEW) == 5


def test_a_block_without_its_data_is_skipped(parts, monkeypatch, capsys):
    monkeypatch.setattr(parts.study.cells, "has", lambda data: data == "fashion-mnist")
    assert parts.study.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert "mnist is skipped: mnist is not on this machine" in said
    assert "fashion-mnist/lenet5/trained/cascade/SiPP hybrid/0.02/2" in said
    assert "\nmnist/" not in said.replace("\t", "\n")


def test_a_line_that_a_kill_cut_short_is_done_again(parts, tmp_path):
    path = tmp_path / "rows.jsonl"
    parts.cells.append(path, {"key": "a", "x": 1})
    with open(path, "a") as file:
        file.write('{"key": "b", "x"')
    assert list(parts.cells.finished(path)) == ["a"]
    parts.cells.append(path, {"key": "b", "x": 2})
    assert {k: r["x"] for k, r in parts.cells.finished(path).items()} == {"a": 1, "b": 2}


# -- arithmetic ------------------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed(parts):
    rows = [row("SiPP det", 0.1, s, pruned_test=v) for s, v in enumerate((0.8, 0.9, 0.71))]
    rows += [row("magnitude", 0.1, s, pruned_test=v) for s, v in enumerate((0.79, 0.88, 0.68))]
    rows.append(row("magnitude", 0.1, 3, pruned_test=0.1))  # without a partner
    by = {r["what"]: r for r in parts.tables.accuracy(rows) if (r["when"], r["split"]) == ("pruned", "test")}
    found = by["SiPP det - magnitude"]
    assert (found["n"], found["mean"]) == (3, pytest.approx(2.0))
    assert found["half_width"] == pytest.approx(stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3))
    assert by["magnitude"]["n"] == 4
    assert "magnitude - magnitude" not in by
    assert parts.tables.told(None) == {"n": 0, "mean": None, "half_width": None}


def test_potential_is_of_the_smallest_network_that_is_good_enough(parts):
    whole = row("dense", 1.0, pruned_test=0.9, retrained_test=0.95, fresh_test=0.5)
    pruned = {0.5: 0.91, 0.2: 0.895, 0.1: 0.8949, 0.05: 0.897, 0.01: 0.2}  # 0.05 recovers, and counts
    rows = [whole, *(row("magnitude", d, pruned_test=v, fresh_test=0.4) for d, v in pruned.items())]
    rows += [row("random", d, pruned_test=0.1) for d in pruned]
    by = {(r["when"], r["quantity"], r["what"]): r["mean"] for r in parts.tables.potential(rows)}
    assert by["pruned", "size", "magnitude"] == pytest.approx(95.0)
    assert by["pruned", "size", "random"] == 0.0
    assert by["pruned", "size", "random - magnitude"] == pytest.approx(-95.0)
    assert by["fresh", "flops", "magnitude"] == 0.0  # 0.4 against the fresh dense network's 0.5
    assert ("retrained", "size", "magnitude") not in by
    still = [{**r, "pruned_test": None, "retrained_test": r.get("pruned_test", 0)} for r in rows]
    still[0] = whole
    again = {(r["when"], r["what"]): r["mean"] for r in parts.tables.potential(still) if r["quantity"] == "size"}
    assert again["retrained", "magnitude"] == pytest.approx(95.0)  # against 0.9 of the network that was pruned


def test_a_cascade_is_judged_by_the_same_unpruned_network(parts):
    rows = [row("dense", 1.0, pruned_test=0.9), row("SNIP", 0.3, retrained_test=0.9, order="cascade")]
    found = [r for r in parts.tables.potential(rows) if r["order"] == "cascade"]
    assert [r["mean"] for r in found] == [pytest.approx(70.0)] * 2


# -- real cells ------------------------------------------------------------------------------------------------


def test_cells_of_a_real_network_and_their_tables(parts, tmp_path, capsys):
    at = parts.cells.Setting("digits", "lenet-300-100", 0, 300, 100, 50, 1, 1)
    wanted = [c for c in parts.cells.grid((0.5, 0.1)) if c.method in ("SiPP rand", "magnitude", "dense")]
    path = tmp_path / "rows-fashion.jsonl"
    for made in parts.cells.run(at, wanted, {}):
        parts.cells.append(path, made)
    rows = parts.cells.finished(path)
    assert len(rows) == len(wanted) == 14
    for cell in wanted:
        found = rows[cell.key("digits", "lenet-300-100", 0)]
        share = found["kept"] / found["total"]
        spread = 820 if cell.method == "SiPP rand" else 0  # less than one weight a group, in expectation
        assert abs(found["kept"] - cell.density * found["total"]) <= spread, cell
        assert ("fresh_test" in found) == (cell.order == "one-shot")
        assert found["flops"] == pytest.approx(share)  # linear layers: every weight is used once
        assert found["reweighted"] == (cell.method == "SiPP rand")
    whole = rows["digits/lenet-300-100/trained/one-shot/dense/1/0"]
    assert whole["retrained_test"] > 0.5
    assert whole["keep_ratio"] == 1.0

    lost = {k: r for k, r in rows.items() if not k.endswith("cascade/SiPP rand/0.1/0")}
    again = list(parts.cells.run(at, wanted, lost))  # the chain is gone through again, the row is the same
    assert [r["key"] for r in again] == ["digits/lenet-300-100/trained/cascade/SiPP rand/0.1/0"]
    assert {**again[0], "seconds": 0} == {**rows[again[0]["key"]], "seconds": 0}
    assert list(parts.cells.run(at, wanted, rows)) == []

    assert parts.results.main([str(tmp_path), "--into", str(tmp_path / "r"), "--no-picture"]) == 0
    assert "14 cells" in capsys.readouterr().out
    stored = parts.results.read(tmp_path / "r" / "rows.csv")
    assert json.loads(json.dumps(stored[0]["kept"])) == next(iter(rows.values()))["kept"]
    text = (tmp_path / "r" / "summary.md").read_text()
    assert "## lenet-300-100 on digits, random network, one-shot, fresh" in text
    assert "| magnitude |" in text
