"""Rules on epochs, validation accuracy and validation loss, which need no extra measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsight.numerics.checks import check_fraction, check_known, check_positive, check_whole
from sparsight.train.metric import ACCURACY
from sparsight.train.observation import Observation
from sparsight.train.stop.context import Baseline, Context, StoppingRule
from sparsight.train.stop.thresholds import improvements, less
from sparsight.types import StateDict


@dataclass(frozen=True)
class FixedEpochs(StoppingRule):
    """Train for `epochs`; None: for the whole budget."""

    epochs: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_positive(epochs=self.epochs)

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        return {}, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        if self.epochs is None or not history or history[-1].epoch < self.epochs - 1e-9:
            return None
        return f"trained {history[-1].epoch:g} of {self.epochs:g} epochs"


@dataclass(frozen=True)
class AccuracyRecovery(StoppingRule):
    """Stop as soon as validation accuracy >= target, by default fraction x (reference's accuracy) - margin.

    Accuracies and `margin` are in [0, 1]; equality is enough. For "warmup" the reference is the best accuracy up to the
    rewind point, for "dense", "parent" and "best" the final accuracy of that level. Never stops without a reference, as
    at the first level, or without an accuracy. Uses validation data, never the test split.

    If another metric chooses between networks, it takes the place of accuracy: the target is then `fraction` of the
    reference's value (1 / fraction of it if lower is better), relaxed by `margin` of it.

    Source: Gharatappeh and Sekeh, arXiv 2501.15592: the second exit of their loop, which uses the test split.
    """

    target: float | None = None
    fraction: float = 1.0
    margin: float = 0.0
    reference: Baseline = "dense"

    def __post_init__(self) -> None:
        check_known(Baseline, reference=self.reference)
        check_positive(fraction=self.fraction)
        check_fraction(margin=self.margin)
        if self.target is not None:
            check_fraction(target=self.target)

    @property
    def name(self) -> str:
        """The name of the reference's accuracy, shared by rules with different fractions."""
        return f"reference:validation accuracy of {self.reference}"

    @property
    def _threshold(self) -> str:
        if self.target is not None:
            return "threshold:validation accuracy"
        share = "" if self.fraction == 1 else f"{self.fraction:g} of "
        return f"threshold:validation accuracy, {share}{self.reference}" + (
            f" - {self.margin:g}" if self.margin else ""
        )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.target is not None else frozenset({self.reference})

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        if self.target is not None:
            return {self._threshold: self.target}, memory
        there = context.references.get(self.reference)
        if there is None or math.isnan(there.accuracy):
            return {}, memory
        if context.metric == ACCURACY:
            return {self.name: there.accuracy, self._threshold: self._of(there.accuracy)}, memory
        metric, value = context.metric, context.observation.value(context.metric)
        full = there.accuracy * self.fraction if metric.better == "higher" else there.accuracy / self.fraction
        goal = metric.allowed(full, 100 * self.margin)
        about = f"validation {metric.name}"
        found = {f"reference:{about} of {self.reference}": there.accuracy, f"threshold:{about}": goal}
        return {**found, self._distance: metric.worth(goal) - metric.worth(value)}, memory

    @property
    def _distance(self) -> str:
        """The name of the distance to the target, for metrics other than accuracy."""
        return f"distance:short of {self.reference}"

    def stop(self, history: Sequence[Observation]) -> str | None:
        if history and history[-1].values.get(self._distance, math.inf) <= 0:
            return f"the validation metric is as good as that of {SAID[self.reference]}"
        if not history or history[-1].validation_accuracy is None or self._distance in history[-1].values:
            return None
        accuracy = history[-1].validation_accuracy
        target = self._of(history[-1].values.get(self.name, math.nan)) if self.target is None else self.target
        if not accuracy >= target - 1e-12:
            return None
        of = "" if self.target is not None else f" ({SAID[self.reference]})"
        return f"validation accuracy {ACCURACY.text(accuracy)} has reached {ACCURACY.text(target)}{of}"

    def _of(self, accuracy: float) -> float:
        return self.fraction * accuracy - self.margin


@dataclass(frozen=True)
class LossPlateau(StoppingRule):
    """Stop if the validation loss improves on its best by less than `tol`, `patience` evaluations in a row.

    improvement = (b - x) / |b|, with b the least earlier loss of this level. Negative if the loss rises.
    """

    tol: float = 1e-3
    patience: int = 3

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)
        check_whole(1, patience=self.patience)

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        found = improvements(_losses([*context.history, context.observation]))[-1]
        shown = {} if math.isnan(found) else {"distance:validation loss, improvement": found}
        return {**shown, "threshold:validation loss, improvement": self.tol}, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = improvements(_losses(history))
        return less(found, self.tol, self.patience, "validation loss improved by", " of itself")


def _losses(history: Sequence[Observation]) -> list[float]:
    return [math.nan if seen.validation_loss is None else seen.validation_loss for seen in history]


SAID = {
    "warmup": "the dense network after its warm-up",
    "dense": "the trained dense network",
    "parent": "the previous level",
    "best": "the best level so far",
}
"""How reasons name the references."""
