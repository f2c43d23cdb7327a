"""Recorded evidence for or against pruning further than the network found, and what to run to be surer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

from scipy.special import stdtrit

from sparsight.compare.statistics import Sparsest, at, knee
from sparsight.compare.verdict.history import History
from sparsight.measure.pq.turning_points import turning_points
from sparsight.numerics import format as words
from sparsight.numerics.intervals import mean
from sparsight.records.record import LevelRecord
from sparsight.records.verdict import Evidence, Step

Says = Literal["for", "against", "open"]


def evidence(runs: Sequence[History], density: float | None, margin: float) -> tuple[Evidence, ...]:
    """All recorded evidence, relative to the network of this density (None: 1)."""
    here = 1.0 if density is None else density
    found = (*_minimum(runs, here), *_bound(runs, here), *_certificate(runs, here), *_knee(runs, here, margin))
    return (*found, *_flow(runs, here), *_collapse(runs, here))


def _says(place: float, here: float) -> Says:
    """A landmark at a lower density is evidence for going further; one already passed, against."""
    return "for" if place < here else "against" if place > here else "open"


def _range(places: Sequence[float]) -> str:
    low, high = words.percent(min(places)), words.percent(max(places))
    return low if low == high else f"{low} to {high}"


def _in(count: int, runs: Sequence[History]) -> str:
    return "" if len(runs) == 1 else f" in {count} of {len(runs)} runs"


def _minimum(runs: Sequence[History], here: float) -> Iterator[Evidence]:
    """The confirmed minimum of each PQ index: up to it, pruning makes the remaining weights more alike."""
    for pair in runs[0].dense.pq_pairs:
        named, places = f"the PQ index ({pair[0]:g}, {pair[1]:g})", []
        recorded = 0
        for run in runs:
            levels = [x for x in run.levels if pair in x.pq_pairs]
            if len(levels) < 2:
                continue
            recorded += 1
            indices = [x.pq[x.pq_pairs.index(pair)] for x in levels]
            turns = turning_points([x.density for x in levels], indices)
            if turns.minimum is not None and turns.confirmed:
                places.append(levels[turns.minimum].density)
        if places:
            said = f"{named} is lowest at {_range(places)} density{_in(len(places), runs)}"
            yield Evidence("pq-minimum", _says(median(places), here), said)
        elif recorded:
            yield Evidence("pq-minimum", "open", f"{named} has no confirmed minimum")


def _bound(runs: Sequence[History], here: float) -> Iterator[Evidence]:
    """SAP's bound for the network found, computed when the next level was pruned."""
    found = []
    for run in runs:
        level = run.down_to(here) or run.dense
        after = next((x for x in run.levels if x.parent == level.id), None)
        bounds = [group.r for group in after.groups] if after is not None else []
        whole = after is not None and sum(group.d for group in after.groups) == level.kept
        if whole and bounds and all(r is not None for r in bounds):
            found.append((sum(r or 0.0 for r in bounds) / level.total, level.density))
    if found:
        least = [share for share, _ in found]
        room = all(share < density for share, density in found)
        said = f"the bound of its PQ index asks to keep at least {_range(least)} of the weights"
        yield Evidence("pq-bound", "for" if room else "open", said)


def _certificate(runs: Sequence[History], here: float) -> Iterator[Evidence]:
    """SiPP's certificate of the network found, from the first run with one; later training makes it void."""
    for run in runs:
        record = run.down_to(here)
        rows = {row.metric: row for row in run.rows if record is not None and row.id == record.id}
        held, delta = rows.get("certified"), rows.get("certificate_delta")
        if held is not None and delta is not None and held.n:
            when = " of the network before training" if held.group else ""
            said = (
                f"SiPP's certificate{when} bounds the outputs for {round(held.value * held.n):,} of {held.n:,} inputs, "
                f"except with probability at most {delta.value:.1g}"
            )
            yield Evidence("certificate", "for" if held.value == 1 and not held.group else "open", said)
            return


def _knee(runs: Sequence[History], here: float, margin: float) -> Iterator[Evidence]:
    """The knee of each measured curve that falls by more than the margin: flatter ones bend by noise."""
    curves = [run.points for run in runs if len(run.levels) >= 4]
    falls = [curve for curve in curves if curve[0][1] - curve[-1][1] > margin]
    places = [found for curve in falls if (found := knee(curve)) is not None]
    name = runs[0].dense.metric.name
    if places:
        said = f"the curve of validation {name} bends at {_range(places)} density{_in(len(places), runs)}"
        yield Evidence("knee", _says(median(places), here), said)
    elif curves:
        yield Evidence("knee", "open", f"the curve of validation {name} has no knee")


def _flow(runs: Sequence[History], here: float) -> Iterator[Evidence]:
    """Distances of flows to the reference, at the end of sparser levels, otherwise of the network found."""
    for name in dict.fromkeys(n for run in runs for x in run.levels for n in _distances(x)):
        now, after = [], []
        for run in runs:
            for record in run.levels:
                pair = _distances(record).get(name)
                if pair is not None and record.density == here:
                    now.append(pair[0] <= pair[1])
                elif pair is not None and record.density < here:
                    after.append(pair[0] <= pair[1])
        if after:
            kept = sum(after)
            said = f"{name} comes within its threshold at {kept} of {words.plural(len(after), 'sparser level')}"
            yield Evidence("flow", "for" if kept == len(after) else "open" if kept else "against", said)
        elif now:
            said = f"{name} is {'within' if all(now) else 'beyond'} its threshold there"
            yield Evidence("flow", "for" if all(now) else "against", said)


def _distances(record: LevelRecord) -> dict[str, tuple[float, float]]:
    """(distance, threshold) of each flow at the level's last evaluation."""
    seen = record.observations[-1].values if record.observations else {}
    names = [name.removeprefix("distance:") for name in seen if name.startswith("distance:") and "flow" in name]
    return {n: (seen[f"distance:{n}"], seen[f"threshold:{n}"]) for n in names if f"threshold:{n}" in seen}


def _collapse(runs: Sequence[History], here: float) -> Iterator[Evidence]:
    """Whether this level or a sparser one has an empty layer or no path left."""
    broken = [x.density for run in runs for x in run.levels if x.collapsed or (x.collapse and x.collapse.disconnected)]
    if broken:
        said = f"from {words.percent(max(broken))} density on, layers are empty or no path is left"
        yield Evidence("collapse", "against" if max(broken) >= here else "open", said)


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
    more = f"more than {MOST_SEEDS} seeds"
    if n is not None and n > len(runs):
        more = f"about {words.plural(n - len(runs), 'more seed')}"
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
    if record is not None and not runs[0].measured(record, "speedup"):
        yield "sparsight evaluate --metrics latency on the target machine"
    if record is not None and record.id not in runs[0].predictions and len(runs) > 1:
        yield "sparsight evaluate on the runs, to see which classes pay"
