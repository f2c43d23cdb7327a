"""Which level a run chooses: the one at the target density, or the sparsest one that is accurate enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

from sparsight.numerics.checks import check_fraction, is_number
from sparsight.numerics.format import exactly, margin
from sparsight.pruning.allocate.counts import share
from sparsight.records.record import Choice, LevelRecord, dense_of
from sparsight.train.metric import ACCURACY


@runtime_checkable
class Question(Protocol):
    """A rule that chooses a level, and the question that it answers, in one sentence."""

    @property
    def question(self) -> str: ...

    def __call__(self, records: Sequence[LevelRecord]) -> Choice: ...


@dataclass(frozen=True)
class AtDensity:
    """Choose the last level, which should keep exactly `density` of the prunable weights, rounded half up.

    The reason gives the counts, and the validation metric next to the dense network's (level 0 if it is unpruned,
    otherwise the control). If the level misses the density, `missed` says by how much, and what to try.

    Raises: ValueError for a density outside [0, 1], or without levels.
    """

    density: float

    def __post_init__(self) -> None:
        check_fraction(density=self.density)

    @property
    def question(self) -> str:
        return f"Pruning to exactly {exactly(self.density)} of the prunable weights."

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level"]
        if not levels:
            raise ValueError("cannot choose a level: the run has none")
        last = levels[-1]
        goal = share(self.density, last.total)
        asked = f"{exactly(self.density)}, which is {goal:,} of {last.total:,} weights"
        if last.kept == goal:
            return Choice(last.level, last.id, f"pruned to exactly {asked}{cost(last, records)}{_leap(levels)}")
        missed = (
            f"{_over(last, self.density)}; {_stays_above(last)}"
            if last.kept > goal
            else f"{goal - last.kept:,} weights fewer are kept than the {goal:,} of {exactly(self.density)}"
        )
        why = f"the last level, which keeps {last.kept:,} weights; the target was {asked}{cost(last, records)}"
        return Choice(last.level, last.id, why, missed)


@dataclass(frozen=True)
class SparsestWithin:
    """Choose the sparsest level whose validation metric is within `points` of the dense network's.

    `points` are percentage points for a share such as accuracy; percent of the dense value for another metric, or if
    `relative`. The dense network is level 0 if it is unpruned, otherwise the control. If no level qualifies, the best
    one is chosen, and the reason says so. Uses validation data, never the test split.

    `density` is the target: if the chosen level keeps more than that share of the prunable weights (rounded half up),
    `missed` says by how much, and what to try.

    Raises: ValueError for a density outside [0, 1], or points that are not finite.
    """

    points: float = 0.5
    density: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if not (is_number(self.points) and math.isfinite(self.points)):
            raise ValueError(f"points must be a finite number, got {self.points!r}")
        if self.density is not None:
            check_fraction(density=self.density)

    @property
    def question(self) -> str:
        down = "" if self.density is None else f", down to exactly {exactly(self.density)} of the prunable weights"
        within = margin(self.points, self.relative)
        return f"Looking for the sparsest network within {within} of the dense one{down}."

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level" and r.value is not None]
        if not levels:
            raise ValueError("cannot choose a level: none was evaluated on validation data")
        reference = dense_of([*levels, *(r for r in records if r.role == "control")])
        if reference is None:
            why = "the last level; the run has no dense network to compare with"
            return self._choice(levels[-1], why, levels, None)
        metric, value = reference.metric, reference.value or 0.0
        floor = metric.worth(metric.allowed(value, self.points, self.relative))
        near = [r for r in levels if r.worth >= floor - 1e-12]
        within = margin(self.points, self.relative or not metric.share)
        if not near:
            best = max(levels, key=lambda r: (not math.isnan(r.worth), r.worth))
            most = "most accurate" if metric == ACCURACY else f"one of the best {metric.name}"
            why = f"no level is within {within} of dense ({metric.text(value)}); this one is the {most}"
            return self._choice(best, why, levels, reference)
        best = min(near, key=lambda r: (r.kept, -r.worth))
        why = f"the sparsest level within {within} of dense on validation data: {_beside(best, reference)}"
        if best is levels[-1] and len(levels) > 1 and self.density is None:
            why += "; no sparser level was tried"
        return self._choice(best, why, levels, reference)

    def _choice(self, level: LevelRecord, why: str, levels: Sequence[LevelRecord], dense: LevelRecord | None) -> Choice:
        """The choice of `level`, with the reason if it misses the target density."""
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
            f"level {end.level}, which reaches it, is {gap:.2f} {'points' if points else '%'} "
            f"{'below' if dense.metric.better == 'higher' else 'above'} dense, more than within {self.points:g} "
            f"allows; try {enough}more epochs, or more levels for smaller steps"
        )
        return Choice(level.level, level.id, why, f"{_over(level, self.density)}; {reason}")


def cost(level: LevelRecord, records: Sequence[LevelRecord]) -> str:
    """The level's validation metric next to the dense network's, as text."""
    dense = dense_of(records)
    if level.value is None or dense is None or dense.value is None:
        return ""
    return f"; validation {level.metric.name} {_beside(level, dense, ' dense')}"


def _beside(level: LevelRecord, dense: LevelRecord, said: str = "") -> str:
    metric, mine, other = level.metric, level.value or 0.0, dense.value or 0.0
    return f"{metric.text(mine)} against {metric.text(other)}{said} ({metric.difference(mine, other)})"


def _leap(levels: Sequence[LevelRecord]) -> str:
    """A note if the last level removed more than half of the weights, and a larger share than any level before."""
    left = [after.kept / before.kept for before, after in pairwise(levels) if before.kept]
    if len(left) < 2 or left[-1] >= min(0.5, *left[:-1]):
        return ""
    return f"; the last step removed {exactly(1 - left[-1])} of the remaining weights: more levels make smaller steps"


def _over(level: LevelRecord, density: float) -> str:
    """By how much a level misses the target density."""
    goal = share(density, level.total)
    return (
        f"the target density of {exactly(density)} was missed: {exactly(level.density)} of the weights are kept, "
        f"{level.kept - goal:,} more than the target of {goal:,}"
    )


def _stays_above(level: LevelRecord) -> str:
    """Why the sparsest level stays above the target density, and what to try."""
    if any(group.floor_bound for group in level.groups):
        return "min_keep keeps weights in every tensor or row; try a lower min_keep or a higher target"
    return f"the search ended at {exactly(level.density)}; try more levels"
