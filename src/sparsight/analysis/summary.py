"""From sums, bins and ranks to what a record says of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsight.analysis.exact import Ranking, ranked
from sparsight.analysis.histogram import Bins, droppable, gini
from sparsight.analysis.records import QUANTILES, Keep, Measure, Neurons, Summary
from sparsight.analysis.sampled import droppable_of_sample, envelope, gini_of_sample
from sparsight.checkpoint.entry import Entry
from sparsight.measure.pq import PowerSums, RowSums, prune_count, retained_bound
from sparsight.numerics.kernels.jit import jit

_SHARES = np.array(QUANTILES)


@dataclass(frozen=True)
class SummaryRequest:
    """What an analysis is asked to say."""

    pairs: tuple[tuple[float, float], ...]
    etas: tuple[float, ...]
    gamma: float
    beta: float
    exact: bool
    counted: bool  # whether there are histograms
    budget: int

    @property
    def exponents(self) -> tuple[float, ...]:
        """All that is needed: Hoyer's measure and the Gini index take 1 and 2."""
        return tuple(sorted({e for pair in self.pairs for e in pair} | {1.0, 2.0}))


def mass(sums: PowerSums, e: float) -> float:
    """sum (|w| / scale)^e."""
    at = sums.exponents.index(e)
    return sums.sums[at] + sums.carries[at]


def summarise(sums: PowerSums, bins: Bins, entries: Sequence[Entry], asked: SummaryRequest) -> Summary:
    unit = sums.scale
    value = error = None
    dropped: dict[tuple[float, float], tuple[int, int, int]] = {}
    if asked.counted:
        cases = sorted({(p, eta) for p, _ in asked.pairs for eta in asked.etas})
        if bins.every == 1:
            value, error = gini(bins, mass(sums, 1.0), unit)
            dropped = {(p, eta): droppable(bins, p, eta, mass(sums, p), unit) for p, eta in cases}
        else:
            value, error, dropped = _from_sample(sums, bins, cases)
        if asked.exact and sums.defined:
            value, error, dropped = _exactly(sums, bins, entries, asked, dropped)
    measures = tuple(_measure(sums, p, q, asked, dropped) for p, q in asked.pairs)
    smallest = sums.smallest if sums.count else 0.0
    octaves = bins.octaves() if asked.counted else ()
    every = bins.every if asked.counted else None
    return Summary(
        sums.count,
        sums.zeros,
        smallest,
        sums.largest,
        sums.defined,
        measures,
        _hoyer(sums),
        value,
        error,
        octaves,
        every,
    )


def _from_sample(
    sums: PowerSums, bins: Bins, cases: Sequence[tuple[float, float]]
) -> tuple[float, float, dict[tuple[float, float], tuple[int, int, int]]]:
    """Gini index, its error, and what may go at each (p, eta), where not every weight was counted."""
    seen = envelope(bins, sums.zeros, sums.smallest, sums.largest)
    value, error = gini_of_sample(bins, seen, mass(sums, 1.0) * sums.scale / sums.count)
    found = {}
    for p, eta in cases:
        goal = eta / (1 + eta) * mass(sums, p)
        some = eta > 0 and sums.defined
        known = (sums.zeros,) * 3
        found[p, eta] = droppable_of_sample(bins, seen, p, goal, sums.scale) if some else known
    return value, error, found


def _exactly(
    sums: PowerSums,
    bins: Bins,
    entries: Sequence[Entry],
    asked: SummaryRequest,
    dropped: dict[tuple[float, float], tuple[int, int, int]],
) -> tuple[float, float, dict[tuple[float, float], tuple[int, int, int]]]:
    cases = [case for case in dropped if case[1] > 0]
    goals = [(p, eta / (1 + eta) * mass(sums, p)) for p, eta in cases]
    ranking = Ranking(sums.count, mass(sums, 1.0), sums.scale, goals)
    for part in ranked(entries, bins, asked.budget):
        ranking.add(part)
    found = {case: (k, k, k) for case, k in zip(cases, ranking.droppable, strict=True)}
    return ranking.gini, 0.0, {**dropped, **found}


def _measure(
    sums: PowerSums,
    p: float,
    q: float,
    asked: SummaryRequest,
    dropped: dict[tuple[float, float], tuple[int, int, int]],
) -> Measure:
    index, d = sums.index(p, q), sums.count
    keeps = []
    for eta in asked.etas:
        bound = float(retained_bound(d, index, p, q, eta))
        prune = prune_count(d, bound, asked.gamma, asked.beta) if sums.defined else 0
        exact = low = high = None
        if dropped and d:
            least, near, most = dropped[p, eta]
            exact, low, high = 1 - near / d, 1 - most / d, 1 - least / d
        keeps.append(Keep(eta, bound, bound / d if d else 0.0, prune, exact, low, high))
    return Measure(p, q, index, sums.effective(p, q), tuple(keeps))


def _hoyer(sums: PowerSums) -> float:
    """(sqrt(d) - |w|_1 / |w|_2) / (sqrt(d) - 1), by the PQ index at (1, 2): |w|_1 / |w|_2 = sqrt(d) (1 - I)."""
    if sums.count < 2:
        return 0.0
    root = math.sqrt(sums.count)
    return min(root * sums.index(1.0, 2.0) / (root - 1), 1.0)


def neurons(rows: RowSums, asked: SummaryRequest) -> tuple[Neurons, ...]:
    """For each (p, q): quantiles over the rows, and what SAP would remove in neuron scope."""
    found = []
    for p, q in asked.pairs:
        shares = np.array([math.exp(-q / (q - p) * math.log1p(eta)) for eta in asked.etas])
        index, removed = rows.neurons(p, q, shares, asked.gamma, asked.beta)
        at = _quantiles(index) if len(index) else (0.0,) * len(QUANTILES)
        found.append(Neurons(p, q, len(rows), len(rows) - len(index), at, tuple(removed.tolist())))
    return tuple(found)


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """`numpy.quantile` at QUANTILES without its other cases, which take time. Sorts `values`."""
    values.sort()
    return tuple(_at_shares(values, _SHARES).tolist())


@jit
def _at_shares(ranked, shares):
    found = np.empty(len(shares))
    for k in range(len(shares)):
        place = shares[k] * (len(ranked) - 1)
        low = ranked[int(place)]
        found[k] = low + (place - int(place)) * (ranked[min(int(place) + 1, len(ranked) - 1)] - low)
    return found
