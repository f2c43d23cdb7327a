"""The result of one evaluation during training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparsight.train.metric import Metric


@dataclass(frozen=True)
class Observation:
    """The result at one evaluation point of a level, by default the end of an epoch."""

    epoch: float  # epochs of this level so far; 1.0 = one pass over the training split
    step: int  # optimiser steps of this level so far
    learning_rate: float | None = None  # of the last step
    train_loss: float | None = None  # mean over the samples since the previous observation
    validation_loss: float | None = None
    validation_accuracy: float | None = None  # in [0, 1]; None if not measured
    values: Mapping[str, float] = field(default_factory=dict)  # measured by the stopping rule
    reason: str | None = None  # why training ended here; None if it continued
    metrics: Mapping[str, float] = field(default_factory=dict)  # on the validation split, besides loss and accuracy
    samples: int | None = None  # number of answers of the metric; None in old records

    def value(self, metric: Metric) -> float | None:
        """The value of a metric on the validation split; None if it was not measured."""
        here = {"accuracy": self.validation_accuracy, "loss": self.validation_loss}
        return here[metric.name] if metric.name in here else self.metrics.get(metric.name)
