"""The training plan of a level, its step hooks, and learning-rate schedules: progress in [0, 1] -> multiplier."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.model.loss import task_loss
from sparsight.numerics.checks import check_whole
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.stop.accuracy import FixedEpochs
from sparsight.train.stop.context import StoppingRule, check_rule
from sparsight.types import Batch, Masks


@dataclass(frozen=True)
class Moment:
    """The argument of a step hook."""

    model: nn.Module
    masks: Masks
    optimizer: Optimizer
    level: int
    epoch: int  # whole epochs of this level before this step
    step: int  # optimiser steps of this level so far
    progress: float  # share of the level's budget used, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Edits of a training step, in the order in which they run."""

    penalty: Callable[[Moment], Tensor] | None = None  # added to the loss
    on_gradients: Callable[[Moment], None] | None = None  # sees dense gradients, before masking and clipping
    after_step: Callable[[Moment], None] | None = None  # edits weights after the optimiser step, before masking
    update_masks: Callable[[Moment], Masks | None] | None = None  # new masks; regrown weights start from +0.0


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """(1 + cos(pi x progress)) / 2: from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True)
class WarmUp:
    """Linear from 0 to 1 over the first `share` of training, then `after`."""

    share: float = 0.1
    after: Callable[[float], float] = cosine

    def __call__(self, progress: float) -> float:
        if progress < self.share:
            return progress / self.share
        return self.after((progress - self.share) / (1.0 - self.share))


LEAST_EVERY = 0.001
"""Fewest epochs between evaluations."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How one level is trained.

    `epochs` is the budget and the horizon of the learning-rate schedule; 0 evaluates the network without training it.
    `stop` may end the level at an evaluation, every `evaluate_every` epochs (whole ones for a split without a length).

    Raises: ValueError for a number of epochs that is negative or not whole, a batch size below 1, `evaluate_every`
    below 0.001 or infinite, a `clip` that is not positive; TypeError for an incomplete stopping rule.
    """

    epochs: int = 3
    batch_size: int | None = None  # None: see `step_size`
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = field(default_factory=NesterovSGD)
    schedule: Callable[[float], float] = cosine  # progress of the level -> multiplier of the learning rate
    loss: Callable[[nn.Module, Batch], Tensor] = task_loss
    clip: float | None = 1.0  # global norm of the masked gradients
    stop: StoppingRule = field(default_factory=FixedEpochs)
    evaluate_every: float = 1.0  # epochs between evaluations; may be a fraction
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        check_whole(0, epochs=self.epochs)
        if self.batch_size is not None:
            check_whole(1, batch_size=self.batch_size)
        if not LEAST_EVERY <= self.evaluate_every < math.inf:
            raise ValueError(f"evaluate_every must be finite and at least {LEAST_EVERY}, got {self.evaluate_every!r}")
        check_rule(self.stop, "stop")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, got {self.clip!r}")
