"""Which level a run hands over: the one at the density asked for, or the sparsest that is accurate enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

from sparsight.numerics.checks import check_fraction
from sparsight.pruning.allocate.counts import share
from sparsight.records.record import Choice, LevelRecord
from sparsight.train.metric import ACCURACY


@runtime_checkable
class Question(Protocol):
    """A choice of the level to hand over that can say which question it answers, in one sentence."""

    @property
    def question(self) -> str: ...

    def __call__(self, records: Sequence[LevelRecord]) -> Choice: ...


@dataclass(frozen=True)
class AtDensity:
    """Choose the last level, which should keep exactly `density` of the prunable weights, rounded half up.

    The reason gives the counts, and what pruning costs on validation data beside the dense network (level 0 if it is
    unpruned, else the control). If the level keeps more or fewer, `missed` says by how much, and what to try.
    ValueError for a density outside [0, 1], or if there is no level.
    """

    density: float

    def __post_init__(self) -> None:
        check_fraction(density=self.density)

    @property
    def question(self) -> str:
        return f"Pruning to exactly {in_percent(self.density)} of the prunable weights."

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level"]
        if not levels:
            raise ValueError("cannot choose a level: there is none")
        last = levels[-1]
        goal = share(self.density, last.total)
        asked = f"{in_percent(self.density)}, which is {goal:,} of {last.total:,} weights"
        if last.kept == goal:
            return Choice(last.level, last.id, f"pruned to exactly {asked}{cost(last, records)}{_leap(levels)}")
        missed = (
            f"{_over(last, self.density)}; {_stays_above(last)}"
            if last.kept > goal
            else f"{goal - last.kept:,} weights fewer are kept than the {goal:,} of {in_percent(self.density)}"
        )
        why = f"the last level, which keeps {last.kept:,} weights; asked for was {asked}{cost(last, records)}"
        return Choice(last.level, last.id, why, missed)


@dataclass(frozen=True)
class SparsestWithin:
    """Choose the sparsest level whose validation metric is within `points` of the dense network's.

    Of a share, such as accuracy, these are percentage points; of another metric, or if `relative`, percent of the
    dense network's value. Dense is level 0 where it is unpruned, else the dense control. If no level is within reach,
    the best one is chosen, and the reason says so. Source of the reference: validation data, never the test split.

    `density` is what the network should come down to: if the chosen level keeps more than that share of the prunable
    weights (rounded half up), `missed` says by how much, and what to try. ValueError if it is outside [0, 1].
    """

    points: float = 0.5
    density: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if self.density is not None:
            check_fraction(density=self.density)

    @property
    def question(self) -> str:
        down = "" if self.density is None else f", down to exactly {in_percent(self.density)} of the prunable weights"
        margin = f"{self.points:g} %" if self.relative else _points(self.points)
        return f"Looking for the sparsest network within {margin} of the dense one{down}."

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level" and r.value is not None]
        if not levels:
            raise ValueError("cannot choose a level: none was judged on validation data")
        dense = [r for r in levels if r.kept == r.total] or [r for r in records if r.role == "control"]
        if not dense:
            why = "the last level; the run has no dense network to compare with"
            return self._handed(levels[-1], why, levels, None)
        reference = dense[0]
        metric, value = reference.metric, reference.value or 0.0
        floor = metric.worth(metric.allowed(value, self.points, self.relative))
        near = [r for r in levels if r.worth >= floor - 1e-12]
        margin = f"{self.points:g} points" if metric.share and not self.relative else f"{self.points:g} %"
        if not near:
            best = max(levels, key=lambda r: r.worth)
            most = "most accurate" if metric == ACCURACY else f"one of the best {metric.name}"
            why = f"no level is within {margin} of dense ({metric.text(value)}); this one is the {most}"
            return self._handed(best, why, levels, reference)
        best = min(near, key=lambda r: (r.kept, -r.worth))
        why = f"the sparsest level within {margin} of dense on validation data: {_beside(best, reference)}"
        if best is levels[-1] and len(levels) > 1 and self.density is None:
            why += "; no sparser level was tried"
        return self._handed(best, why, levels, reference)

    def _handed(self, level: LevelRecord, why: str, levels: Sequence[LevelRecord], dense: LevelRecord | None) -> Choice:
        """The choice of `level`; if it keeps more than the target density, with what stands in the way of that."""
        if self.density is None or level.kept <= share(self.density, level.total):
            return Choice(level.level, level.id, why)
        end = min(levels, key=lambda r: r.kept)
        if end.kept > share(self.density, end.total):
            return Choice(level.level, level.id, why, f"{_over(level, self.density)}; {_stays_above(end)}")
        if dense is None or dense.value is None or end.value is None:
            return Choice(level.level, level.id, why, _over(level, self.density))
        points = dense.metric.share and not self.relative
        gap = 100 * (dense.worth - end.worth) / (1 if points else abs(dense.value) or 1)
        enough = f"within {math.ceil(100 * gap - 1e-9) / 100:g}, " if math.isfinite(gap) else ""
        reason = (
            f"level {end.level}, which keeps no more than that, is {gap:.2f} {'points' if points else '%'} "
            f"{'below' if dense.metric.better == 'higher' else 'above'} dense, further than within {self.points:g} "
            f"allows; try {enough}more epochs, or more levels for smaller steps"
        )
        return Choice(level.level, level.id, why, f"{_over(level, self.density)}; {reason}")


def dense_of(records: Sequence[LevelRecord]) -> LevelRecord | None:
    """The dense level, or else the dense control."""
    dense = [r for r in records if r.role == "level" and r.kept == r.total]
    dense = dense or [r for r in records if r.role == "control"]
    return dense[0] if dense else None


def cost(level: LevelRecord, records: Sequence[LevelRecord]) -> str:
    """What the level is worth on validation data beside the dense network."""
    dense = dense_of(records)
    if level.value is None or dense is None or dense.value is None:
        return ""
    return f"; validation {level.metric.name} {_beside(level, dense, ' dense')}"


def _beside(level: LevelRecord, dense: LevelRecord, said: str = "") -> str:
    metric, mine, other = level.metric, level.value or 0.0, dense.value or 0.0
    return f"{metric.text(mine)} against {metric.text(other)}{said} ({metric.difference(mine, other)})"


def in_percent(share: float) -> str:
    """A density as it is asked for: up to four significant digits."""
    return f"{100 * share:.4g} %"


def _points(points: float) -> str:
    return f"{points:g} point{'' if points == 1 else 's'}"


def _leap(levels: Sequence[LevelRecord]) -> str:
    """That the last level removed more than half of what was left, and no level before it so large a share."""
    left = [after.kept / before.kept for before, after in pairwise(levels) if before.kept]
    if len(left) < 2 or left[-1] >= min(0.5, *left[:-1]):
        return ""
    return f"; the last step removed {in_percent(1 - left[-1])} of what was left: more levels make smaller steps"


def _over(level: LevelRecord, density: float) -> str:
    """By how much a level misses the density that was asked for."""
    goal = share(density, level.total)
    return (
        f"the target density of {in_percent(density)} is missed: {in_percent(level.density)} of the weights are kept, "
        f"{level.kept - goal:,} more than the {goal:,} asked for"
    )


def _stays_above(level: LevelRecord) -> str:
    """What keeps the sparsest level above a density, and what to try."""
    if any(group.floor_bound for group in level.groups):
        return "min_keep holds weights back in every tensor or row; try a lower min_keep or a higher target"
    return f"the search ended at {in_percent(level.density)}; try more levels"


__all__ = ["AtDensity", "Question", "SparsestWithin", "cost", "dense_of"]
