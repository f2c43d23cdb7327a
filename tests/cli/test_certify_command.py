"""`sparsight certify`: what it says of a run and of a checkpoint, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsight import RunFolder, SiPP, certify, execute
from sparsight.checkpoint import load_tensors, open_checkpoint
from sparsight.cli.entry import main
from sparsight.model.masks import counts, dense
from sparsight.numerics.format import percent
from sparsight.numerics.seeds import derive
from sparsight.pruning.restart import carry_on
from sparsight.pruning.sipp.allocate import SiPPDet
from sparsight.recipes import lottery, oneshot, sbp, sipp, snip
from sparsight.records.rows import stored_rows
from sparsight.train.batches import batches
from sparsight.types import Allocation
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

SHORT = {"epochs": 1, "batch_size": 200, "control": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pruned levels: a cascade by SiPP, each trained again."""
    out = tmp_path_factory.mktemp("certify") / "run"
    execute(sipp(levels=2, first_density=0.9, target_density=0.5, **SHORT), data="digits", out=out)
    return out


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """(pruned, unpruned): checkpoints of an mlp of the zoo on digits."""
    model = mlp((1, 8, 8), 10, seed=3)
    data = digits()
    whole = tmp_path / "whole.pt"
    torch.save({"model": model.state_dict(), "optimizer": {"state": {}}}, whole)
    masks = SiPPDet(0.9)(SiPP()(model, dense(model), [(data.train.x[:200], data.train.y[:200])]), dense(model))  # type: ignore[union-attr]
    carry_on(model, {}, Allocation(masks))
    save_file(model.state_dict(), tmp_path / "pruned.safetensors")
    return tmp_path / "pruned.safetensors", whole


def stored_density(run: Path, level: int, name: str) -> float:
    """The share of a layer's weights that a level of a run keeps."""
    with RunFolder.open(run) as folder:
        return next(x.density for x in folder.levels()[level].layers if x.name == name)


