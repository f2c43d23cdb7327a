"""What is seen of a network at one evaluation point of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsight.train.metric import Metric


@dataclass(frozen=True)
class Observation:
    """What was seen at one evaluation point of a level's training (by default the end of an epoch)."""

    epoch: float  # epochs of this level so far; 1.0 = one pass over the training split
    step: int  # optimiser steps of this level so far
    learning_rate: float | None = None  # of the last step
    train_loss: float | None = None  # mean over the samples since the previous observation
    validation_loss: float | None = None
    validation_accuracy: float | None = None  # in [0, 1]; None where the judge measures others
    values: Mapping[str, float] = field(default_factory=dict)  # what the stopping rule measured
    reason: str | None = None  # why training ended here; None if it went on
    metrics: Mapping[str, float] = field(default_factory=dict)  # on the validation split, beside loss and accuracy
    samples: int | None = None  # answers that the metric was counted over; None in records that do not say

    def value(self, metric: Metric) -> float | None:
        """The value of a metric on the validation split; None where it was not measured."""
        here = {"accuracy": self.validation_accuracy, "loss": self.validation_loss}
        return here[metric.name] if metric.name in here else self.metrics.get(metric.name)
