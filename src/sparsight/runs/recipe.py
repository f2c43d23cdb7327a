"""A method as a value: its scorer, its levels, and how it chooses a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal

from sparsight.model.loss import Loss, task_loss
from sparsight.numerics.checks import check_seed, check_whole
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.choose import SparsestWithin
from sparsight.runs.level import Level
from sparsight.runs.search import Done, Listed, Search, check_next
from sparsight.train.judges import Auto, Judge
from sparsight.train.plan import TrainingPlan
from sparsight.types import Scorer


@dataclass(frozen=True)
class Scoring:
    """A scorer, the weights that it scores, and its number of training batches.

    `of`: the weights at the end of the previous level ("current"), those of the trained dense network, level 0
    ("dense"), or the initial weights ("init"). The batches are the same at every level.
    """

    scorer: Scorer
    of: Literal["current", "dense", "init"] = "current"
    batches: int = 0

    def __post_init__(self) -> None:
        check_whole(0, batches=self.batches)
        if not callable(self.scorer):
            raise TypeError(f"scorer must be callable as scorer(model, masks, batches), got {self.scorer!r:.60}")


@dataclass(frozen=True)
class Prunable:
    """Which parameters are prunable besides the weights of linear and convolution layers: patterns, as in `dense`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run needs besides the model and the data.

    Raises: TypeError for levels that are neither `Level`s nor a `Search`; ValueError for a rewind point after the end
    of level 0, or a missing one if a stopping rule needs it.
    """

    name: str
    score: Scorer | Scoring
    levels: Sequence[Level] | Search
    prunable: Prunable = field(default_factory=Prunable)
    judge: Judge = field(default_factory=Auto)
    choose: Callable[[Sequence[LevelRecord]], Choice] = field(default_factory=SparsestWithin)
    control: bool = False  # also train the dense network for as many epochs as the run
    pq: tuple[tuple[float, float], ...] = ((0.5, 1.0), (1.0, 2.0))  # pairs recorded for every level
    rewind_epoch: int = 0  # the rewind point: 0 = initial weights, k = after k epochs of level 0
    probes: int | None = None  # training samples that flow rules measure on; None: 1024, or all if fewer
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.probes is not None:
            check_whole(1, probes=self.probes)
        check_whole(0, rewind_epoch=self.rewind_epoch)
        check_seed(self.seed)
        _check_levels(self.levels)
        if not self.pq:
            raise ValueError("pq needs at least one (p, q) pair")
        if self.rewind_epoch > self.plan.epochs:
            epochs = self.plan.epochs
            raise ValueError(f"rewind_epoch must be at most the {epochs} epochs of level 0, got {self.rewind_epoch}")
        if "warmup" in self.needs and not self.rewind_epoch and self.plan.epochs:
            raise ValueError("rewind_epoch must be at least 1 for a rule that compares with the warm-up, got 0")

    @cached_property
    def search(self) -> Search:
        """The search that decides on the levels."""
        return self.levels if isinstance(self.levels, Search) else Listed(tuple(self.levels))

    @cached_property
    def scoring(self) -> Scoring:
        """The scorer, with the loss of level 0 unless it has its own."""
        scoring = self.score if isinstance(self.score, Scoring) else Scoring(self.score)
        return replace(scoring, scorer=_with_loss(scoring.scorer, self.plan.loss))

    @cached_property
    def needs(self) -> frozenset[str]:
        """What the stopping rules need besides the model."""
        return frozenset().union(*(rule.needs for rule in self.search.rules))

    @cached_property
    def plan(self) -> TrainingPlan:
        """The training of level 0, and of the control."""
        first = self.search.next(())
        if isinstance(first, Done):
            raise ValueError(f"a recipe needs at least one level, got none: {first.why}")
        check_next(self.search, first)
        return first.train


def _with_loss(scorer: Any, loss: Loss) -> Any:
    """The scorer, and any scorer inside it, with `loss` in place of the default loss."""
    if not is_dataclass(scorer) or isinstance(scorer, type) or loss is task_loss:
        return scorer
    own = {f.name: getattr(scorer, f.name) for f in fields(scorer)}
    new = {name: loss for name, value in own.items() if name == "loss" and value is task_loss}
    new |= {name: _with_loss(value, loss) for name, value in own.items() if hasattr(value, "loss")}
    return replace(scorer, **new) if new else scorer


def _check_levels(levels: object) -> None:
    """Raise TypeError for anything but a search or levels."""
    if isinstance(levels, Sequence) and levels and all(isinstance(level, Level) for level in levels):
        return
    lacks = [name for name in ("rules", "next", "after_pruning", "upcoming") if not hasattr(levels, name)]
    if isinstance(levels, type) or lacks:
        got = f"levels must be a Search or a sequence of at least one Level, got {levels!r:.80}"
        if "next" not in lacks:
            why = "it is a class" if isinstance(levels, type) else f"it lacks {', '.join(lacks)}"
            got += f": {why}; your own search must inherit from sparsight.runs.Search"
        raise TypeError(got)
