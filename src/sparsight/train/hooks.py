"""Edits of a training step by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.types import Masks


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
