"""What is seen of a network at one evaluation point of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Observation:
    """What was seen at one evaluation point of a level's training (by default the end of an epoch)."""

    epoch: float  # epochs of this level so far; 1.0 = one pass over the training split
    step: int  # optimiser steps of this level so far
    learning_rate: float | None = None  # of the last step
    train_loss: float | None = None  # mean over the samples since the previous observation
    validation_loss: float | None = None
    validation_accuracy: float | None = None  # in [0, 1]
    values: Mapping[str, float] = field(default_factory=dict)  # what the stopping rule measured
    reason: str | None = None  # why training ended here; None if it went on
