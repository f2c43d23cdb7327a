"""A method as a value: what is scored, how much goes, where the next level starts, how it is trained and ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.model.loss import Judge, cross_entropy
from sparsight.pruning.allocate.counts import share
from sparsight.pruning.restart import rewind
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.choose import SparsestWithin
from sparsight.runs.search import SearchStop
from sparsight.train.evaluate import classify
from sparsight.train.hooks import Hooks
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.schedules import cosine
from sparsight.train.stop import FixedEpochs, PerLevel, check_rule, needs
from sparsight.types import Allocator, Batch, Restart, Scorer, StoppingRule

Level = tuple[Allocator, ...]
"""The rounds (score + allocate) before a level's training; the empty tuple trains without pruning."""

_LEAST_EVERY = 0.001
History = Sequence[LevelRecord]
"""The levels so far, first to last."""

Search = Callable[[History], Level | str | None]
"""The next level, or why there is none (a reason, or None)."""


@dataclass(frozen=True)
class Until:
    """Train dense, then prune by `level` again and again, until the density, the number of levels or `stop` ends it.

    The density is reached once no more than that share of the prunable weights is kept, rounded half up to a count.
    `levels` counts pruned levels. `stop` decides on the levels so far: `PQMinimum`, `AccuracyFloor`, or one of your
    own. Ends early when two levels in a row removed nothing.

    `last` are other rounds for the level that must be the last: number `levels`, or the one after two that removed
    nothing. So a search ends at its density whatever its rate, if `last` goes there (`Shrink(..., exact=True)`).
    ValueError without any of the three, or for a density outside [0, 1] or a negative number of levels.
    """

    level: Level
    density: float | None = None
    levels: int | None = None
    stop: SearchStop | None = None
    last: Level | None = None

    def __post_init__(self) -> None:
        if self.density is None and self.levels is None and self.stop is None:
            raise ValueError("a search needs a density, a number of levels, or both: got neither, and no stop")
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"density must be in [0, 1]: got {self.density!r}")
        if self.levels is not None and self.levels < 0:
            raise ValueError(f"levels must be a whole number >= 0: got {self.levels!r}")

    def __call__(self, history: History) -> Level | str | None:
        if not history:
            return ()
        if self.stop is not None and (why := self.stop.stop(history)):
            return why
        if why := self._ended(history):
            return why if self.stop is None else f"{why}, with no {self.stop}"
        return self.rounds(len(history), stuck=_stuck(history))

    def rounds(self, level: int, stuck: bool = False) -> Level:
        """The rounds of that level (1 is the first pruned one); `stuck` after two levels that removed nothing."""
        return self.level if self.last is None or not (stuck or level == self.levels) else self.last

    def is_last(self, history: History, kept: int, total: int) -> bool:
        """Whether the density, the number of levels or `last` ends the search after the level with so many weights."""
        return (
            self._reached(kept, total)
            or (self.levels is not None and len(history) >= self.levels)
            or (self.last is not None and _stuck(history))
        )

    def _reached(self, kept: int, total: int) -> bool:
        return self.density is not None and kept <= share(self.density, total)

    def _ended(self, history: History) -> str | None:
        end = history[-1]
        if self.density is not None and self._reached(end.kept, end.total):
            rounded = f", rounded to {end.kept:,} of {end.total:,} weights" if end.density > self.density else ""
            return f"density {end.density:.4g} has reached the target of {self.density:g}{rounded}"
        if self.levels is not None and len(history) > self.levels:
            return f"all {self.levels} pruned levels are done (density {end.density:.4g})"
        if self.last is None and _stuck(history):
            return f"two levels in a row removed nothing (density {end.density:.4g})"
        if self.last is not None and _stuck(history[:-1]):
            return f"two levels in a row removed nothing, and the last could go no further (density {end.density:.4g})"
        return None


