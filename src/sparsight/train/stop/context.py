"""What a stopping rule may measure on, at one evaluation point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from sparsight.model.loss import Loss, cross_entropy
from sparsight.train.observation import Observation
from sparsight.types import Allocator, Batch, Masks, Scorer, StateDict

Baseline = Literal["warmup", "dense", "parent", "best"]
"""The network that a rule compares with: at the rewind point, the trained dense one, the level before, or the level
with the best validation accuracy so far."""

Need = Literal["warmup", "dense", "parent", "best", "probe", "examples", "gf_ema"]
"""What a rule asks for besides the model; what nobody asks for is not made."""


@dataclass(frozen=True)
class Reference:
    """A network of this run to compare with, by value."""

    level: int  # where it was trained
    weights: StateDict
    masks: Masks
    accuracy: float = math.nan  # on the validation split; NaN where it was not judged
    values: Mapping[str, float] = field(default_factory=dict)  # on record at its last evaluation
    measured: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # flows, computed once


@dataclass(frozen=True)
class Context:
    """What a rule may measure on, at one evaluation point. Measuring changes nothing of it but `flows` and `cost`."""

    model: nn.Module
    masks: Masks
    level: int
    observation: Observation  # so far without the rule's own values
    validation: Iterable[Batch] = ()
    probe: Sequence[Batch] = ()  # fixed, seeded, stratified training samples, the same all run
    references: Mapping[str, Reference] = field(default_factory=dict)  # those there are, by `Baseline`
    score: Scorer | None = None
    rounds: tuple[Allocator, ...] = ()  # what prunes next, as far as it is known beforehand
    examples: Sequence[Batch] = ()  # the scorer's batches
    loss: Loss = cross_entropy
    gradients: Mapping[str, float] = field(default_factory=dict)  # gf_ema of each prunable tensor
    history: Sequence[Observation] = ()  # of this level, before this one
    flows: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # measured at this point, shared
    cost: dict[str, float] = field(default_factory=dict, repr=False, compare=False)  # samples that measuring took

    def spend(self, **samples: float) -> None:
        """Count samples that measuring passed through a network."""
        for what, count in samples.items():
            self.cost[what] = self.cost.get(what, 0.0) + count


def check_rule(rule: Any, of: str) -> None:
    """TypeError for what is no stopping rule for one level. `of` says what it was given for."""
    if not all(callable(getattr(rule, name, None)) for name in ("measure", "stop")) or isinstance(rule, type):
        raise TypeError(
            f"{of} must be a stopping rule, with `measure` and `stop`, such as MaskStable(): got {rule!r} "
            "(rules by name: named_rule; a rule for each level, PerLevel, stands outermost)"
        )


def needs(rule: Any) -> frozenset[str]:
    """What a rule asks for: its `needs`; nothing for a rule that does not say."""
    return frozenset(getattr(rule, "needs", ()))
