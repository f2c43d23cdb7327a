"""Comparisons over several seeds; the intervals are in `numerics.intervals`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean
from typing import Literal

from sparsight.numerics.intervals import Mean, paired

__all__ = ["At", "Candidate", "Pair", "PairedAt", "Ranking", "Sparsest", "at", "fronts", "holm", "knee", "paired_at"]
__all__ += ["ranking", "sparsest_within"]

Points = Iterable[tuple[float, float | None]]
"""(density or cost, value) of each level of a run, in any order; a level without a value may be None or NaN."""
Values = Mapping[int, float | None]
"""A value for each seed."""


_BEND = 0.1
"""A knee is at least this share of the curve's height above the chord."""


@dataclass(frozen=True)
class At:
    """A value of a run's curve, and the places of the two levels it was interpolated between; None: at a level."""

    value: float
    between: tuple[float, float] | None = None


def at(points: Points, place: float, *, log: bool = False) -> At | None:
    """The value of a run at a place: a density, a cost, or any other first coordinate of the points.

    The value of the level there (the last one given), otherwise interpolated linearly between its two neighbours. With
    `log`, interpolates in the logarithm of the place, as suits densities. None without a neighbour on each side, or,
    with `log`, if one of them is at 0.
    """
    known = dict(sorted((x, y) for x, y in points if y is not None and not math.isnan(y)))
    if place in known:
        return At(known[place])
    for low, high in pairwise(known):
        if low < place < high and not (log and low <= 0):
            scale = math.log if log else float
            share = (scale(place) - scale(low)) / (scale(high) - scale(low))
            return At(known[low] + share * (known[high] - known[low]), (low, high))
    return None


@dataclass(frozen=True)
class PairedAt:
    """The mean difference of two settings at a density or cost, and the interpolated seeds."""

    place: float
    difference: Mean | None  # None: no seed has both settings there
    interpolated: tuple[int, ...]  # seeds for which one or both settings had no level there
    missing: tuple[int, ...]  # seeds of both settings for which one does not reach the place


def paired_at(
    a: Mapping[int, Points], b: Mapping[int, Points], place: float, *, log: bool = False, confidence: float = 0.95
) -> PairedAt:
    """The `paired` difference a - b over seeds at a density or cost, with `at` for each run."""
    seeds = sorted(a.keys() & b.keys())
    found = {seed: (at(a[seed], place, log=log), at(b[seed], place, log=log)) for seed in seeds}
    both = {seed: (one, other) for seed, (one, other) in found.items() if one is not None and other is not None}
    mine = {seed: one.value for seed, (one, _) in both.items()}
    other = {seed: two.value for seed, (_, two) in both.items()}
    between = tuple(seed for seed, pair in both.items() if any(each.between for each in pair))
    return PairedAt(place, paired(mine, other, confidence), between, tuple(s for s in seeds if s not in both))


@dataclass(frozen=True)
class Sparsest:
    """The result of `sparsest_within`, as densities."""

    density: float | None  # of the sparsest network within the margin, if any
    refused: float | None  # the next one, with a bound below the margin or unknown; None: nothing sparser
    beyond: tuple[float, ...]  # sparser ones that would pass on their own


def sparsest_within(bounds: Mapping[float, float | None], margin: float) -> Sparsest:
    """The sparsest network with a lower bound of (its value - dense) of at least -margin, walking from dense to sparse.

    `bounds` are one-sided lower bounds at confidence c by density, over seeds (`lower_bound`) or of shares on the same
    samples (`paired_shares`, at 2c - 1). The walk ends at the first network that fails or has no bound. A network worse
    than the margin is therefore accepted with probability at most 1 - c, however many are tried: to accept any of them
    the walk must pass the first one. `beyond` lists sparser ones that would pass on their own.
    Raises: ValueError for a negative or NaN margin.
    Source: testing in a fixed sequence, Maurer, Hothorn and Lehmacher (1995).
    """
    if not margin >= 0:
        raise ValueError(f"the margin must be at least 0, got {margin}")
    order = sorted(bounds, reverse=True)
    passes = [(bound := bounds[x]) is not None and not math.isnan(bound) and bound >= -margin for x in order]
    end = passes.index(False) if False in passes else len(order)
    return Sparsest(
        density=order[end - 1] if end else None,
        refused=order[end] if end < len(order) else None,
        beyond=tuple(x for x, fine in zip(order[end:], passes[end:], strict=True) if fine),
    )


