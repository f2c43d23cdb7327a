"""The arithmetic of the study: the control matched to a rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

BySeed = Mapping[int, float]


def between(curve: Sequence[tuple[float, float]], at: float) -> float | None:
    """The curve at `at`, linear between the two points around it; None outside it: nothing is extrapolated.

    Points of equal position count as their mean.
    """
    together: dict[float, list[float]] = {}
    for x, y in curve:
        together.setdefault(x, []).append(y)
    points = sorted((x, math.fsum(ys) / len(ys)) for x, ys in together.items())
    near = 1e-9 * max(1.0, abs(at))
    for x, y in points:
        if abs(x - at) <= near:
            return y
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < at < x1:
            return y0 + (at - x0) / (x1 - x0) * (y1 - y0)
    return None


def matched(costs: Sequence[BySeed], accuracies: Sequence[BySeed], rule: BySeed) -> dict[int, float]:
    """The accuracy, by seed, of a fixed budget of the rule's mean cost: the rule's matched control.

    `costs` and `accuracies` hold one mapping for each fixed budget. Only seeds that all of them and the rule have are
    used. A budget's position is its mean cost over these seeds, and so is the rule's, so that every seed is compared
    at the same place; accuracies are interpolated seed by seed. Empty where the rule's cost lies outside the curve.
    """
    if not costs or not rule:
        return {}
    seeds = sorted(set(rule).intersection(*costs, *accuracies))
    if not seeds:
        return {}
    places = [math.fsum(cost[seed] for seed in seeds) / len(seeds) for cost in costs]
    at = math.fsum(rule[seed] for seed in seeds) / len(seeds)
    found = {seed: between([(x, y[seed]) for x, y in zip(places, accuracies, strict=True)], at) for seed in seeds}
    return {seed: value for seed, value in found.items() if value is not None}
