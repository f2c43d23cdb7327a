"""When a level has been trained enough. Rules decide on numbers alone; what they measure they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsight.record import Observation
from sparsight.types import Batch, Masks, StateDict


@dataclass(frozen=True)
class Context:
    """What a rule may measure on, at one evaluation point."""

    model: nn.Module
    masks: Masks
    level: int
    observation: Observation  # so far without the rule's own values
    validation: Sequence[Batch]


@dataclass(frozen=True)
class FixedEpochs:
    """Train for `epochs`, or for the recipe's whole budget if it is None."""

    epochs: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"epochs must be positive: got {self.epochs!r}")

    def measure(self, context: Any, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        return {}, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        if self.epochs is None or not history or history[-1].epoch < self.epochs:
            return None
        return f"trained {history[-1].epoch:g} of {self.epochs:g} epochs"
