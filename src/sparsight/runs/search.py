"""Searches decide, level by level, what comes next: a list of levels, or the same level until something ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from sparsight.numerics.checks import check_whole
from sparsight.pruning.allocate.counts import share
from sparsight.records.record import LevelRecord
from sparsight.runs.choose import in_percent
from sparsight.runs.ending import SearchStop
from sparsight.runs.level import Level
from sparsight.train.stop import StoppingRule
from sparsight.types import Allocator

History = Sequence[LevelRecord]
"""The levels so far, first to last."""


@dataclass(frozen=True)
class Done:
    """No level comes next, and why."""

    why: str


@runtime_checkable
class Search(Protocol):
    """Decides as it goes. Inherit from it and write `next`; the others have an answer for a search that knows no more.

    Level 0 is `next(())`: its training is also that of the control, and its batch size that of probe and scorer.
    """

    @property
    def rules(self) -> tuple[StoppingRule, ...]:
        """The stopping rules of all levels that may come: what they need is made from the start."""
        return ()

    def next(self, history: History) -> Level | Done: ...

    def after_pruning(self, history: History, level: Level, kept: int, total: int) -> Level:
        """`level`, now that its masks are known, perhaps with another restart and training."""
        return level

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        """The rounds that will prune what the level after `history` ends with, as far as they are known."""
        return ()


def check_next(search: Search, found: object) -> None:
    """TypeError if what `next` returned is neither a level nor the end."""
    if not isinstance(found, (Level, Done)):
        raise TypeError(f"{type(search).__name__}.next must return a Level or Done(why), got {found!r:.60}")


@dataclass(frozen=True)
class Listed(Search):
    """These levels, one after the other."""

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
        """Those of the next level that has any; if there is none, those of the last that has."""
        later = [level.prune for level in self.levels[len(history) + 1 :] if level.prune]
        earlier = [level.prune for level in self.levels[: len(history) + 1] if level.prune]
        return later[0] if later else earlier[-1] if earlier else ()


@dataclass(frozen=True)
class Until(Search):
    """Train dense, then prune by `level` again and again, until the density, the number of levels or `stop` ends it.

    The density is reached once no more than that share of the prunable weights is kept, rounded half up to a count.
    `levels` counts pruned levels. `stop` decides on the levels so far: `PQMinimum`, `AccuracyFloor`, or one of your
    own. Ends early when two levels in a row removed nothing.

    `first` is level 0, by default the dense network trained as `level` is. `last` is the level that ends the search,
    by default `level` too. The level whose density or number ends it restarts and trains as `last` does. If the rounds
    of `last` differ, they prune the level that must be the last: number `levels`, or the one after two that removed
    nothing. So a search ends at its density whatever its rate, if `last` goes there (`Shrink(..., exact=True)`).

    Raises: TypeError for a level that is no `Level`; ValueError without any of the three, for a density outside [0, 1],
    or for a negative number of levels.
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
            raise ValueError("a search needs a density, a number of levels or a stop, got none of them")
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
        """Whether the last level has rounds of its own, which reach the density."""
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
        """Whether the level after `history`, which keeps so many weights, is the last by density or number."""
        return (
            self._reached(kept, total)
            or (self.levels is not None and len(history) >= self.levels)
            or (self._goes_there and _stuck(history))
        )

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        return self._rounds(len(history) + 1)

    def _rounds(self, level: int, stuck: bool = False) -> tuple[Allocator, ...]:
        """The rounds of that level (1 is the first pruned one); `stuck` after two levels that removed nothing."""
        return self._last.prune if stuck or level == self.levels else self.level.prune

    def _reached(self, kept: int, total: int) -> bool:
        return self.density is not None and kept <= share(self.density, total)

    def _ended(self, history: History) -> str | None:
        end = history[-1]
        at = f"density {in_percent(end.density)}"
        if self.density is not None and self._reached(end.kept, end.total):
            rounded = f", rounded to {end.kept:,} of {end.total:,} weights" if end.density > self.density else ""
            return f"{at} has reached the target of {in_percent(self.density)}{rounded}"
        if self.levels is not None and len(history) > self.levels:
            return f"{_all_done(self.levels)} ({at})"
        if not self._goes_there and _stuck(history):
            return f"two levels in a row removed nothing ({at})"
        if self._goes_there and _stuck(history[:-1]):
            return f"two levels in a row removed nothing, and the last could go no further ({at})"
        return None


def _all_done(levels: int) -> str:
    if not levels:
        return "no level was to be pruned"
    return "the pruned level is done" if levels == 1 else f"all {levels} pruned levels are done"


def _stuck(history: History) -> bool:
    """Whether the last two levels removed nothing."""
    return len(history) > 2 and history[-3].kept == history[-1].kept


__all__ = ["Done", "History", "Listed", "Search", "Until"]
