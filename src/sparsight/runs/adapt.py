"""Adapts a recipe to a task: another loss, optimiser or metric, or a pretrained network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparsight.model.loss import Loss, LossName, named_loss
from sparsight.runs.choose import SparsestWithin
from sparsight.runs.ending import AccuracyFloor, AtPQMinimum
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Listed, Until
from sparsight.train.judges import named_judge
from sparsight.train.optimizers import MakeOptimizer, NesterovSGD, OptimizerName, named_optimizer
from sparsight.train.plan import TrainingPlan


def adapted(
    recipe: Recipe,
    *,
    loss: LossName | Loss | None = None,
    optimizer: OptimizerName | MakeOptimizer | None = None,
    metric: Any = None,
    pretrained: bool = False,
    relative: bool = False,
) -> Recipe:
    """The recipe with another loss, optimiser or metric in all levels; None keeps the recipe's own.

    `loss` is a name or loss(model, batch), also used by scorers that need a loss. `optimizer` is a name, used with the
    recipe's learning rate, momentum and weight decay, or a function of the parameters. `metric` chooses the level: a
    name, a judge, or a torchmetrics metric (`sparsight.train.judges`).

    `pretrained`: the network is already trained. Level 0 evaluates it in 0 epochs and is the rewind point; without a
    learning rate, pruned levels fine-tune at 0.03 (SGD) or 0.0001 (Adam).

    `relative`: margins are percent of the dense network's value, as they always are for metrics that are not shares.

    Raises: ValueError for an unknown name, or a pretrained network with a recipe that draws new weights; TypeError for
    levels that are neither listed nor `Until`.
    """
    made = None if loss is None else named_loss(loss)

    def changed(plan: TrainingPlan) -> TrainingPlan:
        return replace(plan, loss=made or plan.loss, optimizer=_optimizer(plan.optimizer, optimizer, pretrained))

    levels = recipe.levels
    if made is not None or optimizer is not None or pretrained:
        levels = _levels(recipe, changed, pretrained)
    judge = recipe.judge if metric is None else named_judge(metric, made or recipe.plan.loss)
    rewind = 0 if pretrained else recipe.rewind_epoch
    choose = recipe.choose
    if relative:
        choose, levels = _relative(choose), _relative(levels)
        if (choose, levels) == (recipe.choose, recipe.levels):
            raise ValueError(f"relative has no effect on {recipe.name}, which does not choose within a margin")
    return replace(recipe, levels=levels, judge=judge, choose=choose, rewind_epoch=rewind)


def _relative(thing: Any) -> Any:
    """A choice or a search whose margins are relative."""
    if isinstance(thing, (SparsestWithin, AccuracyFloor)):
        return replace(thing, relative=True)
    if isinstance(thing, Until):
        return replace(thing, stop=_relative(thing.stop))
    return replace(thing, otherwise=_relative(thing.otherwise)) if isinstance(thing, AtPQMinimum) else thing


def _optimizer(mine: MakeOptimizer, asked: OptimizerName | MakeOptimizer | None, pretrained: bool) -> MakeOptimizer:
    if asked is not None and not isinstance(asked, str):
        if not callable(asked):
            raise TypeError(f"optimizer must be a name or a function of the parameters, got {asked!r:.60}")
        return asked
    if not isinstance(mine, NesterovSGD):
        if asked is None:
            return mine
        mine = NesterovSGD()
    return named_optimizer(asked or "sgd", mine.lr, mine.momentum, mine.weight_decay, pretrained)


def _levels(recipe: Recipe, changed: Callable[[TrainingPlan], TrainingPlan], pretrained: bool) -> Listed | Until:
    def of(level: Level) -> Level:
        return replace(level, train=changed(level.train))

    search = recipe.search
    if isinstance(search, Until):
        first = of(search.first or Level(train=search.level.train))
        last = None if search.last is None else of(search.last)
        return replace(search, level=of(search.level), last=last, first=_as_it_is(first) if pretrained else first)
    if not isinstance(search, Listed):
        raise TypeError(
            f"cannot change the training of levels from a {type(search).__name__}: set loss and optimizer in its "
            "training plans"
        )
    levels = tuple(of(level) for level in search.levels)
    if pretrained:
        drawn = next((level for level in levels if getattr(level.restart, "start", None) is not None), None)
        if drawn is not None:
            raise ValueError(
                f"{recipe.name} draws new weights, which would discard a pretrained network: keep its weights with "
                "--activation own, or use another recipe"
            )
        dense = () if levels[0].prune else levels[:1]
        levels = (_as_it_is((dense or levels)[0]), *levels[len(dense) :])
    return Listed(levels)


def _as_it_is(level: Level) -> Level:
    """A level that evaluates the dense network without training it."""
    return Level(train=replace(level.train, epochs=0))