def knee(points: Iterable[tuple[float, float]]) -> float | None:
    """The density of the level highest above the straight line from the densest to the sparsest level.

    `points` are (density, value), larger values better; densities on a logarithmic axis, both axes scaled to [0, 1].
    None for fewer than 4 levels, a curve that does not fall, or one that is nowhere 0.1 above the line. Skips points of
    density 0 or with NaN.
    Source: Satopää et al., "Finding a 'kneedle' in a haystack", ICDCS Workshops 2011, without its smoothing.
    """
    known = sorted(((x, y) for x, y in points if x > 0 and math.isfinite(y)), reverse=True)
    if len(known) < 4 or known[0][0] == known[-1][0]:
        return None
    (first, top), (last, bottom) = known[0], known[-1]
    if not top > bottom:
        return None
    above = [(y - bottom) / (top - bottom) - 1 + math.log(first / x) / math.log(first / last) for x, y in known]
    highest = max(range(len(known)), key=above.__getitem__)
    return known[highest][0] if above[highest] >= _BEND else None


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Adjusted p-values, in the order given: the i-th smallest of m is max over j <= i of (m - j + 1) p_j, at most 1.

    Rejecting those <= alpha keeps the probability of any false rejection <= alpha, even for dependent tests. None and
    NaN stand for comparisons that could not be tested: they are returned unchanged and not counted.
    Raises: ValueError for a p-value outside [0, 1].
    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
    """
    tested = [i for i, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    wrong = next((p_values[i] for i in tested if not 0 <= (p_values[i] or 0.0) <= 1), None)
    if wrong is not None:
        raise ValueError(f"a p-value must be in [0, 1], got {wrong}")
    adjusted, least = list(p_values), 0.0
    for rank, i in enumerate(sorted(tested, key=lambda i: p_values[i] or 0.0)):
        least = max(least, min(1.0, (len(tested) - rank) * (p_values[i] or 0.0)))
        adjusted[i] = least
    return tuple(adjusted)


Place = Literal["front", "alike", "behind"]
"""On the front of the means; not distinguishable from it; clearly behind."""


@dataclass(frozen=True)
class Candidate:
    """A setting: its cost (density, bytes, seconds; lower is better) and its value for each seed (higher is better)."""

    name: str
    cost: float
    values: Mapping[int, float]

    @property
    def mean(self) -> float:
        return fmean(self.values.values())


def fronts(candidates: Sequence[Candidate], confidence: float = 0.95) -> dict[str, Place]:
    """The standing of each candidate, by name.

    "front": not dominated in cost and mean value. "behind": a candidate of no higher cost is clearly better, by
    Student's paired test over seeds, Holm-corrected over all such pairs. "alike": the rest, which the seeds cannot
    distinguish from the front, and any with NaN. With one seed, nothing is behind. Raises: ValueError for a candidate
    without a value, or two with one name.
    """
    names = [each.name for each in candidates]
    empty = next((each.name for each in candidates if not each.values), None)
    if empty is not None or len({*names}) < len(names):
        raise ValueError(f"{empty!r} has no value" if empty is not None else "two candidates have the same name")
    pairs = [(a, b) for a in candidates for b in candidates if a is not b and a.cost <= b.cost]
    tested = _tested([(a.values, b.values) for a, b in pairs], confidence)
    behind = {b.name for (_, b), (_, _, clear) in zip(pairs, tested, strict=True) if clear > 0}
    places: dict[str, Place] = {}
    for each in candidates:
        dominated = math.isnan(each.mean) or any(
            a.cost <= each.cost and a.mean >= each.mean and (a.cost, a.mean) != (each.cost, each.mean)
            for a in candidates
        )
        places[each.name] = "behind" if each.name in behind else "alike" if dominated else "front"
    return places


@dataclass(frozen=True)
class Pair:
    """Two settings: the paired difference a - b, its Holm-corrected p, and which one is better."""

    a: str
    b: str
    difference: Mean | None
    p_value: float | None
    better: str | None  # the clearly better one; None: indistinguishable


@dataclass(frozen=True)
class Ranking:
    """Settings from the best mean to the worst, and the range of ranks of each."""

    names: tuple[str, ...]
    places: Mapping[str, tuple[int, int]]  # best and worst possible rank
    pairs: tuple[Pair, ...]

    @property
    def undecided(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if pair.better is None)

    @property
    def tiers(self) -> tuple[tuple[str, ...], ...]:
        """Groups from best to worst: every setting of a group is clearly better than every one of the next."""
        apart = {frozenset((pair.a, pair.b)) for pair in self.pairs if pair.better is not None}
        found: list[tuple[str, ...]] = []
        group: tuple[str, ...] = ()
        for i, name in enumerate(self.names):
            group = (*group, name)
            rest = self.names[i + 1 :]
            if all(frozenset((one, other)) in apart for one in self.names[: i + 1] for other in rest):
                found, group = [*found, group], ()
        return tuple(found)

    @property
    def order(self) -> tuple[str, ...]:
        """The settings from best to worst. Raises: ValueError if some cannot be distinguished."""
        if self.undecided:
            named = ", ".join(f"{pair.a} and {pair.b}" for pair in self.undecided)
            raise ValueError(
                f"cannot order settings that the seeds do not distinguish: {named}; run more seeds, or use tiers"
            )
        return self.names


def ranking(values: Mapping[str, Values], confidence: float = 0.95, *, lower_is_better: bool = False) -> Ranking:
    """Rank settings by their values for each seed, distinguishing two only if their paired difference allows it.

    Each pair gets Student's paired test over seeds, Holm-corrected over all pairs: with probability `confidence`, no
    equal pair is distinguished. A pair needs two seeds in common. Settings without a value, or with NaN, come last.
    Raises: ValueError unless 0 < confidence < 1.
    """
    sign = -1.0 if lower_is_better else 1.0
    means = {name: fmean([v for v in of.values() if v is not None] or [math.nan]) for name, of in values.items()}
    names = sorted(values, key=lambda name: math.inf if math.isnan(means[name]) else -sign * means[name])
    both = [*combinations(names, 2)]
    tested = _tested([(values[a], values[b]) for a, b in both], confidence)
    pairs = tuple(
        Pair(a, b, found, p, None if not clear else a if sign * clear > 0 else b)
        for (a, b), (found, p, clear) in zip(both, tested, strict=True)
    )
    won = {name: sum(pair.better == name for pair in pairs) for name in names}
    lost = {name: sum(pair.better not in (None, name) for pair in pairs if name in (pair.a, pair.b)) for name in names}
    return Ranking(tuple(names), {name: (1 + lost[name], len(names) - won[name]) for name in names}, pairs)


def _tested(
    pairs: Sequence[tuple[Values, Values]], confidence: float
) -> Iterator[tuple[Mean | None, float | None, float]]:
    """For each pair: its paired difference, the Holm-corrected p, and the difference again if it is clear, else 0."""
    found = [paired(a, b, confidence) for a, b in pairs]
    for each, p in zip(found, holm([each.p_value if each else None for each in found]), strict=True):
        yield each, p, each.mean if each is not None and p is not None and p <= 1 - confidence else 0.0
