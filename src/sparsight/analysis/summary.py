"""The summary of a group of weights, from its sums and its sample, or from all its magnitudes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsight.analysis.reader import magnitudes, source_of
from sparsight.analysis.records import QUANTILES, Keep, Measure, Neurons, Summary
from sparsight.analysis.sampled import alive, band, droppable, gini
from sparsight.checkpoint.entry import Entry
from sparsight.measure.pq import PowerSums, RowSums, prune_count, retained_bound


@dataclass(frozen=True)
class SummaryRequest:
    """What an analysis should compute."""

    pairs: tuple[tuple[float, float], ...]
    etas: tuple[float, ...]
    gamma: float
    beta: float
    exact: bool
    sample: bool  # whether to compute Gini index, exact eta and magnitudes
    budget: int

    @property
    def exponents(self) -> tuple[float, ...]:
        """All exponents needed, with 1 and 2 for Hoyer's measure and the Gini index."""
        return tuple(sorted({e for pair in self.pairs for e in pair} | {1.0, 2.0}))


def mass(sums: PowerSums, e: float) -> float:
    """sum (|w| / scale)^e."""
    at = sums.exponents.index(e)
    return sums.sums[at] + sums.carries[at]


@dataclass(frozen=True, eq=False)
class Sample:
    """Magnitudes from a group: independent draws, or all its weights if `whole`."""

    magnitudes: np.ndarray  # ascending
    whole: bool


@dataclass(frozen=True)
class _Found:
    """Gini index and its error bound; (least, probable, most) weights to drop at each (p, eta); octaves."""

    gini: float | None = None
    error: float | None = None
    dropped: Mapping[tuple[float, float], tuple[int, int, int]] = field(default_factory=dict)
    octaves: tuple[tuple[int, int], ...] = ()
    draws: int | None = None


def summarise(sums: PowerSums, sample: Sample | None, entries: Sequence[Entry], asked: SummaryRequest) -> Summary:
    """The summary of a group from the sums of its nonzero weights.

    `sample` is None if nothing needs one. Reads `entries` again for exact numbers.
    """
    cases = sorted({(p, eta) for p, _ in asked.pairs for eta in asked.etas})
    if sample is None:
        found = _Found()
    elif not sums.defined:
        found = _Found(0.0, 0.0)
    elif sample.whole or asked.exact:
        parts = [alive(sample.magnitudes)] if sample.whole else ranked(entries, asked.budget)
        found = _exactly(sums, parts, cases)
    else:
        found = _from_sample(sums, sample.magnitudes, cases)
    measures = tuple(_measure(sums, p, q, asked, found) for p, q in asked.pairs)
    count, smallest = sums.count + sums.zeros, 0.0 if sums.zeros else sums.smallest
    of = (found.gini, found.error, found.octaves, found.draws)
    return Summary(count, sums.zeros, smallest, sums.largest, sums.defined, measures, _hoyer(sums), *of)


def _from_sample(sums: PowerSums, magnitudes: np.ndarray, cases: Sequence[tuple[float, float]]) -> _Found:
    seen = band(magnitudes, sums.smallest, sums.largest, sums.scale)
    least, value, most = gini(seen, mass(sums, 1.0) / sums.count)
    dropped = {}
    for p, eta in cases:
        mean = mass(sums, p) / sums.count
        shares = droppable(seen, p, mean, eta / (1 + eta) * mean) if eta > 0 else (0.0,) * 3
        low, near, high = (math.floor(v * sums.count) for v in shares)
        dropped[p, eta] = (low, near, high)
    found = octaves(magnitudes)
    ends = np.rint(np.cumsum([*found.values()]) * (sums.count / max(sum(found.values()), 1))).astype(np.int64)
    counts = zip(found, np.diff(ends, prepend=0).tolist(), strict=True)
    return _Found(value, max(most - value, value - least), dropped, tuple(counts), len(magnitudes))


def _exactly(sums: PowerSums, parts: Iterable[np.ndarray], cases: Sequence[tuple[float, float]]) -> _Found:
    some = [case for case in cases if case[1] > 0]
    goals = [(p, eta / (1 + eta) * mass(sums, p)) for p, eta in some]
    gini, droppable, found = of_ranked(parts, sums.count, mass(sums, 1.0), sums.scale, goals)
    dropped = dict.fromkeys(cases, (0, 0, 0)) | {case: (k, k, k) for case, k in zip(some, droppable, strict=True)}
    return _Found(gini, 0.0, dropped, found)


def _measure(sums: PowerSums, p: float, q: float, asked: SummaryRequest, found: _Found) -> Measure:
    index, d = sums.index(p, q), sums.count
    keeps = []
    for eta in asked.etas:
        bound = float(retained_bound(d, index, p, q, eta))
        prune = prune_count(d, bound, asked.gamma, asked.beta) if sums.defined else 0
        exact = low = high = None
        if found.dropped and d:
            least, near, most = found.dropped[p, eta]
            exact, low, high = 1 - near / d, 1 - most / d, 1 - least / d
        keeps.append(Keep(eta, bound, bound / d if d else 0.0, prune, exact, low, high))
    return Measure(p, q, index, sums.effective(p, q), tuple(keeps))


