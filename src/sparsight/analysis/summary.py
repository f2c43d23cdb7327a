"""From sums, bins and ranks to what a record says of a group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsight.analysis.bins import Bins, droppable, gini
from sparsight.analysis.exact import Ranking, ranked
from sparsight.analysis.records import QUANTILES, Keep, Measure, Neurons, Summary
from sparsight.analysis.sampled import droppable_of_sample, envelope, gini_of_sample
from sparsight.checkpoint.entry import Entry
from sparsight.pq import PowerSums, RowSums, prune_count, retained_bound
from sparsight.pq.sums import effective_of, index_of


@dataclass(frozen=True)
class Asked:
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


@dataclass(frozen=True)
class Measured:
    """PQ indices and effective counts of a group, by (p, q); the index at (1, 2) is Hoyer's measure."""

    index: Mapping[tuple[float, float], float]
    effective: Mapping[tuple[float, float], float]


def measured(lines: np.ndarray, asked: Asked) -> list[Measured]:
    """Of many groups at once, one line each: of one alone it would take as long as of all."""
    pairs = dict.fromkeys((*asked.pairs, (1.0, 2.0)))
    index = {pair: index_of(lines, asked.exponents, *pair).tolist() for pair in pairs}
    effective = {pair: effective_of(lines, asked.exponents, *pair).tolist() for pair in asked.pairs}
    return [
        Measured({k: v[i] for k, v in index.items()}, {k: v[i] for k, v in effective.items()})
        for i in range(len(lines))
    ]


def mass(sums: PowerSums, e: float) -> float:
    """sum (|w| / scale)^e."""
    at = sums.exponents.index(e)
    return sums.sums[at] + sums.carries[at]


def summarise(sums: PowerSums, known: Measured, bins: Bins, entries: Sequence[Entry], asked: Asked) -> Summary:
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
    measures = tuple(_measure(sums, known, p, q, asked, dropped) for p, q in asked.pairs)
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
        _hoyer(sums.count, known),
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
    asked: Asked,
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
    known: Measured,
    p: float,
    q: float,
    asked: Asked,
    dropped: dict[tuple[float, float], tuple[int, int, int]],
) -> Measure:
    index, d = known.index[p, q], sums.count
    keeps = []
    for eta in asked.etas:
        bound = float(retained_bound(d, index, p, q, eta))
        prune = prune_count(d, bound, asked.gamma, asked.beta) if sums.defined else 0
        exact = low = high = None
        if dropped and d:
            least, near, most = dropped[p, eta]
            exact, low, high = 1 - near / d, 1 - most / d, 1 - least / d
        keeps.append(Keep(eta, bound, bound / d if d else 0.0, prune, exact, low, high))
    return Measure(p, q, index, known.effective[p, q], tuple(keeps))


def _hoyer(count: int, known: Measured) -> float:
    """(sqrt(d) - |w|_1 / |w|_2) / (sqrt(d) - 1), by the PQ index at (1, 2): |w|_1 / |w|_2 = sqrt(d) (1 - I)."""
    if count < 2:
        return 0.0
    root = math.sqrt(count)
    return min(root * known.index[1.0, 2.0] / (root - 1), 1.0)


def neurons(tensors: Sequence[RowSums], asked: Asked) -> list[tuple[Neurons, ...]]:
    """Of each tensor, for each (p, q): quantiles over the rows, and what SAP would remove in neuron scope."""
    if not tensors:
        return []
    lines = np.concatenate([rows.lines for rows in tensors]) if len(tensors) > 1 else tensors[0].lines
    ends = np.cumsum([len(rows) for rows in tensors]).tolist()
    parts = [slice(end - len(rows), end) for rows, end in zip(tensors, ends, strict=True)]
    every = RowSums(asked.exponents, lines)
    defined, count = every.defined, every.count
    found: list[list[Neurons]] = [[] for _ in tensors]
    for p, q in asked.pairs:
        index = index_of(lines, asked.exponents, p, q)
        prunes = [np.where(defined, _prunes(count, index, p, q, eta, asked), 0) for eta in asked.etas]
        for own, part in zip(found, parts, strict=True):
            some = index[part][defined[part]]
            at = _quantiles(some) if len(some) else (0.0,) * len(QUANTILES)
            removed = tuple(int(c[part].sum()) for c in prunes)
            own.append(Neurons(p, q, part.stop - part.start, part.stop - part.start - len(some), at, removed))
    return [tuple(own) for own in found]


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """`numpy.quantile` at QUANTILES, without what it spends on its other cases: there may be many tensors."""
    ranked = np.sort(values)
    at = np.asarray(QUANTILES) * (len(ranked) - 1)
    return tuple(np.interp(at, np.arange(len(ranked)), ranked).tolist())


def _prunes(count: np.ndarray, index: np.ndarray, p: float, q: float, eta: float, asked: Asked) -> np.ndarray:
    """`prune_count` of many groups."""
    bound = count * math.exp(-q / (q - p) * math.log1p(eta)) * (1 - index) ** (p * q / (q - p))
    goal = np.minimum(asked.gamma * (count - bound), asked.beta * count)
    near = np.round(goal)
    whole = np.where(np.abs(goal - near) <= 1e-9 * np.maximum(1, count), near, np.floor(goal))
    return np.clip(whole, 0, count)
