"""At each density, from dense to sparse: the difference from dense and its lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from sparsight.compare.statistics.curves import at
from sparsight.compare.verdict.history import History
from sparsight.numerics.intervals import both_sides, difference, lower_bound, paired_shares
from sparsight.records.record import LevelRecord
from sparsight.records.verdict import Step
from sparsight.report.run_view import judged
from sparsight.train.metric import ACCURACY

SAMPLES = "the same validation samples, answer by answer"
APART = "validation samples, as if each network had its own"
SEEDS = "the seeds, each relative to its own dense network on validation data"
NOTHING = "nothing: a single run has no bound for a metric that is not a share"


def walk(runs: Sequence[History], confidence: float) -> tuple[str, tuple[Step, ...]]:
    """The basis of the bounds, and the steps: over the seeds of several runs, or the samples of one."""
    return _over_seeds(runs, confidence) if len(runs) > 1 else _over_samples(runs[0], confidence)


# -- one run -------------------------------------------------------------------------------------------------------


def _over_samples(run: History, confidence: float) -> tuple[str, tuple[Step, ...]]:
    pruned = [x for x in run.levels if x.id != run.dense.id]
    flips = [_flips(run, x) for x in pruned]
    if all(each is not None for each in flips):
        return SAMPLES, tuple(
            Step(x.density, x.level, (mine - other) / n, paired_shares(mine, other, n, both_sides(confidence))[0], n)
            for x, (mine, other, n) in zip(pruned, (each for each in flips if each), strict=True)
        )
    return APART if run.dense.metric.share else NOTHING, tuple(_apart(run, x, confidence) for x in pruned)


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
        for record in run.levels:
            if record.id != run.dense.id:
                by_level.setdefault(record.level, []).append(record.density)
    places = {median(densities): level for level, densities in by_level.items()}
    return sorted(places.items(), reverse=True)