NAMES = ["--model", "mlp", "--data", "digits"]


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["certify", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    assert main(["certify", *map(str, words)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


class TestRun:
    def test_as_pruned_it_is_what_certify_says_of_the_parent(self, run, capsys):
        found = json.loads(told(capsys, run, "--level", 2, "--as-pruned", "--json"))
        with RunFolder.open(run) as folder:
            levels = folder.levels()
            before, masks = folder.weights(levels[1]), folder.masks(levels[2])
        model, data = mlp((1, 8, 8), 10, seed=0), digits()
        model.load_state_dict(before)
        points = torch.Generator().manual_seed(derive(0, "score"))
        drawn = next(batches(data.train, 250, generator=points))
        scores = SiPP()(model, dense(model), [drawn])
        expected = certify(model, masks, scores, [(data.validation.x, data.validation.y)])  # type: ignore[union-attr]
        assert (found["unpruned"], found["data"], found["as_pruned"]) == ("level 1", "digits", True)
        got = found["certificate"]
        assert got["says"] == list(expected.says)
        assert got["density"] == expected.density == 0.5
        assert got["points"] == scores.points == 152
        for layer, wanted in zip(got["layers"], expected.layers, strict=True):
            assert layer["bound"] == pytest.approx(wanted.bound, rel=1e-6)
            assert layer["measured"] == pytest.approx(wanted.measured, rel=1e-5)
            assert (layer["says"], layer["kept"]) == (wanted.says, wanted.kept)
            assert [n["kept"] for n in layer["neurons"]] == [n.kept for n in wanted.neurons]
        assert got["network"]["inputs"] == 300
        assert any("before its training" in note for note in found["notes"])

    def test_a_retrained_level_is_refused_with_the_reason(self, run, capsys):
        said = refused(capsys, 1, run)
        assert "cannot certify level" in said
        assert "it was trained or reweighted after pruning" in said
        assert "--as-pruned" in said

    def test_a_level_that_was_not_trained_is_certified(self, tmp_path, capsys):
        """With a learning rate of 0 the stored weights are the parent's, and nothing has to be taken on trust."""
        out = tmp_path / "still"
        execute(sipp(levels=1, target_density=0.5, lr=0.0, **SHORT), data="digits", out=out)
        stored = json.loads(told(capsys, out, "--level", 1, "--json"))
        pruned = json.loads(told(capsys, out, "--level", 1, "--as-pruned", "--json"))
        assert stored["notes"] == []
        assert stored["certificate"] == pruned["certificate"]

    def test_stored_it_is_evidence_of_the_verdict(self, run, tmp_path, capsys):
        """Once for each level, beside what else was measured, with the report made anew."""
        out = tmp_path / "stored"
        shutil.copytree(run, out)
        for held_out in (20, 30):
            found = json.loads(
                told(capsys, out, "--level", 1, "--as-pruned", "--store", "--json", "--held-out", held_out)
            )["certificate"]
        with RunFolder.open(out) as folder:
            level, rows = folder.levels()[1], stored_rows(folder)
        assert [(row.metric, row.id, row.group, row.n) for row in rows] == [
            ("certified", level.id, "as pruned", 30), ("certificate_delta", level.id, "as pruned", 30)
        ]  # fmt: skip
        assert [row.value for row in rows] == [found["network"]["within"] / 30, found["delta"]]
        assert (out / "report.html").exists()
        assert "for runs" in refused(capsys, 2, tmp_path / "none.safetensors", "--store")

    def test_the_table(self, run, capsys):
        text = told(capsys, run, "--level", 1, "--as-pruned", "--held-out", 50)
        assert "a pruning of level 0, on digits" in text
        assert "fc1.weight" in text
        assert "vacuous" in text
        assert "50 held-out inputs" in text
        assert "All bounds hold together, except with probability at most" in text
        assert "probability at least 1 " not in text
        *_, above = (line for line in text.splitlines() if line.endswith("  layer"))
        (row,) = (line for line in text.splitlines() if line.endswith("  fc2.weight"))
        assert max(len(above), len(row)) <= 80
        assert row.split()[:2] == percent(stored_density(run, 1, "fc2.weight")).split()

    def test_densities_are_of_the_whole_network_at_every_level(self, run, capsys):
        """Level 2 prunes level 1, whose zeros count as pruned: the densities are those of `sparsight show`."""
        for level, density in ((1, "90 %"), (2, "50 %")):
            text = told(capsys, run, "--level", level, "--as-pruned")
            assert f"{density} of the network's prunable weights are kept." in text
            for name in ("fc1.weight", "fc2.weight"):
                rows = [line for line in text.splitlines() if line.endswith(f"  {name}")]
                assert rows
                assert rows[0].split("%")[0].split() == percent(stored_density(run, level, name)).split("%")[0].split()

    def test_what_certifies_nothing_is_short(self, pair, tmp_path, capsys):
        """One weight of ten is kept of every neuron: no bound is below 1."""
        _, whole = pair
        tensors = load_tensors(open_checkpoint(whole))
        every = {k: torch.arange(v.shape[-1]) % 10 == 0 for k, v in tensors.items() if v.dim() > 1}
        pruned = {k: torch.where(every[k], v, 0) if k in every else v for k, v in tensors.items()}
        save_file(pruned, tmp_path / "tenth.safetensors")
        text = told(capsys, tmp_path / "tenth.safetensors", "--dense", whole, *NAMES)
        assert len(text.splitlines()) <= 6
        assert "Nothing is certified: no pruned neuron or output has a bound below 1" in text
        assert "Measured on 300 held-out inputs: the largest relative error of an output is" in text
        found = json.loads(told(capsys, tmp_path / "tenth.safetensors", "--dense", whole, *NAMES, "--json"))
        assert all(n["bound"] >= 1 for layer in found["certificate"]["layers"] for n in layer["neurons"])

    @pytest.mark.parametrize(
        ("recipe", "level", "unpruned"),
        [
            (oneshot(levels=2, rate=0.5, **SHORT), 2, "level 0"),
            (lottery(levels=2, rate=0.5, **SHORT), 2, "level 1"),
            (snip(density=0.3, epochs=1, batch_size=200), 0, "the initial weights"),
            (sipp(variant="rand", order="oneshot", levels=1, target_density=0.3, **SHORT), 1, "level 0"),
        ],
        ids=["oneshot", "lottery", "snip", "rand"],
    )
    def test_the_weights_before_pruning_are_those_that_were_scored(self, recipe, level, unpruned, tmp_path, capsys):
        execute(recipe, data="digits", out=tmp_path / "run")
        words = (tmp_path / "run", "--level", level, "--as-pruned", "--json", "--held-out", 20)
        found = json.loads(told(capsys, *words))
        assert found["unpruned"] == unpruned
        with RunFolder.open(tmp_path / "run") as folder:
            kept, total = counts(folder.masks(folder.levels()[level]))
        assert found["certificate"]["density"] == kept / total
        assert any("reweighted" in note for note in found["notes"]) == (recipe.name == "sipp")

    def test_what_the_folder_does_not_hold_is_refused(self, tmp_path, capsys):
        execute(sipp(levels=1, propagate=True, target_density=0.3, **SHORT), data="digits", out=tmp_path / "silent")
        said = refused(capsys, 1, tmp_path / "silent", "--level", 1, "--as-pruned")
        assert "(propagate) also set biases and norms to 0" in said
        execute(sbp(density=0.3, **SHORT), data="digits", out=tmp_path / "critical")
        for words in ((), ("--as-pruned",)):
            said = refused(capsys, 1, tmp_path / "critical", "--level", 0, *words)
            assert "it pruned freshly drawn weights" in said

    def test_wrong_levels(self, run, capsys):
        assert f"{run} has no level 7: its pruned levels are 1, 2" in refused(capsys, 2, run, "--level", 7)
        assert "level 0 of" in (said := refused(capsys, 2, run, "--level", 0))
        assert "is not pruned" in said

    def test_what_is_for_checkpoints_alone(self, run, pair, capsys):
        assert "holds its unpruned weights" in refused(capsys, 2, run, "--dense", pair[1])

    def test_weights_that_were_not_kept(self, tmp_path, capsys):
        out = tmp_path / "small"
        execute(oneshot(levels=2, rate=0.3, within=100.0, **SHORT), data="digits", out=out, keep="chosen")
        assert "were not kept" in refused(capsys, 4, out, "--as-pruned")

    def test_a_network_made_in_python_must_be_named(self, tmp_path, capsys):
        out = tmp_path / "own"
        execute(oneshot(levels=1, rate=0.3, **SHORT), model=mlp((1, 8, 8), 10, seed=0), data=digits(), out=out)
        assert "was built in Python: give --model" in refused(capsys, 2, out, "--as-pruned", "--level", 1)
        assert "a pruning of level 0" in told(capsys, out, "--as-pruned", "--level", 1, "--model", "mlp")

    def test_a_damaged_run(self, run, tmp_path, capsys):
        copy = shutil.copytree(run, tmp_path / "copy")
        (copy / "levels" / "001" / "model.safetensors").write_bytes(b"nonsense")
        assert "is damaged" in refused(capsys, 3, copy, "--level", 2, "--as-pruned")


class TestCheckpoint:
    def test_it_is_what_certify_says(self, pair, capsys):
        pruned, whole = pair
        found = json.loads(told(capsys, pruned, "--dense", whole, *NAMES, "--json", "--bound", "reference"))
        assert (found["source"], found["unpruned"], found["notes"]) == (str(pruned), str(whole), [])
        stored = load_file(pruned)
        kept = sum(int((stored[f"fc{i}.weight"] != 0).sum()) for i in (1, 2, 3))
        assert found["certificate"]["density"] == kept / (64 * 128 + 128 * 256 + 256 * 10)
        assert found["certificate"]["bound"] == "reference"
        assert found["certificate"]["delta"] == found["certificate"]["delta_points"]
        outside = sum(layer["violations"] for layer in found["certificate"]["layers"])
        said = f"{outside} measured values exceeded their bound"
        assert (outside > 0) == any(line.startswith(said) for line in found["certificate"]["says"])

    def test_retrained_weights_are_refused(self, pair, capsys):
        pruned, whole = pair
        tensors = load_file(pruned)
        tensors["fc2.bias"] += 1e-3
        save_file(tensors, pruned)
        said = refused(capsys, 1, pruned, "--dense", whole, *NAMES)
        assert "no bound covers this network: 256 of 256 values of 'fc2.bias'" in said

    def test_unpruned_weights_are_needed(self, pair, capsys):
        said = refused(capsys, 2, pair[0], *NAMES)
        assert "is a checkpoint, which needs --dense, --model and --data" in said
        assert "missing --dense" in said
        assert "missing --dense, --model, --data" in refused(capsys, 2, pair[0])

    def test_files_that_are_not_there(self, pair, tmp_path, capsys):
        assert "does not exist" in refused(capsys, 4, tmp_path / "missing.pt", "--dense", pair[1], *NAMES)
        assert "does not exist" in refused(capsys, 4, pair[0], "--dense", tmp_path / "missing.pt", *NAMES)

    def test_files_that_are_no_checkpoints(self, pair, tmp_path, capsys):
        (tmp_path / "text.safetensors").write_text("nonsense")
        assert "text.safetensors" in refused(capsys, 3, tmp_path / "text.safetensors", "--dense", pair[1], *NAMES)

    def test_unknown_names(self, pair, capsys):
        pruned, whole = pair
        said = refused(capsys, 4, pruned, "--dense", whole, "--model", "mpl", "--data", "digits")
        assert "unknown model 'mpl'; did you mean 'mlp'?" in said
        said = refused(capsys, 4, pruned, "--dense", whole, "--model", "mlp", "--data", "digit")
        assert "unknown data 'digit'; did you mean 'digits'?" in said
        said = refused(capsys, 4, pruned, "--dense", whole, "--model", "no_such:build", "--data", "digits")
        assert "no module 'no_such'" in said

    def test_weights_of_another_network(self, pair, capsys):
        pruned, whole = pair
        said = refused(capsys, 2, pruned, "--dense", whole, "--model", "lenet-300-100", "--data", "digits")
        assert "'fc1.weight' must have shape (300, 64), got (128, 64)" in said
        said = refused(capsys, 2, pruned, "--dense", whole, "--model", "linear", "--data", "digits")
        assert "does not fit linear" in said
        said = refused(capsys, 2, pruned, "--dense", whole, "--model", "resnet8", "--data", "digits")
        assert "but not 'conv.weight'" in said

    def test_tensors_that_the_network_lacks(self, pair, capsys):
        tensors = load_file(pair[0])
        save_file({**tensors, "fc4.weight": torch.zeros(2)}, pair[0])
        said = refused(capsys, 2, pair[0], "--dense", pair[1], *NAMES)
        assert "which has no fc4.weight" in said

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--level", "1"], "--level, --as-pruned and --store are for runs"),
            (["--as-pruned"], "--level, --as-pruned and --store are for runs"),
            (["--delta", "0"], "--delta must be greater than 0 and less than 1, got 0"),
            (["--delta", "1"], "--delta must be greater than 0 and less than 1, got 1"),
            (["--constant", "nan"], "--constant must be a number, got nan"),
            (["--constant", "0.9"], "--constant must be finite and at least 1, got 0.9"),
            (["--points", "0"], "--points must be at least 1, got 0"),
            (["--held-out", "0"], "--held-out must be at least 1, got 0"),
            (["--helt-out", "3"], "did you mean '--held-out'"),
        ],
    )
    def test_wrong_words(self, words, said, pair, capsys):
        assert said in refused(capsys, 2, pair[0], "--dense", pair[1], *NAMES, *words)

    def test_few_points_are_told(self, pair, capsys):
        text = told(capsys, pair[0], "--dense", pair[1], *NAMES, "--points", 5)
        assert "delta = 1 over 5 points" in text
        assert "come from 5 points; the requested delta needs" in text

    def test_a_network_without_bounds(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "own_transposed.py").write_text(
            "from torch import nn\n\n\ndef build():\n"
            "    return nn.Sequential(nn.ConvTranspose2d(1, 2, 1), nn.Flatten(), nn.Linear(128, 10))\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        import own_transposed  # pyright: ignore[reportMissingImports]

        torch.save(own_transposed.build().state_dict(), "whole.pt")
        words = ("whole.pt", "--dense", "whole.pt", "--model", "own_transposed:build", "--data", "digits")
        said = refused(capsys, 2, *words)
        assert "cannot certify this network: SiPP cannot score '0.weight': expected Linear" in said


class TestLoading:
    def test_what_was_saved_comes_back(self, tmp_path):
        base = torch.arange(24.0).reshape(4, 6)
        thing = {"a": base.t(), "b": base[1:3, 2:5], "n": torch.tensor(7), "e": torch.zeros(0, 3), "h": base.half()}
        thing["tied"] = thing["a"]
        torch.save(thing, tmp_path / "x.pt")
        found = load_tensors(open_checkpoint(tmp_path / "x.pt"))
        assert found.keys() == thing.keys()
        for name, tensor in thing.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor), name

    def test_of_safetensors_and_of_memory(self, tmp_path):
        model = mlp((1, 8, 8), 10, seed=1)
        save_file(model.state_dict(), tmp_path / "x.safetensors")
        found = load_tensors(open_checkpoint(tmp_path / "x.safetensors"))
        assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
