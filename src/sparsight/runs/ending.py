"""When to stop pruning, and the choice of a level by its PQ index. Rules use records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from sparsight.measure.pq.turning_points import TurningPoints, turning_points
from sparsight.numerics.checks import check_positive
from sparsight.numerics.format import exactly, margin
from sparsight.records.record import Choice, LevelRecord, dense_of
from sparsight.runs.choose import SparsestWithin, cost


@runtime_checkable
class SearchStop(Protocol):
    """A rule that ends the search for sparser levels: the reason to stop, or None to continue."""

    def stop(self, history: Sequence[LevelRecord]) -> str | None: ...


@dataclass(frozen=True)
class PQMinimum:
    """Stop pruning as soon as the PQ index (p, q) of all alive weights has turned up from its minimum.

    As in `turning_points`: two levels in a row are more than `tolerance` above the lowest index so far, or one is more
    than 3 `tolerance` above it. Needs no labels.

    Raises: ValueError if (p, q) is not recorded, if the density rises between levels, or if tolerance is not positive.
    Source: the hypothesis of Diao et al., ICLR 2023 (sparsity falls, rises, falls); the rule is ours.
    """

    p: float = 1.0
    q: float = 2.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)

    def stop(self, history: Sequence[LevelRecord]) -> str | None:
        indices = _indices(history, self.p, self.q)
        turns = _turns(history, indices, self.tolerance)
        if turns.minimum is None or turns.confirmed_at is None:
            return None
        low, seen = history[turns.minimum], history[turns.confirmed_at]
        return (
            f"the PQ index ({self.p:g}, {self.q:g}) has passed its minimum: {indices[turns.minimum]:.4f} at level "
            f"{low.level} (density {exactly(low.density)}), {indices[turns.confirmed_at]:.4f} at level {seen.level} "
            f"(density {exactly(seen.density)})"
        )

    def __str__(self) -> str:
        return f"confirmed minimum of the PQ index ({self.p:g}, {self.q:g})"


@dataclass(frozen=True)
class AccuracyFloor:
    """Stop pruning as soon as a level's validation metric is more than `points` worse than the dense level's.

    `points` are percentage points for a share such as accuracy; percent of the dense value for another metric, or if
    `relative`. Exactly `points` below does not stop. The dense level is the first that keeps every weight; without one,
    or without a validation metric, the rule never stops.

    Raises: ValueError if points is negative or NaN.
    """

    points: float = 0.5
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.points >= 0:
            raise ValueError(f"points must be at least 0, got {self.points!r}")

    def stop(self, history: Sequence[LevelRecord]) -> str | None:
        dense = dense_of(history)
        if dense is None or dense.value is None or not history or history[-1].value is None:
            return None
        last, metric = history[-1], dense.metric
        if not last.worth < metric.worth(metric.allowed(dense.value, self.points, self.relative)) - 1e-12:
            return None
        share = metric.share and not self.relative
        return (
            f"validation {metric.name} at level {last.level} (density {exactly(last.density)}) is more than "
            f"{margin(self.points, not share)} {'below' if metric.better == 'higher' else 'above'} dense: "
            f"{metric.text(last.value)} against {metric.text(dense.value)} "
            f"({metric.difference(last.value or 0.0, dense.value)})"
        )

    def __str__(self) -> str:
        return f"level more than {margin(self.points, self.relative)} below dense on validation data"


@dataclass(frozen=True)
class AtPQMinimum:
    """Choose the level at the minimum of the PQ index (p, q), as confirmed by `turning_points`.

    Without a confirmed minimum, `otherwise` chooses, and the reason says so: an index that keeps falling may mean that
    the network collapses. The reason gives the validation metric next to the dense network's.

    Raises: ValueError as `PQMinimum`, or without levels.
    """

    p: float = 1.0
    q: float = 2.0
    tolerance: float = 0.01
    otherwise: Callable[[Sequence[LevelRecord]], Choice] = field(default_factory=SparsestWithin)

    def __post_init__(self) -> None:
        check_positive(tolerance=self.tolerance)

    @property
    def question(self) -> str:
        return f"Looking for the network at the minimum of the PQ index ({self.p:g}, {self.q:g})."

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level"]
        if not levels:
            raise ValueError("cannot choose a level: the run has none")
        indices = _indices(levels, self.p, self.q)
        turns = _turns(levels, indices, self.tolerance)
        named = f"the PQ index ({self.p:g}, {self.q:g})"
        if turns.minimum is None or turns.confirmed_at is None:
            choice = self.otherwise(records)
            return replace(choice, why=f"{named} has no confirmed minimum, so {choice.why}")
        low, at = levels[turns.minimum], turns.confirmed_at
        why = (
            f"{named} is lowest here, {indices[turns.minimum]:.4f} at density {exactly(low.density)}, and has risen "
            f"since: {indices[at]:.4f} at level {levels[at].level}"
        )
        return Choice(low.level, low.id, why + cost(low, records) + self._first(levels, indices, low))

    def _first(self, levels: Sequence[LevelRecord], indices: Sequence[float], low: LevelRecord) -> str:
        """The first level within the tolerance of the minimum, which on a flat curve may be more accurate."""
        least = indices[levels.index(low)]
        first = next(x for x, index in zip(levels, indices, strict=True) if index <= least + self.tolerance)
        if first is low or first.value is None:
            return ""
        return (
            f"; it is within {self.tolerance:g} of that from level {first.level} (density {exactly(first.density)}, "
            f"validation {first.metric.name} {first.metric.text(first.value)})"
        )


def _indices(levels: Sequence[LevelRecord], p: float, q: float) -> list[float]:
    """The PQ index of all alive weights, level by level."""
    for x in levels:
        if (p, q) not in x.pq_pairs:
            recorded = ", ".join(f"({a:g}, {b:g})" for a, b in x.pq_pairs) or "none"
            raise ValueError(f"level {x.level} has no PQ index ({p:g}, {q:g}): it records {recorded}")
    return [x.pq[x.pq_pairs.index((p, q))] for x in levels]


def _turns(levels: Sequence[LevelRecord], indices: Sequence[float], tolerance: float) -> TurningPoints:
    return turning_points([x.density for x in levels], indices, tolerance=tolerance)
