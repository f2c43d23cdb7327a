"""The protocol of stopping rules, and what they may use."""

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
"""The network that a rule compares with: at the rewind point, the trained dense one, that of the previous level, or
that of the level with the best validation accuracy so far."""

Need = Literal["warmup", "dense", "parent", "best", "probe", "examples", "gf_ema"]
"""What a rule needs besides the model; prepared only if some rule needs it."""


@dataclass(frozen=True)
class Reference:
    """A network of this run to compare with."""

    level: int
    weights: StateDict
    masks: Masks
    accuracy: float = math.nan  # its metric on the validation split; NaN if not evaluated
    values: Mapping[str, float] = field(default_factory=dict)  # recorded at its last evaluation
    measured: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # flows, computed once


@dataclass(frozen=True)
class Context:
    """What a rule may use at an evaluation point. Measuring changes only `flows` and `cost`."""

    model: nn.Module
    masks: Masks
    level: int
    observation: Observation  # without the rule's own values
    validation: Iterable[Batch] = ()
    probe: Sequence[Batch] = ()  # stratified training samples, fixed for the run
    references: Mapping[str, Reference] = field(default_factory=dict)  # by `Baseline`
    score: Scorer | None = None
    rounds: tuple[Allocator, ...] = ()  # the rounds of the next level, as far as known
    examples: Sequence[Batch] = ()  # the scorer's batches
    loss: Loss = task_loss
    metric: Metric = ACCURACY  # chooses between networks
    gradients: Mapping[str, float] = field(default_factory=dict)  # gf_ema of each prunable tensor
    history: Sequence[Observation] = ()  # of this level, before this one
    flows: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # measured here, shared by rules
    cost: dict[str, float] = field(default_factory=dict, repr=False, compare=False)  # samples used by measuring

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
    """Decides when a level has been trained enough. Measuring needs the run; deciding needs only numbers.

    To write your own, inherit from it and define `measure` and `stop`; declare what they use in `needs`.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What the rule needs besides the model (`Need`)."""
        return frozenset()

    @property
    def sources(self) -> tuple[FlowSource, ...]:
        """The flows that the rule measures, to share passes with other rules."""
        return ()

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]: ...

    def stop(self, history: Sequence[Observation]) -> str | None: ...


def check_rule(rule: object, of: str) -> None:
    """Raise TypeError for anything but a stopping rule; `of` names the argument."""
    members = ("needs", "sources", "measure", "stop")
    lacks = [] if isinstance(rule, type) else [name for name in members if not hasattr(rule, name)]
    if isinstance(rule, type) or lacks:
        why = "it is a class, not a rule" if isinstance(rule, type) else f"it lacks {', '.join(lacks)}"
        raise TypeError(
            f"{of} must be a stopping rule, such as MaskStable(), got {rule!r:.60}: {why}; your own rule must inherit "
            "from sparsight.train.stop.StoppingRule"
        )
