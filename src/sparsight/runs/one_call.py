"""`prune`: a model in, a sparse model out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsight.model.loss import Loss, LossName
from sparsight.numerics.checks import is_number
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.restart import carry_on
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.folder import RunFolder
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.adapt import adapted
from sparsight.runs.choose import AtDensity
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Prunable, Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Until
from sparsight.train.optimizers import MakeOptimizer, NesterovSGD, OptimizerName
from sparsight.train.parallel import Precision
from sparsight.train.plan import TrainingPlan
from sparsight.types import Batch, Data, Split
from sparsight.zoo.data import prepared

LEVELS = 4
"""Pruned levels of `prune`."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned network and its record."""

    model: nn.Module  # a sparse, trained copy
    masks: dict[str, Tensor]  # True = kept, by parameter name
    record: LevelRecord  # of this network: counts, layers, validation metrics
    levels: tuple[LevelRecord, ...]  # all levels, the dense network first
    choice: Choice  # why this level
    path: Path | None = None  # the run folder, if any

    def __str__(self) -> str:
        from sparsight.numerics.format import percent

        dense, metric = self.levels[0], self.record.metric
        kept = f"{self.record.kept:,} of {self.record.total:,} weights ({percent(self.record.density)})"
        against = f", against {metric.text(dense.value)} dense" if dense.kept == dense.total else ""
        missed = f"; {self.choice.missed}" if self.choice.missed else ""
        return f"{kept} at validation {metric.name} {metric.text(self.record.value)}{self._interval}{against}{missed}"

    @property
    def _interval(self) -> str:
        """The 95 % interval of a share, as text."""
        from sparsight.numerics.intervals import wilson

        value, metric = self.record.value, self.record.metric
        samples = self.record.observations[-1].samples if self.record.observations else None
        if not metric.share or value is None or not samples:
            return ""
        low, high = wilson(value, samples)
        return f" (95 % interval {metric.text(low)} to {metric.text(high)}, of {samples:,} answers)"


def prune(
    model: nn.Module,
    data: Data | tuple[Split | Iterable[Batch], Split | Iterable[Batch]],
    density: float = 0.1,
    *,
    epochs: int = 3,
    recipe: Recipe | None = None,
    pretrained: bool | None = None,
    loss: LossName | Loss | None = None,
    optimizer: OptimizerName | MakeOptimizer | None = None,
    lr: float | None = None,
    metric: Any = None,
    batch_size: int = 64,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    precision: Precision = "no",
) -> Pruned:
    """Prune a trained model to exactly `density` of its prunable weights, and train it back.

    Gradual magnitude pruning: four levels with the same rate, over all weights, each trained for `epochs` from where
    the previous one ended. `data` is `Data`, or a pair of training and validation `Split`s or loaders of batches.
    The model itself is not changed. With `pretrained=False` a copy is first trained for `epochs`. `loss`, `optimizer`
    and `metric` are as in `adapted`; without `lr`, SGD fine-tunes at 0.03, Adam and AdamW at 0.0001.

    A `recipe` replaces density, epochs, batch size, learning rate, prunable weights and seed, and trains level 0 unless
    `pretrained` is True. `out` keeps the run in a folder, to show, resume or compare it; without it everything stays in
    memory.

    Raises: ValueError for a density outside (0, 1], TypeError for other data, and the errors of `run`.
    """
    if not (is_number(density) and 0 < density <= 1):
        raise ValueError(f"density must be in (0, 1], got {density!r}")
    if not isinstance(data, Data):
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            got = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
            raise TypeError(f"data must be Data, or a pair of training and validation splits, got {got}")
        data = Data(name="data", train=data[0], validation=data[1])
    data = prepared(data)
    names = (include,) if isinstance(include, str) else tuple(include)
    spared = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    made = recipe or _gradual(density, epochs, batch_size, lr, Prunable(names, spared), seed)
    trained = recipe is None if pretrained is None else pretrained
    made = adapted(made, loss=loss, optimizer=optimizer, metric=metric, pretrained=trained)
    if out is None:
        return _in_memory(made, model, data, device, precision)
    outcome = execute(made, model=model, data=data, out=out, device=device, precision=precision)
    with RunFolder.open(outcome.path) as folder:
        choice = folder.record.chosen
        assert choice is not None  # a finished run has chosen
        chosen = next(level for level in outcome.levels if level.id == choice.id)
        weights, masks = folder.restore(chosen)
    levels = tuple(level for level in outcome.levels if level.role == "level")
    return Pruned(_with(model, weights), dict(masks), chosen, levels, choice, outcome.path)


def _gradual(density: float, epochs: int, batch_size: int, lr: float | None, prunable: Prunable, seed: int) -> Recipe:
    rate = 1 - density ** (1 / LEVELS)
    plan = TrainingPlan(epochs=epochs, batch_size=batch_size, optimizer=NesterovSGD(lr=lr))
    middle = Level((Shrink(rate, target_density=density),), carry_on, plan)
    last = Level((Shrink(rate, target_density=density, exact=True),), carry_on, plan)
    return Recipe(
        name="prune",
        score=Magnitude(),
        levels=Until(middle, density, LEVELS, last=last),
        prunable=prunable,
        choose=AtDensity(density),
        seed=seed,
    )


def _in_memory(recipe: Recipe, model: nn.Module, data: Data, device: str, precision: Precision) -> Pruned:
    records, kept = [], []
    for result in run(recipe, model, data, device=device, precision=precision):
        records.append(result.record)
        kept = [result] if isinstance(recipe.choose, AtDensity) and result.record.role == "level" else [*kept, result]
    choice = recipe.choose(records)
    chosen = next(result for result in kept if result.record.id == choice.id)
    levels = tuple(record for record in records if record.role == "level")
    return Pruned(_with(model, chosen.weights), dict(chosen.masks), chosen.record, levels, choice)


def _with(model: nn.Module, weights: Any) -> nn.Module:
    made = copy.deepcopy(model)
    made.load_state_dict(weights)
    return made
