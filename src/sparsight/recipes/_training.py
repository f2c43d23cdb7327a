"""Turns the options of recipes into training plans, searches and choices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sparsight.numerics.checks import check_known, check_whole
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.restart import carry_on, rewind
from sparsight.recipes._options import Ending
from sparsight.records.record import Choice, LevelRecord
from sparsight.runs.choose import AtDensity, SparsestWithin
from sparsight.runs.ending import AccuracyFloor, AtPQMinimum, PQMinimum
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe, Scoring
from sparsight.runs.search import Until
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import StopName, named_rule
from sparsight.types import Restart, Scorer

Choose = Callable[[Sequence[LevelRecord]], Choice]

TARGET = 0.1
"""Default density at which until="density" ends."""

LEVELS = {"density": 15, "pq-minimum": 30, "accuracy": 30}
"""Default number of pruned levels; 30 is that of the published runs."""

WITHIN = 0.5
"""Default percentage points below the dense validation accuracy."""

SHORT = 3
"""With carry_on, levels between the first and the last train for 1/3 of the epochs."""


def sgd(
    epochs: int, batch_size: int | None, lr: float | None, momentum: float, weight_decay: float, clip: float | None
) -> TrainingPlan:
    """Nesterov SGD with a cosine schedule and clipping, as in the PQ-index paper. Raises: ValueError for 0 epochs."""
    check_whole(1, epochs=epochs)
    optimizer = NesterovSGD(lr=lr, momentum=momentum, weight_decay=weight_decay)
    return TrainingPlan(epochs=epochs, batch_size=batch_size, optimizer=optimizer, clip=clip)


def target_of(until: Ending, target_density: float | None) -> float | None:
    """The density at which the search ends: the given one, otherwise 0.1 with until="density"; None: no target."""
    if target_density is None:
        return TARGET if until == "density" else None
    return target_density or None


def choice(target_density: float | None, within: float | None) -> AtDensity | SparsestWithin:
    """Which level to choose: the one at the target density, or the sparsest within `within` points of dense.

    `within` wins if both are given; the target is then only reported. Without either: the sparsest within 0.5 points.
    """
    if target_density and within is None:
        return AtDensity(target_density)
    return SparsestWithin(WITHIN if within is None else within, target_density or None)


def exactly(prune: SAP | Shrink, target_density: float | None) -> SAP | Shrink:
    """`prune` for the last level: exactly to the target density, if there is one."""
    if not target_density:
        return prune
    with warnings.catch_warnings(action="ignore"):  # `prune` already warned of its exponents
        return replace(prune, exact=True)


@dataclass(frozen=True)
class Iterative:
    """Options of the recipes that prune level by level.

    With `carry_on` and no other choice, levels train for at most a third of the epochs and end once they have
    recovered, which reaches the accuracy of the full budget. No rule does so for rewound levels.

    Raises: ValueError for an unknown `until`; for levels that end early with an `until` other than "density", because
    any level may then be the last; for `rewind_epoch` with `carry_on`.
    """

    plan: TrainingPlan
    until: Ending = "density"
    target_density: float | None = None
    levels: int | None = None
    within: float | None = None
    rewind_epoch: int = 0
    carry_on: bool = False
    middle_epochs: int | None = None
    stop: StopName | None = None
    evaluate_every: float | None = None

    def __post_init__(self) -> None:
        check_known(Ending, until=self.until)
        if self.carry_on and self.rewind_epoch:
            raise ValueError(f"rewind_epoch must be 0 with carry_on, which never rewinds, got {self.rewind_epoch}")
        ends = (self.stop or "fixed-epochs") != "fixed-epochs"
        if self.until != "density" and (ends or self.middle_epochs is not None):
            short = f"stop={self.stop!r}" if ends else f"middle_epochs={self.middle_epochs}"
            raise ValueError(
                f"{short} needs until='density', got {self.until!r}: otherwise any level may be the last, which must "
                "train in full"
            )

    @property
    def _short(self) -> bool:
        """Whether the defaults of `carry_on` apply."""
        return self.carry_on and self.until == "density" and self.stop is None and self.middle_epochs is None

    def _plans(self) -> tuple[TrainingPlan, TrainingPlan]:
        """The plan of the first and the last level, and that of the levels between."""
        every = self.evaluate_every if self.evaluate_every is not None else 0.5 if self._short else 1.0
        whole = replace(self.plan, evaluate_every=every)
        stop = self.stop or ("recovered" if self._short else "fixed-epochs")
        epochs = -(-whole.epochs // SHORT) if self._short else self.middle_epochs
        if epochs is not None and epochs < 1:
            raise ValueError(f"middle_epochs must be at least 1, got {epochs!r}")
        return whole, replace(whole, epochs=whole.epochs if epochs is None else epochs, stop=named_rule(stop))

    def recipe(
        self,
        name: str,
        score: Scorer | Scoring,
        prune: SAP | Shrink,
        pair: tuple[float, float],
        control: bool,
        seed: int,
    ) -> Recipe:
        """Levels pruned by `prune` until the search ends; `pair` is the (p, q) whose minimum may end it."""
        return Recipe(
            name=name,
            score=score,
            levels=self._search(prune, pair),
            choose=self._choose(pair),
            control=control,
            pq=tuple(dict.fromkeys((pair, (0.5, 1.0), (1.0, 2.0)))),
            rewind_epoch=self.rewind_epoch,
            seed=seed,
        )

    def _search(self, prune: SAP | Shrink, pair: tuple[float, float]) -> Until:
        whole, middle = self._plans()
        restart: Restart = carry_on if self.carry_on else rewind
        stop = PQMinimum(*pair) if self.until == "pq-minimum" else None
        stop = AccuracyFloor(self._points) if self.until == "accuracy" else stop
        most = self.levels
        if most is None:
            most = max(LEVELS.values()) if self.target_density else LEVELS[self.until]
        end = exactly(prune, self.target_density) if self.until == "density" else prune
        return Until(
            Level((prune,), restart, middle),
            target_of(self.until, self.target_density),
            most,
            stop,
            last=Level((end,), restart, whole),
            first=Level(train=whole),
        )

    @property
    def _points(self) -> float:
        return WITHIN if self.within is None else self.within

    def _choose(self, pair: tuple[float, float]) -> Choose:
        if self.until == "density":
            return choice(self.target_density, self.within)
        if self.until == "pq-minimum" and self.within is None:
            return AtPQMinimum(*pair)
        return SparsestWithin(self._points)
