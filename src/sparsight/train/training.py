"""The state of a level's training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.measure.flow import GradientAverage
from sparsight.numerics.exact import exact
from sparsight.train.judges import Auto, Judge
from sparsight.train.metric import ACCURACY, Metric
from sparsight.train.observation import Observation
from sparsight.train.parallel import Runtime
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import Context
from sparsight.types import Batch, Data, Masks, StateDict


@dataclass
class Training:
    """The state of a level's training. Everything that changes is a field, which resuming restores."""

    model: nn.Module
    masks: Masks
    optimizer: Optimizer
    plan: TrainingPlan
    data: Data
    runtime: Runtime
    level: int
    role: Literal["level", "control"] = "level"
    seed: int = 0  # of the run
    judge: Judge = field(default_factory=Auto)
    metric: Metric = ACCURACY  # chooses between networks; set by the judge
    channels_last: bool = False
    stops: tuple[int, ...] = ()  # further epochs to evaluate after
    surroundings: Context | None = None  # what the rule may use besides the network
    averaging: bool = False  # keep the exponential average of gradient norms
    observations: list[Observation] = field(default_factory=list)
    memory: StateDict = field(default_factory=dict)  # of the stopping rule, between evaluations
    stream: Mapping[str, Any] = field(default_factory=dict)  # inside an epoch: steps done, and the generators' states
    average: GradientAverage | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return int(self.observations[-1].epoch) if self.observations else 0

    @property
    def step(self) -> int:
        return self.observations[-1].step if self.observations else 0

    @property
    def ended(self) -> bool:
        return bool(self.observations) and self.observations[-1].reason is not None

    def spent(self, what: str, since: float) -> float:
        """Add the seconds since `since` to `what`; returns the current time."""
        now = perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - since
        return now


@dataclass
class Pass:
    """An epoch in progress. Between its parts, `states` holds the states of the global generators."""

    epoch: int
    source: Iterator[Batch]
    done: int = 0
    states: Mapping[str, Any] | None = None
    over: bool = False


@dataclass
class LossSum:
    """The sum of losses between evaluations. Losses wait on their device and are added up together."""

    total: Tensor
    samples: float = 0.0
    steps: int = 0
    rate: float = 0.0
    waiting: list[tuple[Tensor, float]] = field(default_factory=list)

    def add(self, loss: Tensor, samples: float) -> None:
        """Count a step with its mean loss."""
        self.waiting.append((loss.detach(), samples))
        self.samples, self.steps = self.samples + samples, self.steps + 1
        if len(self.waiting) == 256:
            self.sum()

    def sum(self) -> Tensor:
        """The sum of the losses of all samples so far."""
        if self.waiting:
            losses = exact(torch.stack([loss for loss, _ in self.waiting])).flatten()
            self.total = self.total + losses @ losses.new_tensor([samples for _, samples in self.waiting])
            self.waiting = []
        return self.total


# -- evaluation points ----------------------------------------------------------------------------------------


Position = tuple[int, int]
"""Whole epochs, and steps of the current one; (2, 0) is the end of the second epoch."""

_FUZZ = 1e-9


def next_point(here: Position, every: float, length: int | None, stops: Iterable[int] = ()) -> Position:
    """The first evaluation point after `here`: a multiple of `every` epochs, or an epoch of `stops` before it.

    A multiple inside an epoch of `length` steps falls on the first step that reaches it: with more points than steps,
    each step is one. Raises: ValueError for a point inside an epoch of unknown length.
    """
    epoch, step = here
    at = epoch + (step / length if step and length else 0.0)
    k = math.floor(at / every + _FUZZ) + 1
    while (point := _position(k * every, length)) <= here:
        k += 1
    return min([point, *((stop, 0) for stop in stops if (stop, 0) > here)])


def _position(epochs: float, length: int | None) -> Position:
    whole = math.floor(epochs + _FUZZ)
    share = epochs - whole
    if share <= _FUZZ:
        return whole, 0
    if length is None:
        raise ValueError(
            f"cannot evaluate after {epochs:g} epochs: evaluate_every must be whole epochs if the training split has "
            "no length"
        )
    step = math.ceil(share * length - _FUZZ * length)
    return (whole, step) if step < length else (whole + 1, 0)
