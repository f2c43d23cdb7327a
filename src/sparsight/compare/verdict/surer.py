"""What to run for a surer verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from scipy.special import stdtrit

from sparsight.compare.statistics.curves import at
from sparsight.compare.statistics.sparsest import Sparsest
from sparsight.compare.verdict.history import History
from sparsight.numerics import format as words
from sparsight.numerics.intervals import mean
from sparsight.records.verdict import Step

MOST_SEEDS = 100


def surer(
    runs: Sequence[History], steps: Sequence[Step], found: Sparsest, margin: float, confidence: float
) -> tuple[str, ...]:
    """What to run next, the most informative first."""
    more = (*_samples(runs), *_seeds(runs, steps, found, margin, confidence))
    return (*more, *_levels(runs, found), *_measures(runs, found))


def _samples(runs: Sequence[History]) -> Iterator[str]:
    run = runs[0]
    if len(runs) == 1 and run.dense.metric.share and f"validation {run.dense.id}" not in run.predictions:
        yield "sparsight evaluate on the run, which compares networks answer by answer and narrows the bounds"


def _seeds(
    runs: Sequence[History], steps: Sequence[Step], found: Sparsest, margin: float, confidence: float
) -> Iterator[str]:
    if len(runs) == 1:
        yield "at least two more seeds: one run describes this network, not the method"
        return
    step = next((x for x in steps if x.density == found.refused), None)
    if step is None or not step.difference > -margin:
        return
    read = [at(run.points, step.density, log=True) for run in runs]
    over = mean([each.value for each in read if each is not None])
    if over is None or not over.deviation:
        return
    n = enough(over.mean + margin, over.deviation, confidence)
    more = f"about {n - len(runs)} more seeds" if n is not None and n > len(runs) else f"more than {MOST_SEEDS} seeds"
    yield f"{more}, which would show {words.percent(step.density)} to be within if their mean and spread stay the same"


def enough(gap: float, deviation: float, confidence: float) -> int | None:
    """The least number of seeds n for which t(confidence, n - 1) deviation / sqrt(n) <= gap; None beyond 100."""
    for n in range(2, MOST_SEEDS + 1):
        if float(stdtrit(n - 1, confidence)) * deviation / math.sqrt(n) <= gap:
            return n
    return None


def _levels(runs: Sequence[History], found: Sparsest) -> Iterator[str]:
    if found.density is not None and found.refused is None:
        yield "sparser levels: the sparsest network so far is still within"
    elif found.density is not None and found.refused is not None and found.refused < 0.8 * found.density:
        low, high = words.percent(found.refused), words.percent(found.density)
        yield f"levels between {high} and {low} density, where the limit lies"
    elif found.density is None and found.refused is not None:
        yield f"levels between dense and {words.percent(found.refused)} density, or more epochs a level"


def _measures(runs: Sequence[History], found: Sparsest) -> Iterator[str]:
    record = runs[0].down_to(found.density)
    if record is not None and not any(row.id == record.id and row.metric == "speedup" for row in runs[0].rows):
        yield "sparsight evaluate --metrics latency on the target machine"
    if record is not None and record.id not in runs[0].predictions and len(runs) > 1:
        yield "sparsight evaluate on the runs, to see which classes pay"
