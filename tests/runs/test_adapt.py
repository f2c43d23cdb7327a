from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsight import Data, SparsestWithin, Split, execute
from sparsight.model import mse
from sparsight.model.loss import binary_cross_entropy, task_loss
from sparsight.recipes import incop, lottery, oneshot, sap, sbp, sipp, snip
from sparsight.runs import AccuracyFloor, Recipe, Search, adapted, run
from sparsight.runs.level import Level
from sparsight.train import Adam, Error, NesterovSGD
from sparsight.train.judges import Loss


def plans(recipe: Recipe) -> list:
    search = recipe.search
    levels = search.levels if hasattr(search, "levels") and isinstance(search.levels, tuple) else None
    return [x.train for x in levels or (search.first, search.level, search.last)]  # type: ignore[union-attr]


def regression() -> Data:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, generator=generator)
    y = (x @ torch.randn(6, 1, generator=generator)).tanh()
    return Data(name="curve", train=Split(x[:160], y[:160]), validation=Split(x[160:208], y[160:208]),
                test=Split(x[208:], y[208:]))  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))


RECIPES = [lottery, sap, oneshot, incop, sipp, snip]


@pytest.mark.parametrize("make", RECIPES)
def test_every_level_gets_the_loss_and_the_optimizer(make):
    recipe = adapted(make(lr=0.02), loss="mse", optimizer="adamw", metric="rmse")
    assert all(plan.loss is mse for plan in plans(recipe))
    assert all(plan.optimizer == Adam(0.02, 5e-4, decoupled=True) for plan in plans(recipe))
    assert recipe.judge == Error("rmse")


@pytest.mark.parametrize("make", [lottery, sap, sipp, snip])
def test_learning_rates_that_nobody_gave(make):
    assert {p.optimizer.lr for p in plans(adapted(make(), optimizer="adam"))} == {1e-3}
    assert {p.optimizer.lr for p in plans(adapted(make(), pretrained=True))} == {0.03}
    assert {p.optimizer.lr for p in plans(adapted(make(), optimizer="adamw", pretrained=True))} == {1e-4}
    assert {p.optimizer.lr for p in plans(adapted(make(lr=0.2), pretrained=True))} == {0.2}
    (group,) = NesterovSGD()(network().parameters()).param_groups
    assert group["lr"] == 0.1


def test_scorers_take_the_loss():
    assert adapted(snip(), loss="mse").scoring.scorer.loss is mse  # type: ignore[attr-defined]
    assert adapted(sbp(), loss="mse").scoring.scorer.score.loss is mse  # type: ignore[attr-defined]
    assert snip().scoring.scorer.loss is task_loss  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", RECIPES)
def test_a_pretrained_network_is_judged_as_it_is(make):
    recipe = adapted(make(), pretrained=True)
    first = recipe.search.next(())
    assert isinstance(first, Level)
    assert (first.prune, first.train.epochs, recipe.rewind_epoch) == ((), 0, 0)


def test_a_recipe_that_draws_the_weights_anew_is_refused():
    with pytest.raises(ValueError, match="sbp draws new weights, which would discard a pretrained network"):
        adapted(sbp(), pretrained=True)


def test_margins():
    recipe = adapted(lottery(until="accuracy", within=3), relative=True)
    assert recipe.choose == SparsestWithin(3, relative=True)
    assert recipe.search.stop == AccuracyFloor(3, relative=True)  # type: ignore[attr-defined]


def test_names_that_there_are_not():
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adam, adamw"):
        adapted(sap(), optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss must be one of .*, got 'hinge'"):
        adapted(sap(), loss="hinge")  # type: ignore[arg-type]


def test_the_metric_loss_is_the_recipes_own():
    assert adapted(adapted(lottery(), loss="mse"), metric="loss").judge == Loss(mse)


def test_levels_that_something_else_decides_on():
    class Mine(Search):
        def next(self, history):
            return lottery().search.next(history)

    recipe = Recipe(name="mine", score=lottery().score, levels=Mine())
    assert adapted(recipe, metric="loss").judge != recipe.judge
    with pytest.raises(TypeError, match="levels from a Mine"):
        adapted(recipe, loss="mse")


def test_a_regression_from_end_to_end(tmp_path):
    recipe = adapted(
        lottery(levels=2, epochs=4, batch_size=32, rate=0.3, control=False, within=50), loss="mse", optimizer="adam",
        metric="rmse",
    )  # fmt: skip
    outcome = execute(recipe, model=network(), data=regression(), out=tmp_path / "run", threads=1)
    level = outcome.levels[0]
    value = level.value
    assert value is not None
    assert level.metric.name == "rmse"
    assert level.validation_accuracy is None
    assert value**2 == pytest.approx(level.validation_loss, rel=1e-9)
    assert outcome.record.chosen is not None
    assert "within 50 % of dense" in outcome.record.chosen.why
    text = outcome.report.read_text()
    assert "Validation rmse" in text
    assert "accuracy" not in text.split("How it was made")[0].split("<main")[-1].lower()
    assert outcome.evaluation is not None
    assert outcome.evaluation.entries[0].metrics["rmse"] > 0


def test_lower_is_better_decides(tmp_path):
    """The sparsest level whose error is at most a quarter larger than dense."""
    lowest = lottery(levels=4, epochs=9, batch_size=16, rate=0.6, lr=0.02, control=False, within=25)
    recipe = adapted(lowest, loss="mse",
                     optimizer="adam", metric="mse")  # fmt: skip
    levels = [result.record for result in run(recipe, network(), regression())]
    choice = recipe.choose(levels)
    dense = levels[0].value
    assert dense is not None
    near = [x for x in levels if x.value is not None and x.value <= 1.25 * dense]
    assert choice.level == near[-1].level
    assert len(near) < len(levels)


def test_binary_labels(tmp_path):
    data = regression()
    parts = {name: Split(part.x, (part.y > 0).float()) for name, part in
             (("train", data.train), ("validation", data.validation))}  # type: ignore[union-attr] # fmt: skip
    recipe = adapted(lottery(levels=1, epochs=6, batch_size=16, lr=0.02, control=False), loss="binary-cross-entropy",
                     metric="accuracy", optimizer="adam")  # fmt: skip
    levels = [r.record for r in run(recipe, network(), Data(name="signs", **parts))]
    assert all(plan.loss is binary_cross_entropy for plan in plans(recipe))
    assert levels[0].value is not None
    assert levels[0].value > 0.8
