"""Ranks settings, as far as their intervals allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from sparsight.compare.statistics.holm import holm
from sparsight.numerics.intervals import Mean, paired

Values = Mapping[int, float | None]
"""A value for each seed."""


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
    equal pair is distinguished. A pair needs two seeds in common. Settings without a value come last.
    Raises: ValueError unless 0 < confidence < 1.
    """
    sign = -1.0 if lower_is_better else 1.0
    means = {name: [v for v in of.values() if v is not None] for name, of in values.items()}
    names = sorted(values, key=lambda name: -sign * fmean(means[name]) if means[name] else float("inf"))
    tested = [(a, b, paired(values[a], values[b], confidence)) for a, b in combinations(names, 2)]
    adjusted = holm([found.p_value if found else None for _, _, found in tested])
    pairs = tuple(
        Pair(a, b, found, p, _better(a, b, found, p, sign, 1 - confidence))
        for (a, b, found), p in zip(tested, adjusted, strict=True)
    )
    won = {name: sum(pair.better == name for pair in pairs) for name in names}
    lost = {name: sum(pair.better not in (None, name) for pair in pairs if name in (pair.a, pair.b)) for name in names}
    return Ranking(tuple(names), {name: (1 + lost[name], len(names) - won[name]) for name in names}, pairs)


def _better(a: str, b: str, found: Mean | None, p: float | None, sign: float, alpha: float) -> str | None:
    if found is None or p is None or not p <= alpha or not found.mean:
        return None
    return a if sign * found.mean > 0 else b
