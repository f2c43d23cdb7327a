"""The independent re-computation of a run agrees with what the package wrote, and sees one number that is altered."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sparsight.recipes.lottery import lottery
from sparsight.recipes.oneshot import oneshot
from sparsight.recipes.sap import sap
from sparsight.runs.execute import execute
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

SCRIPT = Path(__file__).parents[2] / "studies" / "pq_index" / "recompute.py"
SHORT = {"epochs": 1, "batch_size": 100, "levels": 3, "target_density": 0.3}
LEVEL = "levels/002"


def script():
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(path: Path, recipe) -> Path:
    net = mlp(input_shape=(1, 8, 8), classes=10, seed=0)
    execute(recipe, model=net, data=digits(), out=path, device="cpu")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A SAP run with its control. Tests only read it."""
    return make(tmp_path_factory.mktemp("recompute") / "run", sap(**SHORT))


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_it_is_independent():
    tree = ast.parse(SCRIPT.read_text())
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not {name.partition(".")[0] for name in names} & {"sparsight", "torch"}


def test_a_run_is_as_recorded(finished, capsys):
    assert script().main([str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6, "four levels, the control, and the sum of it"
    assert all("masks computed again" in line for line in lines[1:4])
    assert lines[-1] == "everything as recorded"


@pytest.mark.parametrize(
    "recipe",
    [
        sap(p=0.3, q=1.7, scope="layer", gamma=3.0, min_keep=5, **SHORT),
        sap(p=0.5, q=1.0, scope="neuron", eta=0.1, gamma=5.0, **{**SHORT, "target_density": 0.15}),
        sap(gamma=9.0, **{**SHORT, "target_density": 0.004}),
        lottery(rate=0.7, scope="neuron", min_keep=3, **{**SHORT, "target_density": 0.01}),
        oneshot(rate=0.5, scope="layer", **SHORT),
        lottery(rate=0.1, scope="neuron", **SHORT),
    ],
    ids=["sap-layer", "sap-neuron", "sap-global-floor", "lottery-neuron", "oneshot-layer", "lottery-exactly"],
)
def test_other_scopes_floors_and_recipes(recipe, tmp_path, capsys):
    path = make(tmp_path / "run", recipe)
    assert script().main([str(path)]) == 0, capsys.readouterr().out
    assert "NOT" not in capsys.readouterr().out


# -- what is altered is seen -----------------------------------------------------------------------------------


def bits(path: Path) -> dict[str, np.ndarray]:
    return load_file(path / LEVEL / "masks.safetensors")


def flip(packed: np.ndarray, place: int) -> None:
    packed[place // 8] ^= np.uint8(128 >> place % 8)


def one_bit(path: Path) -> None:
    packed = bits(path)
    flip(packed["fc2.weight"], 77)
    save_file(packed, path / LEVEL / "masks.safetensors")


def another_weight_with_the_same_counts(path: Path) -> None:
    """A kept and a pruned weight change places, in the mask and in the weights: only the ranking tells."""
    packed, weights = bits(path), load_file(path / LEVEL / "model.safetensors")
    on = np.unpackbits(packed["fc2.weight"]).astype(bool)
    kept, pruned = int(np.flatnonzero(on)[5]), int(np.flatnonzero(~on)[5])
    for place in (kept, pruned):
        flip(packed["fc2.weight"], place)
    flat = weights["fc2.weight"].reshape(-1)
    flat[pruned], flat[kept] = flat[kept], 0.0
    save_file(packed, path / LEVEL / "masks.safetensors")
    save_file(weights, path / LEVEL / "model.safetensors")


def a_pruned_weight_is_minus_zero(path: Path) -> None:
    weights = load_file(path / LEVEL / "model.safetensors")
    on = np.unpackbits(bits(path)["fc2.weight"]).astype(bool)
    weights["fc2.weight"].reshape(-1)[int(np.flatnonzero(~on)[0])] = -0.0
    save_file(weights, path / LEVEL / "model.safetensors")


def in_record(change: Callable[[dict], None], line: int = 2) -> Callable[[Path], None]:
    def alter(path: Path) -> None:
        lines = (path / "levels.jsonl").read_text().splitlines()
        record = json.loads(lines[line])
        before = json.dumps(record)
        change(record)
        assert json.dumps(record) != before
        lines[line] = json.dumps(record)
        (path / "levels.jsonl").write_text("\n".join(lines) + "\n")

    return alter


def off_by(key: str, by: float) -> Callable[[dict], None]:
    def change(record: dict) -> None:
        record[key] += by

    return change


ALTERED = {
    "one bit of a mask": (one_bit, "mask of fc2.weight: 1 of"),
    "another weight pruned": (another_weight_with_the_same_counts, "mask of fc2.weight: 2 of"),
    "minus zero": (a_pruned_weight_is_minus_zero, "fc2.weight: a pruned weight is not +0.0"),
    "kept": (in_record(off_by("kept", 1)), "kept: "),
    "total of the control": (in_record(off_by("total", 1), 4), "total: "),
    "kept of a layer": (in_record(lambda r: r["layers"][1].update(kept=r["layers"][1]["kept"] - 1)), "kept of fc2"),
    "index of all": (in_record(lambda r: r["pq"].__setitem__(0, r["pq"][0] + 1e-9)), "PQ index (1, 2) of all weights"),
    "index of a layer": (
        in_record(lambda r: r["layers"][2]["pq"].__setitem__(1, r["layers"][2]["pq"][1] * 1.0001)),
        "PQ index (0.5, 1) of fc3.weight",
    ),
    "index of the dense level": (in_record(lambda r: r["pq"].reverse(), 0), "PQ index (1, 2) of all weights"),
    "index that decided": (in_record(lambda r: r["groups"][0].update(index=r["groups"][0]["index"] + 1e-9)), "index "),
    "bound": (in_record(lambda r: r["groups"][0].update(r=r["groups"][0]["r"] + 1e-3)), "r of global"),
    "count removed": (in_record(lambda r: r["groups"][0].update(c=r["groups"][0]["c"] + 1)), "c of global"),
    "collapsed": (in_record(lambda r: r["collapsed"].append("fc1.weight")), "collapsed: "),
    "gamma": (in_record(lambda r: r["operation"]["rounds"][0].update(gamma=1.001)), "c of global"),
    "parent": (in_record(lambda r: r.update(parent="0" * 64)), "parent: "),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_what_is_altered_is_seen(what, copy, capsys):
    alter, said = ALTERED[what]
    alter(copy)
    assert script().main([str(copy)]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert "differ from their records" in out


def test_weights_that_were_not_kept(copy, capsys):
    (copy / LEVEL / "model.safetensors").unlink()
    assert script().main([str(copy)]) == 2
    assert "--keep all" in capsys.readouterr().err
