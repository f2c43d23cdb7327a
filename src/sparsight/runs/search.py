"""Searches decide on the next level: from a list, or the same level again until a limit is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from sparsight.numerics.checks import check_whole
from sparsight.numerics.format import exactly
from sparsight.pruning.allocate.counts import share
from sparsight.records.record import LevelRecord
from sparsight.runs.ending import SearchStop
from sparsight.runs.level import Level
from sparsight.train.stop import StoppingRule
from sparsight.types import Allocator

History = Sequence[LevelRecord]
"""The levels so far, first to last."""


@dataclass(frozen=True)
class Done:
    """The search has ended, and why."""

    why: str


@runtime_checkable
class Search(Protocol):
    """Decides on levels one at a time. To write your own, inherit from it and define `next`.

    Level 0 is `next(())`: its training is also that of the control, and its batch size that of probe and scorer.
    """

    @property
    def rules(self) -> tuple[StoppingRule, ...]:
        """The stopping rules of all levels that may follow, because what they need is prepared at the start."""
        return ()

    def next(self, history: History) -> Level | Done: ...

    def after_pruning(self, history: History, level: Level, kept: int, total: int) -> Level:
        """`level`, perhaps with another restart and training, once its masks are known."""
        return level

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        """The rounds that will prune the level after `history`, as far as known."""
        return ()


def check_next(search: Search, found: object) -> None:
    """Raise TypeError if `next` returned neither a level nor `Done`."""
    if not isinstance(found, (Level, Done)):
        raise TypeError(f"{type(search).__name__}.next must return a Level or Done(why), got {found!r:.60}")


@dataclass(frozen=True)
class Listed(Search):
    """The given levels in order."""

    levels: tuple[Level, ...]

    @property
    def rules(self) -> tuple[StoppingRule, ...]:
        return tuple(level.train.stop for level in self.levels)

    def next(self, history: History) -> Level | Done:
        if len(history) < len(self.levels):
            return self.levels[len(history)]
        pruned = sum(bool(level.prune) for level in self.levels)
        return Done(_all_done(pruned))

    def ends(self, history: History, kept: int, total: int) -> bool:
        """Whether the level after `history` is the last."""
        return len(history) + 1 == len(self.levels)

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        """Those of the next level that prunes, otherwise of the last one that does."""
        later = [level.prune for level in self.levels[len(history) + 1 :] if level.prune]
        earlier = [level.prune for level in self.levels[: len(history) + 1] if level.prune]
        return later[0] if later else earlier[-1] if earlier else ()


@dataclass(frozen=True)
class Until(Search):
    """Train dense, then prune by `level` repeatedly, until the density, the number of levels or `stop` ends it.

    The density is reached once at most that share of the prunable weights, rounded half up, is kept. `levels` counts
    pruned levels. `stop` is `PQMinimum`, `AccuracyFloor`, or your own rule. Ends early if two levels in a row removed
    nothing.

    `first` is level 0, by default dense and trained like `level`. `last` sets the restart and training of the level
    that ends the search, by default like `level`. If its rounds differ from those of `level`, they prune level number
    `levels`, or the level after two that removed nothing: with `Shrink(..., exact=True)` the search ends exactly at its
    density.

    Raises: TypeError for something other than a `Level`; ValueError without any of the three limits, for a density
    outside [0, 1], or for a negative number of levels.
    """

    level: Level
    density: float | None = None
    levels: int | None = None
    stop: SearchStop | None = None
    last: Level | None = None
    first: Level | None = None

    def __post_init__(self) -> None:
        for name, level in (("level", self.level), ("last", self.last), ("first", self.first)):
            if not isinstance(level, Level) and (level is not None or name == "level"):
                raise TypeError(f"{name} must be a Level, such as Level((Shrink(0.2),)), got {level!r:.60}")
        if self.density is None and self.levels is None and self.stop is None:
            raise ValueError("a search needs density, levels or stop")
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"density must be in [0, 1], got {self.density!r}")
        if self.levels is not None:
            check_whole(0, levels=self.levels)

    @property
    def rules(self) -> tuple[StoppingRule, ...]:
        return tuple(level.train.stop for level in (self._first, self.level, self._last))

    @property
    def _first(self) -> Level:
        return self.first or Level(train=self.level.train)

    @property
    def _last(self) -> Level:
        return self.last or self.level

    @property
    def _goes_there(self) -> bool:
        """Whether the last level has its own rounds, which reach the density."""
        return self._last.prune != self.level.prune

    def next(self, history: History) -> Level | Done:
        if not history:
            return self._first
        if self.stop is not None and (why := self.stop.stop(history)):
            return Done(why)
        if why := self._ended(history):
            return Done(why if self.stop is None else f"{why}, with no {self.stop}")
        return replace(self.level, prune=self._rounds(len(history), stuck=_stuck(history)))

    def after_pruning(self, history: History, level: Level, kept: int, total: int) -> Level:
        ends = history and self.ends(history, kept, total)
        return replace(level, restart=self._last.restart, train=self._last.train) if ends else level

    def ends(self, history: History, kept: int, total: int) -> bool:
        """Whether the level after `history`, which keeps `kept` weights, is the last by density or number."""
        return (
            self._reached(kept, total)
            or (self.levels is not None and len(history) >= self.levels)
            or (self._goes_there and _stuck(history))
        )

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        return self._rounds(len(history) + 1)

    def _rounds(self, level: int, stuck: bool = False) -> tuple[Allocator, ...]:
        """The rounds of a level, counted from 1; `stuck` if the last two levels removed nothing."""
        return self._last.prune if stuck or level == self.levels else self.level.prune

    def _reached(self, kept: int, total: int) -> bool:
        return self.density is not None and kept <= share(self.density, total)

    def _ended(self, history: History) -> str | None:
        end = history[-1]
        at = f"density {exactly(end.density)}"
        if self.density is not None and self._reached(end.kept, end.total):
            rounded = f", rounded to {end.kept:,} of {end.total:,} weights" if end.density > self.density else ""
            return f"{at} has reached the target of {exactly(self.density)}{rounded}"
        if self.levels is not None and len(history) > self.levels:
            return f"{_all_done(self.levels)} ({at})"
        if not self._goes_there and _stuck(history):
            return f"two levels in a row removed nothing ({at})"
        if self._goes_there and _stuck(history[:-1]):
            return f"two levels in a row removed nothing, and neither did the last ({at})"
        return None


def _all_done(levels: int) -> str:
    if not levels:
        return "no level was to be pruned"
    return "the pruned level is done" if levels == 1 else f"all {levels} pruned levels are done"


def _stuck(history: History) -> bool:
    return len(history) > 2 and history[-3].kept == history[-1].kept