def _hoyer(sums: PowerSums) -> float:
    """(sqrt(d) - |w|_1 / |w|_2) / (sqrt(d) - 1), from the PQ index at (1, 2): |w|_1 / |w|_2 = sqrt(d) (1 - I)."""
    if sums.count < 2:
        return 0.0
    root = math.sqrt(sums.count)
    return min(root * sums.index(1.0, 2.0) / (root - 1), 1.0)


def neurons(rows: RowSums, asked: SummaryRequest) -> tuple[Neurons, ...]:
    """For each (p, q): quantiles over the rows, and the weights that SAP would remove in neuron scope."""
    found = []
    for p, q in asked.pairs:
        shares = np.array([math.exp(-q / (q - p) * math.log1p(eta)) for eta in asked.etas])
        index, removed = rows.neurons(p, q, shares, asked.gamma, asked.beta)
        at = _quantiles(index) if len(index) else (0.0,) * len(QUANTILES)
        found.append(Neurons(p, q, len(rows), len(rows) - len(index), at, tuple(removed.tolist())))
    return tuple(found)


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """`numpy.quantile` at QUANTILES, without its slow special cases."""
    ranked, places = np.sort(values), np.array(QUANTILES) * (len(values) - 1)
    return tuple(np.interp(places, np.arange(len(values)), ranked).tolist())


# -- exact: all magnitudes in ascending order, in as many passes as the memory requires ------------------------------

_STEP = 1 << 18  # weights read at once


def ranked(entries: Sequence[Entry], budget: int) -> Iterator[np.ndarray]:
    """The entries' nonzero magnitudes in ascending order, in parts that are overwritten later.

    Each pass over the entries keeps the smallest that earlier passes did not, as many as fit half of the budget.
    """
    dtype = np.dtype(np.float64 if any(e.dtype == "float64" for e in entries) else np.float32)
    room = np.empty(max(min(budget // 2 // dtype.itemsize, sum(e.count for e in entries)), 1), dtype)
    done = 0.0
    while done < math.inf:
        size, end, ties = 0, math.inf, 0  # room[:size] holds magnitudes below `end`; `ties` others equal it
        for x in _magnitudes(entries):
            x = x[x > done]
            while len(x):
                ties += int(np.count_nonzero(x == end))
                x = x[x < end]
                n = min(len(x), len(room) - size)
                room[size : size + n], x, size = x[:n], x[n:], size + n
                if len(x):  # room is full: drop the upper half
                    room.partition(size // 2)
                    end = float(room[size // 2])
                    ties = int(np.count_nonzero(room == end))
                    below = room[: size // 2][room[: size // 2] < end]
                    size = len(below)
                    room[:size] = below
        room[:size].sort()
        yield from (room[at : min(at + _STEP, size)] for at in range(0, size, _STEP))
        yield from (np.full(min(ties - at, _STEP), end, dtype) for at in range(0, ties, _STEP))
        done = end


def _magnitudes(entries: Sequence[Entry]) -> Iterator[np.ndarray]:
    for entry in entries:
        with ExitStack() as stack:
            files: dict[Path, int] = {}
            source = source_of(entry, files, stack)
            for at in range(0, entry.count, _STEP):
                yield magnitudes(source.read(at, min(at + _STEP, entry.count)), entry.dtype)


def of_ranked(
    parts: Iterable[np.ndarray], count: int, mass: float, unit: float, goals: Sequence[tuple[float, float]]
) -> tuple[float, list[int], tuple[tuple[int, int], ...]]:
    """Gini index, number of smallest magnitudes that meet each goal, and octaves, from `parts` in ascending order.

    The `count` magnitudes are above 0 and sum to `mass` in `unit`. A goal (p, m) is a total p-mass of at most m.
    """
    seen, terms, found = 0, [], Counter()
    sums, droppable = [0.0] * len(goals), [0] * len(goals)
    for part in parts:
        x = part.astype(np.float64) / unit
        ranks = np.arange(seen + 1, seen + len(x) + 1, dtype=np.float64)
        terms.append(float(np.dot(2 * ranks - (count + 1), x)))
        for i, (p, goal) in enumerate(goals):
            if droppable[i] == seen:  # all earlier parts meet the goal
                held = sums[i] + np.cumsum(x**p)
                droppable[i] += int(np.searchsorted(held, goal, side="right"))
                sums[i] = float(held[-1])
        seen += len(x)
        found.update(octaves(part))
    gini = min(max(math.fsum(terms) / (count * mass), 0.0), 1.0) if mass > 0 else 0.0
    return gini, droppable, tuple(sorted(found.items()))


def octaves(x: np.ndarray) -> dict[int, int]:
    """The number of these ascending magnitudes in each nonempty [2^e, 2^(e+1)), by e; zeros do not count."""
    exponents = np.frexp(x[np.searchsorted(x, x.dtype.type(0), side="right") :])[1] - 1
    if not len(exponents):
        return {}
    counts = np.bincount(exponents - exponents[0])
    (some,) = counts.nonzero()
    return dict(zip((some + exponents[0]).tolist(), counts[some].tolist(), strict=True))
