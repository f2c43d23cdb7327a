"""The recipes that prune an untrained network: what they are made of, and what they reach on real data."""

from __future__ import annotations

import pytest
import torch

from sparsight import recipes
from sparsight.cli import entry as cli
from sparsight.model.masks import dense
from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.restart import rewind
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes import grasp, lottery, magnitude_at_init, random_at_init, sap, snip, synflow
from sparsight.runs.execute import execute
from sparsight.runs.run import run
from sparsight.train.batches import batches
from sparsight.zoo.data import digits
from sparsight.zoo.networks import build, mlp

SMALL = {"density": 0.1, "epochs": 10, "batch_size": 64, "seed": 1}
RECIPES = {
    "snip": lambda **k: snip(**k),
    "iterative-snip": lambda **k: snip(rounds=5, **k),
    "force": lambda **k: snip(rounds=5, recover=True, **k),
    "grasp": lambda **k: grasp(**k),
    "synflow": lambda **k: synflow(rounds=20, **k),
    "magnitude": lambda **k: magnitude_at_init(**k),
    "random": lambda **k: random_at_init(**k),
}


@pytest.mark.parametrize("name", RECIPES)
def test_digits(tmp_path, name):
    """From initialisation to 10 % of the weights (the baselines: 40 %): trained once, beside the dense network."""
    density = 0.4 if name in ("magnitude", "random") else 0.1
    outcome = execute(
        RECIPES[name](**{**SMALL, "density": density}), model="mlp", data="digits", out=tmp_path / "run", device="cpu"
    )
    pruned, control = outcome.levels
    assert (pruned.role, control.role) == ("level", "control")
    assert pruned.kept == int(density * pruned.total + 0.5)
    assert pruned.epochs == control.epochs == 10
    assert pruned.validation_accuracy > 0.9
    assert control.validation_accuracy > 0.94
    assert pruned.collapse.disconnected is False
    assert outcome.record.chosen.id == pruned.id
    tested = {e.id: e.test_accuracy for e in outcome.evaluation.entries}
    assert tested[pruned.id] > 0.88


def trained(recipe):
    data = digits()
    model = build("mlp", data, 0)
    return model, data, next(run(recipe, model, data, device="cpu"))


def test_the_mask_is_that_of_the_scores_of_the_initial_weights():
    """Of the initial weights, on the first batch of the run's own order; the highest are kept."""
    recipe = snip(density=0.2, epochs=1, batch_size=100, control=False, seed=5)
    model, data, result = trained(recipe)
    order = torch.Generator().manual_seed(derive(5, "score"))
    (batch, *_) = batches(data.train, 100, generator=order)
    masks = dense(model)
    best = Global(0.2)(SNIP()(model, masks, [batch]), masks)
    assert all(torch.equal(best[n], result.masks[n]) for n in masks)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_shuffling_keeps_the_layers_and_changes_the_masks(make):
    how = {**SMALL, "epochs": 1, "control": False}
    _, _, plain = trained(make(**how))
    _, _, shuffled = trained(make(**how, shuffle=True))
    assert [x.kept for x in plain.record.layers] == [x.kept for x in shuffled.record.layers]
    assert any(not torch.equal(m, shuffled.masks[n]) for n, m in plain.masks.items())


def test_reinitialising_keeps_the_masks_and_changes_the_weights():
    how = {**SMALL, "epochs": 1, "control": False, "lr": 1e-9}  # so the weights are still the initial ones
    model, _, plain = trained(snip(**how))
    _, _, fresh = trained(snip(**how, reinitialise=True))
    initial = dict(model.named_parameters())
    for name, mask in plain.masks.items():
        assert torch.equal(mask, fresh.masks[name])
        assert torch.allclose(plain.weights[name][mask], initial[name].detach()[mask], atol=1e-6)
        assert not torch.allclose(fresh.weights[name][mask], initial[name].detach()[mask], atol=1e-3)


def test_flags_are_parts_of_the_recipe():
    plain, both = synflow(rounds=3), synflow(rounds=3, shuffle=True, reinitialise=True, min_keep=0)
    (level,) = both.levels
    first, *_, last = level.prune
    assert isinstance(first, Global)
    assert isinstance(last, Shuffled)
    assert last.allocator == Global(0.05, min_keep=0)
    assert isinstance(level.restart, Reinitialise)
    assert plain.levels[0].restart is rewind
    assert len(plain.levels[0].prune) == 3
    assert synflow().levels[0].prune[-1].density == pytest.approx(0.05)
    assert len(synflow().levels[0].prune) == 100
    assert grasp().scoring.scorer.temperature == 200


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--data=digits", "--epochs=1", "--no-control", "--device=cpu", "--out=run"]
    assert cli.main(["run", "magnitude-at-init", *words, "--shuffle", "--reinitialise", "--density=0.3"]) == 0
    assert "30" in capsys.readouterr().out


@pytest.mark.parametrize("name", recipes.__all__)
def test_every_recipe_trains(name):
    """A plan may judge a network as it is; a recipe without an epoch is a slip."""
    for wrong, why in ((0, "at least 1"), (-1, "at least 1"), (True, "a whole number")):
        with pytest.raises(ValueError, match=f"epochs must be {why}, got {wrong}"):
            getattr(recipes, name)(epochs=wrong)


@pytest.mark.parametrize("recipe", [snip, synflow, sap, lottery])
def test_defaults_work_on_a_small_data_set(recipe):
    """With the batches of 250 that large data sets take, these stay at 37 to 87 % of right answers."""
    *levels, _ = run(recipe(control=True), mlp((1, 8, 8), 10, seed=0), digits(), device="cpu")
    assert all(level.record.value > 0.95 for level in levels)
    assert levels[-1].record.density <= 0.11
    assert levels[0].record.operation["batch_size"] == 32


@pytest.mark.parametrize("name", recipes.__all__)
def test_a_recipe_is_called_as_on_the_command_line(name):
    assert getattr(recipes, name)().name == name.replace("_", "-")
