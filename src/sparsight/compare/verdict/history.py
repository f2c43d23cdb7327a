"""What a verdict reads from each run, and how far each density is from dense."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from torch import Tensor

from sparsight.compare.statistics import at
from sparsight.numerics.intervals import both_sides, difference, lower_bound, paired_shares
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord, LevelTimes, RunRecord, dense_of, to_json
from sparsight.records.rows import Row, stored_predictions, stored_rows
from sparsight.records.verdict import Step
from sparsight.report.run_view import judged
from sparsight.train.metric import ACCURACY


@dataclass(frozen=True, eq=False)
class History:
    """The records of a run."""

    path: Path
    run: RunRecord
    records: tuple[LevelRecord, ...]  # levels and control
    times: tuple[LevelTimes, ...]
    dense: LevelRecord
    predictions: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    @property
    def levels(self) -> tuple[LevelRecord, ...]:
        """The evaluated levels, from dense to sparse."""
        judged = [x for x in self.records if x.role == "level" and x.value is not None]
        return tuple(sorted(judged, key=lambda x: -x.density))

    def worth(self, record: LevelRecord) -> float:
        """The level's metric minus the dense network's; larger is better."""
        return record.worth - self.dense.worth

    @property
    def pruned(self) -> list[LevelRecord]:
        """The evaluated levels except the dense one."""
        return [x for x in self.levels if x.id != self.dense.id]

    def measured(self, record: LevelRecord | None, metric: str) -> dict[str, float]:
        """The values of a metric that `evaluate` stored for a network, by group."""
        return {row.group: row.value for row in self.rows if record and row.id == record.id and row.metric == metric}

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x.density, self.worth(x)) for x in self.levels]

    def down_to(self, density: float | None) -> LevelRecord | None:
        """The sparsest pruned level of at least this density; None for None, or without such a level."""
        return next((x for x in reversed(self.pruned) if density is not None and x.density >= density), None)


def read(path: Path) -> History:
    """Read a run. Raises: ValueError if it has not ended or lacks a dense or a pruned network; as `RunFolder.open`."""
    with RunFolder.open(path) as folder:
        run, records = folder.record, folder.levels()
        if run.status != "finished":
            raise ValueError(f"no verdict on {path}: the run is {run.status}; finish it first (--resume)")
        dense = dense_of(records)
        if dense is None or dense.value is None:
            raise ValueError(
                f"no verdict on {path}: it has no dense network to compare with; run it with a dense level or --control"
            )
        found = History(path, run, records, folder.times(), dense, stored_predictions(folder), stored_rows(folder))
    if not any(x.kept < x.total for x in found.levels):
        raise ValueError(f"no verdict on {path}: no pruned level was evaluated on validation data")
    return found


def setting(run: RunRecord) -> str:
    """A key that runs share if they differ only in their seed."""
    arguments = {name: value for name, value in to_json(run.arguments).items() if name != "seed"}
    return json.dumps([run.recipe, arguments, run.model.get("spec"), run.data.get("name")], sort_keys=True)


def grouped(runs: Sequence[History]) -> list[list[History]]:
    """The runs grouped by setting, in order of appearance, each group sorted by seed."""
    by: dict[str, list[History]] = {}
    for each in runs:
        by.setdefault(setting(each.run), []).append(each)
    return [sorted(group, key=lambda each: each.run.seed) for group in by.values()]


SAMPLES = "the same validation samples, answer by answer"
APART = "validation samples, as if each network had its own"
SEEDS = "the seeds, each relative to its own dense network on validation data"
NOTHING = "nothing: a single run has no bound for a metric that is not a share"


def walk(runs: Sequence[History], confidence: float) -> tuple[str, tuple[Step, ...]]:
    """The basis of the bounds, and the steps: over the seeds of several runs, or the samples of one."""
    return _over_seeds(runs, confidence) if len(runs) > 1 else _over_samples(runs[0], confidence)


# -- one run -------------------------------------------------------------------------------------------------------


def _over_samples(run: History, confidence: float) -> tuple[str, tuple[Step, ...]]:
    flips = [_flips(run, x) for x in run.pruned]
    if all(each is not None for each in flips):
        return SAMPLES, tuple(
            Step(x.density, x.level, (mine - other) / n, paired_shares(mine, other, n, both_sides(confidence))[0], n)
            for x, (mine, other, n) in zip(run.pruned, (each for each in flips if each), strict=True)
        )
    return APART if run.dense.metric.share else NOTHING, tuple(_apart(run, x, confidence) for x in run.pruned)


def _flips(run: History, record: LevelRecord) -> tuple[int, int, int] | None:
    """Validation samples that only this network gets right, that only dense does, and all; None if unknown."""
    named = [f"validation {x}" for x in (record.id, run.dense.id, "labels")]
    if record.metric != ACCURACY or any(name not in run.predictions for name in named):
        return None
    mine, dense, labels = (run.predictions[name] for name in named)
    right, before = mine == labels, dense == labels
    return int((right & ~before).sum()), int((before & ~right).sum()), len(labels)


def _apart(run: History, record: LevelRecord, confidence: float) -> Step:
    mine, dense = judged(record), judged(run.dense)
    if mine is None or dense is None:
        return Step(record.density, record.level, run.worth(record), None, None)
    n, sides = min(mine[1], dense[1]), both_sides(confidence)
    low, high = difference(mine[0], dense[0], n, sides)
    lower = low if record.metric.better == "higher" else -high
    return Step(record.density, record.level, run.worth(record), lower, n)


# -- several seeds -------------------------------------------------------------------------------------------------


def _over_seeds(runs: Sequence[History], confidence: float) -> tuple[str, tuple[Step, ...]]:
    """At the median density of each pruned level over the seeds, interpolating each run there."""
    found = []
    for density, level in _places(runs):
        read = [at(run.points, density, log=True) for run in runs]
        values = [each.value for each in read if each is not None]
        if not values:
            continue
        interpolated = any(each is not None and each.between is not None for each in read)
        bound = lower_bound(values, confidence)
        found.append(Step(density, None if interpolated else level, fmean(values), bound, len(values), interpolated))
    return SEEDS, tuple(found)


def _places(runs: Sequence[History]) -> list[tuple[float, int | None]]:
    by_level: dict[int, list[float]] = {}
    for run in runs:
        for record in run.pruned:
            by_level.setdefault(record.level, []).append(record.density)
    places = {median(densities): level for level, densities in by_level.items()}
    return sorted(places.items(), reverse=True)
