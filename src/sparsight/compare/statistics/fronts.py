"""The Pareto front of value against cost, with what cannot be distinguished from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sparsight.compare.statistics.holm import holm
from sparsight.numerics.intervals import paired

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
    distinguish from the front. With one seed, nothing is behind. Raises: ValueError for a candidate without a value, or
    two with one name.
    """
    names = [each.name for each in candidates]
    empty = next((each.name for each in candidates if not each.values), None)
    if empty is not None or len({*names}) < len(names):
        raise ValueError(f"{empty!r} has no value" if empty is not None else "two candidates have the same name")
    pairs = [(a, b) for a in candidates for b in candidates if a is not b and a.cost <= b.cost]
    tested = [paired(a.values, b.values, confidence) for a, b in pairs]
    adjusted = holm([found.p_value if found else None for found in tested])
    behind = {
        b.name
        for (_, b), found, p in zip(pairs, tested, adjusted, strict=True)
        if found is not None and found.mean > 0 and p is not None and p <= 1 - confidence
    }
    places: dict[str, Place] = {}
    for each in candidates:
        dominated = any(
            a.cost <= each.cost and a.mean >= each.mean and (a.cost, a.mean) != (each.cost, each.mean)
            for a in candidates
        )
        places[each.name] = "behind" if each.name in behind else "alike" if dominated else "front"
    return places