def _stuck(history: History) -> bool:
    """Whether the last two levels removed nothing."""
    return len(history) > 2 and history[-3].kept == history[-1].kept


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run needs beside the model and the data.

    A level is one prune-restart-train cycle, of zero or more rounds. `score_from` says whose weights a round
    scores: those the previous level ended with, the trained dense network's (level 0), or the initial ones.
    `epochs` is each level's budget and the horizon of the learning-rate schedule; `stop` may end a level earlier, at
    one of the points that lie `evaluate_every` epochs apart (whole epochs only for a split that tells no length).
    `first_epochs` and `middle_epochs` are other budgets, each with a schedule of its own, and `middle_restart` is
    another restart, for the levels that find the masks; the last level, where `is_last` knows it beforehand, trains
    `epochs` from `restart`.
    """

    name: str
    score: Scorer
    levels: Sequence[Level] | Search
    score_from: Literal["current", "dense", "init"] = "current"
    score_batches: int = 0  # training batches handed to the scorer, the same at every level
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy
    judge: Judge = classify  # (summed loss, right answers, answers counted) of a batch
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = field(default_factory=NesterovSGD)
    schedule: Callable[[float], float] = cosine  # progress of the level -> multiplier of the learning rate
    epochs: int = 3
    batch_size: int = 250
    clip: float | None = 1.0  # global norm of the masked gradients
    restart: Restart = rewind
    rewind_epoch: int = 0  # the rewind point: 0 = initial weights, k = after k epochs of level 0
    first_epochs: int | None = None  # the budget of level 0, where it is another one
    middle_epochs: int | None = None  # the budget of the levels between the first and the last, likewise
    middle_restart: Restart | None = None  # where the levels before the last restart from, likewise
    stop: StoppingRule | PerLevel = field(default_factory=FixedEpochs)
    evaluate_every: float = 1.0  # epochs between evaluations; a fraction evaluates inside epochs
    probes: int | None = None  # training samples that flow rules measure on; None: 1024, or all there are
    hooks: Hooks = field(default_factory=Hooks)
    choose: Callable[[Sequence[LevelRecord]], Choice] = field(default_factory=SparsestWithin)
    control: bool = False  # train the dense network for the whole run's epochs beside it
    pq: tuple[tuple[float, float], ...] = ((0.5, 1.0), (1.0, 2.0))  # pairs recorded for every level
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        if self.probes is not None:
            _at_least(1, probes=self.probes)
        _at_least(1, first_epochs=self.budget(0), middle_epochs=self.budget(1))
        _at_least(0, rewind_epoch=self.rewind_epoch, score_batches=self.score_batches, seed=self.seed)
        if self.rewind_epoch > self.budget(0):
            raise ValueError(f"rewind_epoch must be at most epochs = {self.budget(0)}: got {self.rewind_epoch}")
        if not _LEAST_EVERY <= self.evaluate_every < math.inf:
            raise ValueError(f"evaluate_every must be a finite number >= {_LEAST_EVERY}: got {self.evaluate_every!r}")
        if not isinstance(self.stop, PerLevel):
            check_rule(self.stop, "stop")
        if "warmup" in needs(self.stop) and not self.rewind_epoch:
            raise ValueError("a rule that compares with the network after its warm-up needs rewind_epoch >= 1: got 0")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None: got {self.clip!r}")
        if not self.pq:
            raise ValueError("pq needs at least one (p, q) pair")

    def next_level(self, history: History) -> Level | str | None:
        """The next level, or why there is none."""
        if callable(self.levels):
            return self.levels(history)
        if len(history) < len(self.levels):
            return self.levels[len(history)]
        return f"all {len(self.levels)} levels are done"

    def budget(self, level: int, last: bool = False) -> int:
        """Epochs that a level may take; level 0 counts as the first, even where it is the last too."""
        other = (None if last else self.middle_epochs) if level else self.first_epochs
        return self.epochs if other is None else other

    def restart_of(self, last: bool) -> Restart:
        """Where a pruned level starts from."""
        return self.restart if last or self.middle_restart is None else self.middle_restart

    def rule(self, level: int, last: bool = False) -> StoppingRule:
        """What may end a level before its budget does."""
        return self.stop.at(level, last) if isinstance(self.stop, PerLevel) else self.stop

    def is_last(self, history: History, kept: int, total: int) -> bool:
        """Whether no level will follow the one with so many weights after `history`, as far as that is known
        beforehand: of a list, and of `Until` by its density and its number of levels."""
        if isinstance(self.levels, Until):
            return self.levels.is_last(history, kept, total)
        return not callable(self.levels) and len(history) + 1 == len(self.levels)

    def rounds_after(self, level: int) -> Level:
        """The rounds that prune what a level ends with, as far as they are known beforehand; else the empty tuple.

        Of a list, those of the next level that has any; where there is none, those of the last that has.
        """
        if isinstance(self.levels, Until):
            return self.levels.rounds(level + 1)
        if callable(self.levels):
            return ()
        later = [rounds for rounds in self.levels[level + 1 :] if rounds]
        earlier = [rounds for rounds in self.levels[: level + 1] if rounds]
        return later[0] if later else earlier[-1] if earlier else ()


def _at_least(least: int, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}: got {value!r}")


__all__ = ["History", "Level", "Recipe", "Search", "Until"]
