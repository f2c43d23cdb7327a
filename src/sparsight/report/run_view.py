"""A run's records, sorted by their role in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from sparsight.records.journal import Event
from sparsight.records.record import Evaluated, Evaluation, LevelRecord, LevelTimes, RunRecord
from sparsight.train.metric import ACCURACY, Metric


@dataclass(frozen=True)
class Story:
    """The records of a run, by role."""

    run: RunRecord
    levels: tuple[LevelRecord, ...]  # role "level", in order
    control: LevelRecord | None  # the dense network, trained for as many epochs as the whole run
    dense: LevelRecord | None  # first level that keeps every weight
    chosen: LevelRecord | None  # the chosen level
    tests: Mapping[str, Evaluated]  # by `key`
    times: Mapping[str, LevelTimes]  # by `key`

    @property
    def records(self) -> tuple[LevelRecord, ...]:
        """The levels, then the control if there is one."""
        return self.levels if self.control is None else (*self.levels, self.control)

    @property
    def metric(self) -> Metric:
        """The metric that networks are chosen by."""
        return self.records[0].metric if self.records else ACCURACY

    @property
    def pair(self) -> tuple[float, float] | None:
        """The first (p, q) at which the PQ index was recorded, or None."""
        return next((x.pq_pairs[0] for x in self.records if x.pq_pairs), None)

    @property
    def index_name(self) -> str:
        """The name of the PQ index at `pair`."""
        return f"PQ index ({self.pair[0]:g}, {self.pair[1]:g})" if self.pair else "PQ index"

    def test_value(self, record: LevelRecord | None, metric: Metric | None = None) -> float | None:
        """A metric of exactly this network (same role, level and content id) on the test split, by default `metric`;
        None if not evaluated."""
        entry = None if record is None else self.tests.get(key(record))
        return entry.value(metric or self.metric) if record and entry and entry.id == record.id else None


def key(record: LevelRecord | LevelTimes | Evaluated) -> str:
    """Name of a record within its run: "level 3" or "control 0"."""
    return f"{record.role} {record.level}"


def name(record: LevelRecord | Event) -> str:
    """The name to show: "level 3" or "dense control"."""
    return "dense control" if record.role == "control" else f"level {record.level}"


def story(
    run: RunRecord,
    levels: Sequence[LevelRecord],
    times: Sequence[LevelTimes] = (),
    evaluation: Evaluation | None = None,
) -> Story:
    """Sort records into levels, control, dense and chosen. Any of them may be missing."""
    ladder = tuple(sorted((x for x in levels if x.role == "level"), key=lambda x: x.level))
    chosen = run.chosen
    return Story(
        run=run,
        levels=ladder,
        control=next((x for x in levels if x.role == "control"), None),
        dense=next((x for x in ladder if x.kept == x.total), None),
        chosen=next((x for x in ladder if chosen is not None and x.level == chosen.level), None),
        tests={key(x): x for x in (evaluation.entries if evaluation else ())},
        times={key(x): x for x in times},
    )


def pq_of(record: LevelRecord, pair: tuple[float, float] | None) -> float | None:
    """PQ index of all alive weights at `pair`; None if it was not recorded."""
    return dict(zip(record.pq_pairs, record.pq, strict=False)).get(pair) if pair else None


def judged(record: LevelRecord) -> tuple[float, int] | None:
    """The level's share on the validation split and its number of answers; None if either is unknown."""
    samples = record.observations[-1].samples if record.observations else None
    value = record.value
    return (value, samples) if record.metric.share and samples and value is not None and 0 <= value <= 1 else None


def is_finite(value: float | None) -> TypeGuard[float]:
    """True for a number that can be drawn."""
    return value is not None and math.isfinite(value)
