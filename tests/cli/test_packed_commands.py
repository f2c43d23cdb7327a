"""`sparsight pack` and `sparsight unpack`, and packed files at the doors of other commands."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsight import execute, load
from sparsight.cli import main
from sparsight.recipes import oneshot

FILES = ("chosen.safetensors", "dense.safetensors")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    g = torch.Generator().manual_seed(0)
    kept = torch.rand(200, 300, generator=g) < 0.1
    state = {"a.weight": torch.randn(200, 300, generator=g) * kept, "steps": torch.tensor(3)}
    save_file(state, "a.safetensors")
    return state


def test_pack_and_unpack(here, capsys):
    assert main(["pack", "a.safetensors", "-o", "p.safetensors"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("p.safetensors: 2 tensors, 240.0 kB dense, ")
    assert "× smaller)" in said
    assert main(["unpack", "p.safetensors", "--out", "b.safetensors"]) == 0
    assert capsys.readouterr().out == "written: b.safetensors\n"
    found = load_file("b.safetensors")
    assert found.keys() == here.keys()
    assert all(found[name].numpy().tobytes() == here[name].numpy().tobytes() for name in here)


def test_show_lists_the_tensors_of_a_packed_file(here, capsys):
    assert main(["pack", "a.safetensors", "-o", "p.safetensors"]) == 0
    capsys.readouterr()
    assert main(["show", "p.safetensors"]) == 0
    *tensors, last = capsys.readouterr().out.splitlines()
    steps, weight = sorted(tensors, reverse=True)
    assert weight.startswith("a.weight: float32, 200 × 300, 240.0 kB in ")
    assert steps == "steps: int64, scalar, 8 bytes in 8 bytes"
    assert last.startswith("2 tensors, 240.0 kB in ")
    assert main(["show", "a.safetensors"]) == 2
    assert "neither a run folder nor a packed file" in capsys.readouterr().err
    assert main(["show", "p.safetensors", "--json"]) == 2


def test_names_end_no_line_and_a_file_that_grows_is_no_smaller(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_file({"a\nb\x1b.weight": torch.ones(2, 3)}, "a.safetensors")
    assert main(["pack", "a.safetensors", "-o", "p.safetensors"]) == 0
    assert capsys.readouterr().out.endswith(" packed (no smaller)\n")
    assert main(["show", "p.safetensors"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("a\\u000ab\\u001b.weight: float32, 2 × 3, 24 bytes in ")
    assert last.endswith(" (no smaller)")


def test_lossy_is_an_option(here):
    assert main(["pack", "a.safetensors", "-o", "p.safetensors", "--lossy", "bfloat16"]) == 0
    assert torch.equal(load("p.safetensors")["a.weight"], here["a.weight"].bfloat16())


def test_what_stands_beside_the_network_is_told(here, capsys):
    torch.save({"state_dict": here, "optimizer": {"state": {0: {"m": torch.ones(3)}}, "param_groups": []}}, "a.pt")
    assert main(["pack", "a.pt", "-o", "p.safetensors"]) == 0
    assert "\nNot packed, not part of the network: optimizer.state.0.m\n" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "code", "said"), [
    (["pack", "nothing", "-o", "p"], 4, "nothing does not exist"),
    (["unpack", "nothing", "-o", "p"], 4, "nothing does not exist"),
    (["unpack", "a.safetensors", "-o", "p"], 3, "not a packed file but a safetensors file"),
    (["pack", "a.safetensors", "-o", "."], 1, "it is a folder"),
    (["pack", "a.safetensors", "-o", "no/p"], 2, "the folder no does not exist"),
    (["pack", "a.safetensors", "-o", "-"], 2, "expected the name of a file"),
    (["unpack", "a.safetensors", "-o", "no/p"], 2, "the folder no does not exist"),
    (["pack", "a.safetensors"], 2, "missing -o OUT"),
])  # fmt: skip
def test_what_cannot_be_is_refused(here, capsys, words, code, said):
    assert main(words) == code
    assert said in capsys.readouterr().err
    assert not (here.keys() - {"a.weight", "steps"})


def test_analyze_and_weights_read_packed_files(here, capsys):
    assert main(["pack", "a.safetensors", "-o", "p.safetensors"]) == 0
    capsys.readouterr()
    outputs = []
    for name in ("a", "p"):
        assert main(["analyze", f"{name}.safetensors", "--csv", "-"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_a_damaged_packed_file_is_damage_at_every_door(here, capsys):
    assert main(["pack", "a.safetensors", "-o", "p.safetensors"]) == 0
    with open("p.safetensors", "r+b") as file:
        file.seek(-200, 2)
        file.write(b"\x55\xaa")
    on = ["run", "lottery", "--data", "digits", "--model", "linear", "--out", "out", "--weights", "p.safetensors"]
    for words in (["analyze", "p.safetensors"], ["unpack", "p.safetensors", "-o", "b.safetensors"]):
        assert main(words) == 3
        assert "p.safetensors" in capsys.readouterr().err
    assert main(on) in (1, 2, 3)


def test_a_level_of_a_run(here, capsys):
    execute(oneshot(target_density=0.2, epochs=1, control=False), model="linear", data="digits", out="run")
    assert main(["pack", "run", "-o", "chosen.safetensors"]) == 0
    assert main(["pack", "run", "-o", "dense.safetensors", "--level", "0"]) == 0
    zeros = [int((next(t for n, t in load(f).items() if "weight" in n) == 0).sum()) for f in FILES]
    assert zeros[0] == 512 > zeros[1]
    capsys.readouterr()
    assert main(["ledger", "run", "--level", "0"]) == 0
    assert "This is level 0, which is not pruned: none of the prunable weights is zero" in _words(capsys)
    assert main(["ledger", "run"]) == 0
    assert "80.0 % of the prunable weights are zero" in _words(capsys)
    assert main(["pack", "run", "-o", "x", "--level", "70"]) == 2
    assert "run has no level 70: expected one of 0, " in capsys.readouterr().err
    assert main(["pack", "a.safetensors", "-o", "x", "--level", "0"]) == 2
    assert "--level is for runs" in capsys.readouterr().err


def _words(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())
