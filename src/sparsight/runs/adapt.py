"""A recipe fitted to a task: another loss, optimiser or metric, and networks that are trained already."""

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
    """The recipe with another loss, optimiser or metric in all its levels; None leaves what it has.

    `loss` is a name or loss(model, batch); scorers that need a loss take it too. `optimizer` is a name, with the
    recipe's learning rate, momentum and weight decay, or makes one of the parameters. `metric` is a name, a judge, or a
    metric of torchmetrics (`sparsight.train.judges`): levels are chosen by it.

    `pretrained` says that the network is trained already: level 0 judges it as it is, in 0 epochs, it is the rewind
    point, and where no learning rate is given, pruned levels train at that of fine-tuning (SGD 0.03, Adam 0.0001).

    With `relative`, the margin within which a level is chosen, or the search ends, is in percent of the dense network's
    value; always so for a metric that is no share.

    Raises: ValueError for an unknown name, and for a pretrained network of which the recipe draws the weights anew;
    TypeError for levels that are neither listed nor `Until`.
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
            raise ValueError(f"{recipe.name} looks for no network within a margin here, so `relative` has no effect")
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
            raise TypeError(f"an optimizer must be a name or made of the parameters by a call, got {asked!r:.60}")
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
            f"cannot change the training of levels that a {type(search).__name__} decides on: give it plans of that "
            "loss and optimizer"
        )
    levels = tuple(of(level) for level in search.levels)
    if pretrained:
        drawn = next((level for level in levels if getattr(level.restart, "start", None) is not None), None)
        if drawn is not None:
            raise ValueError(
                f"{recipe.name} draws the weights anew, so a pretrained network would be lost: keep its own weights "
                "(--activation own), or take another recipe"
            )
        dense = () if levels[0].prune else levels[:1]
        levels = (_as_it_is((dense or levels)[0]), *levels[len(dense) :])
    return Listed(levels)


def _as_it_is(level: Level) -> Level:
    """A level that judges the dense network without training it."""
    return Level(train=replace(level.train, epochs=0))


__all__ = ["adapted"]
