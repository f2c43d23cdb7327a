"""What the options of the iterative recipes mean: when a level ends, when the search does, which level is chosen."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shrink import Shrink
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.choose import AtDensity, SparsestWithin
from sparsight.runs.recipe import Level, Until
from sparsight.runs.search import AccuracyFloor, AtPQMinimum, PQMinimum
from sparsight.train.stop import StopName

Ending = Literal["density", "pq-minimum", "accuracy"]
"""What ends the search for sparser levels."""

Choose = Callable[[Sequence[LevelRecord]], Choice]

TARGET = 0.1
"""Density at which `until="density"` stops if none is given."""

LEVELS = {"density": 15, "pq-minimum": 30, "accuracy": 30}
"""Pruned levels after which each search ends if no number is given; 30 is the published runs' number."""

WITHIN = 0.5
"""Points of dense validation accuracy within which a level is chosen if none are given."""


def target_of(until: Ending, target_density: float | None) -> float | None:
    """The density at which the search ends: the one given, else 0.1 with until="density"; None for 0, no target."""
    if target_density is None:
        return TARGET if until == "density" else None
    return target_density or None


def exactly(prune: SAP | Shrink, target_density: float | None) -> Level | None:
    """The round of the last level that goes exactly to the target of `prune`; None if no density was given."""
    if not target_density:
        return None
    with warnings.catch_warnings(action="ignore"):  # its exponents have been warned of already
        return (replace(prune, exact=True),)


def choice(target_density: float | None, within: float | None) -> AtDensity | SparsestWithin:
    """What to hand over: the network at the density asked for, or the sparsest `within` so many points of dense.

    A density that was given (0 is none) is handed over, unless `within` is given too; then it is what the sparsest
    network is compared with. With neither it is the sparsest within 0.5 points.
    """
    if target_density and within is None:
        return AtDensity(target_density)
    return SparsestWithin(WITHIN if within is None else within, target_density or None)


SHORT = 3
"""Carried-on levels between the first and the last train for at most one epoch in so many."""


@dataclass(frozen=True)
class Between:
    """How the levels between the first and the last are trained."""

    epochs: int | None  # at most; None: as the others
    stop: StopName
    evaluate_every: float


def between(
    carry_on: bool, until: Ending, epochs: int, middle_epochs: int | None, stop: StopName | None, every: float | None
) -> Between:
    """What was given, and the default rule where nothing was.

    Levels that go on from the weights as they are train for a third of the epochs at most, and end once they have
    recovered: that reaches the accuracy of the full budget (the stopping study). No rule does so with levels that are
    rewound, and another `until` than the density may make any level the last; there the whole budget is trained.
    """
    if carry_on and until == "density" and stop is None and middle_epochs is None:
        return Between(-(-epochs // SHORT), "recovered", 0.5 if every is None else every)
    return Between(middle_epochs, stop or "fixed-epochs", 1.0 if every is None else every)


def shortened(stop: StopName, middle_epochs: int | None) -> str | None:
    """The option that ends levels before they are trained in full, if one does."""
    if stop != "fixed-epochs":
        return f"stop {stop!r}"
    return None if middle_epochs is None else f"middle_epochs {middle_epochs}"


def ending(
    prune: SAP | Shrink,
    until: Ending,
    *,
    pair: tuple[float, float],
    target_density: float | None,
    levels: int | None,
    within: float | None,
    short: str | None = None,
) -> tuple[Until, Choose]:
    """When the search ends, and which level is handed over; `pair` is the (p, q) whose minimum is looked for.

    "density" prunes the last level to exactly the target that is given, and hands it over (see `choice`); for the
    others, and if none is given, the target only ends the search. "pq-minimum" hands over the level at the minimum,
    unless `within` is given or there is none; "accuracy" stops at the first level more than `within` points below
    dense. `short` names an option that ends levels before they are trained in full: with those two any level may be
    the last, which is to be trained in full. ValueError for it, and for another `until`.
    """
    if until not in get_args(Ending):
        raise ValueError(f"unknown until {until!r}: allowed are {', '.join(map(repr, get_args(Ending)))}")
    if until != "density" and short:
        raise ValueError(
            f"{short} ends levels before they are trained in full, and with until {until!r} any level may turn out to "
            "be the last, which is compared with the dense network and handed over: allowed is one of the two"
        )
    points = WITHIN if within is None else within
    stop = {"pq-minimum": lambda: PQMinimum(*pair), "accuracy": lambda: AccuracyFloor(points)}.get(until, lambda: None)
    if levels is None:
        levels = LEVELS[until] if not target_density else max(LEVELS.values())
    last = exactly(prune, target_density) if until == "density" else None
    search = Until((prune,), target_of(until, target_density), levels, stop(), last)
    if until == "density":
        return search, choice(target_density, within)
    at_minimum = until == "pq-minimum" and within is None
    return search, AtPQMinimum(*pair) if at_minimum else SparsestWithin(points)
