"""When a level has been trained enough: what a rule has to say, and what it may measure on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

from sparsight.model.loss import Loss, task_loss
from sparsight.train.metric import ACCURACY, Metric
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
    accuracy: float = math.nan  # its metric on the validation split; NaN where it was not judged
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
    loss: Loss = task_loss
    metric: Metric = ACCURACY  # what networks are chosen by
    gradients: Mapping[str, float] = field(default_factory=dict)  # gf_ema of each prunable tensor
    history: Sequence[Observation] = ()  # of this level, before this one
    flows: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # measured at this point, shared
    cost: dict[str, float] = field(default_factory=dict, repr=False, compare=False)  # samples that measuring took

    def spend(self, **samples: float) -> None:
        """Count samples that measuring passed through a network."""
        for what, count in samples.items():
            self.cost[what] = self.cost.get(what, 0.0) + count


class FlowSource(Protocol):
    """A flow that a rule measures."""

    @property
    def name(self) -> str: ...


@runtime_checkable
class StoppingRule(Protocol):
    """When a level has been trained enough. Measuring needs the run; deciding needs only numbers.

    Inherit from it and write `measure` and `stop`; a rule that measures on something says so in `needs`.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What it asks for besides the model (`Need`)."""
        return frozenset()

    @property
    def sources(self) -> tuple[FlowSource, ...]:
        """The flows that it measures, so that several rules can share their passes."""
        return ()

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]: ...

    def stop(self, history: Sequence[Observation]) -> str | None: ...


def check_rule(rule: object, of: str) -> None:
    """TypeError for what is not a stopping rule, naming what it lacks. `of` says what it was given for."""
    members = ("needs", "sources", "measure", "stop")
    lacks = [] if isinstance(rule, type) else [name for name in members if not hasattr(rule, name)]
    if isinstance(rule, type) or lacks:
        why = "it is a class, not a rule" if isinstance(rule, type) else f"it lacks {', '.join(lacks)}"
        raise TypeError(
            f"{of} must be a stopping rule, such as MaskStable(), got {rule!r:.60}: {why}; a rule of your own inherits "
            "from sparsight.train.stop.StoppingRule"
        )
