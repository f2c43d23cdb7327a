"""A method as a value: what is scored, how much goes, where the next level starts, how it is trained and ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from sparsight.record import Choice, LevelRecord
from sparsight.restart import rewind
from sparsight.schedules import cosine
from sparsight.stop import FixedEpochs
from sparsight.types import Allocator, Batch, Masks, Restart, Scorer, StoppingRule

Level = tuple[Allocator, ...]
"""The rounds (score + allocate) before a level's training; the empty tuple trains without pruning."""

History = Sequence[LevelRecord]
"""The levels so far, first to last."""

Search = Callable[[History], Level | str | None]
"""The next level, or why there is none (a reason, or None)."""


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of `(x, y)`: the default loss."""
    x, y = batch
    return functional.cross_entropy(model(x), y)


def classify(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, int]:
    """(summed cross-entropy, correct predictions, samples) of `(x, y)`: the default judge of a network."""
    x, y = batch
    logits = model(x).float()
    return functional.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum(), len(y)


@dataclass(frozen=True)
class NesterovSGD:
    """SGD with Nesterov momentum, over all parameters: the optimiser of the PQ-index paper.

    Fused into one pass over memory where torch has it (CPU and CUDA): a small network's step is bound by memory.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        listed = list(parameters)
        return SGD(
            listed,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
            fused=all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in listed),
        )


@dataclass(frozen=True)
class Moment:
    """What a step hook sees."""

    model: nn.Module
    masks: Masks
    optimizer: Optimizer
    level: int
    epoch: int  # whole epochs of this level before this step
    step: int  # optimiser steps of this level before this one
    progress: float  # share of the level's budget used, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Edits of a training step, in the order in which they act. None does nothing."""

    penalty: Callable[[Moment], Tensor] | None = None  # added to the loss
    on_gradients: Callable[[Moment], None] | None = None  # sees dense gradients, before masking and clipping
    after_step: Callable[[Moment], None] | None = None  # edits weights after the optimiser step, before masking
    update_masks: Callable[[Moment], Masks | None] | None = None  # new masks; regrown weights start from +0.0


@dataclass(frozen=True)
class SparsestWithin:
    """Choose the sparsest level whose validation accuracy is within `points` of the dense network's.

    Dense is level 0 where it is unpruned, else the dense control. If no level is within reach, the most accurate
    one is chosen, and the reason says so. Source of the reference: validation data, never the test split.
    """

    points: float = 0.5

    def __call__(self, records: Sequence[LevelRecord]) -> Choice:
        levels = [r for r in records if r.role == "level" and r.validation_accuracy is not None]
        if not levels:
            raise ValueError("cannot choose a level: none has a validation accuracy")
        dense = [r for r in levels if r.kept == r.total] or [r for r in records if r.role == "control"]
        if not dense:
            last = levels[-1]
            return Choice(last.level, last.id, "the last level; the run has no dense network to compare with")
        reference = _accuracy(dense[0])
        floor = reference - self.points / 100
        near = [r for r in levels if _accuracy(r) >= floor - 1e-12]
        if not near:
            best = max(levels, key=_accuracy)
            why = f"no level is within {self.points:g} points of dense ({reference:.2%}); this one is the most accurate"
            return Choice(best.level, best.id, why)
        best = min(near, key=lambda r: (r.density, -_accuracy(r)))
        gap = 100 * (_accuracy(best) - reference)
        why = (
            f"the sparsest level within {self.points:g} points of dense on validation data: "
            f"{_accuracy(best):.2%} against {reference:.2%} ({gap:+.2f} points)"
        )
        return Choice(best.level, best.id, why)


def _accuracy(record: LevelRecord) -> float:
    accuracy = record.validation_accuracy
    return float("-inf") if accuracy is None else accuracy


@dataclass(frozen=True)
class Until:
    """Train dense, then prune by `level` again and again, until the density or the number of levels is reached.

    `levels` counts pruned levels. Ends early when two levels in a row removed nothing.
    """

    level: Level
    density: float | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.density is None and self.levels is None:
            raise ValueError("a search needs a density, a number of levels, or both: got neither")
        if self.density is not None and not 0 <= self.density <= 1:
            raise ValueError(f"density must be in [0, 1]: got {self.density!r}")
        if self.levels is not None and self.levels < 0:
            raise ValueError(f"levels must be a whole number >= 0: got {self.levels!r}")

    def __call__(self, history: History) -> Level | str | None:
        if not history:
            return ()
        last = history[-1]
        if self.density is not None and last.density <= self.density:
            return f"density {last.density:.4g} has reached the target of {self.density:g}"
        if self.levels is not None and len(history) > self.levels:
            return f"all {self.levels} pruned levels are done (density {last.density:.4g})"
        if len(history) > 2 and history[-3].kept == last.kept:
            return f"two levels in a row removed nothing (density {last.density:.4g})"
        return self.level


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run needs beside the model and the data.

    A level is one prune-restart-train cycle, of zero or more rounds. `score_from` says whose weights a round
    scores: those the previous level ended with, the trained dense network's (level 0), or the initial ones.
    `epochs` is each level's budget and the horizon of the learning-rate schedule; `stop` may end a level earlier.
    """

    name: str
    score: Scorer
    levels: Sequence[Level] | Search
    score_from: Literal["current", "dense", "init"] = "current"
    score_batches: int = 0  # training batches handed to the scorer, the same at every level
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy
    judge: Callable[[nn.Module, Batch], tuple[Tensor, Tensor, int]] = classify
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = field(default_factory=NesterovSGD)
    schedule: Callable[[float], float] = cosine  # progress of the level -> multiplier of the learning rate
    epochs: int = 3
    batch_size: int = 250
    clip: float | None = 1.0  # global norm of the masked gradients
    restart: Restart = rewind
    rewind_epoch: int = 0  # the rewind point: 0 = initial weights, k = after k epochs of level 0
    stop: StoppingRule = field(default_factory=FixedEpochs)
    hooks: Hooks = field(default_factory=Hooks)
    choose: Callable[[Sequence[LevelRecord]], Choice] = field(default_factory=SparsestWithin)
    control: bool = False  # train the dense network for the whole run's epochs beside it
    pq: tuple[tuple[float, float], ...] = ((0.5, 1.0), (1.0, 2.0))  # pairs recorded for every level
    channels_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        _at_least(0, rewind_epoch=self.rewind_epoch, score_batches=self.score_batches, seed=self.seed)
        if self.rewind_epoch > self.epochs:
            raise ValueError(f"rewind_epoch must be at most epochs = {self.epochs}: got {self.rewind_epoch}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, or None: got {self.clip!r}")
        if not self.pq:
            raise ValueError("pq needs at least one (p, q) pair")

    def next_level(self, history: History) -> Level | str | None:
        """The next level, or why there is none."""
        if callable(self.levels):
            return self.levels(history)
        if len(history) < len(self.levels):
            return self.levels[len(history)]
        return f"all {len(self.levels)} levels are done"


def _at_least(least: int, **values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}: got {value!r}")


__all__ = [
    "History",
    "Hooks",
    "Level",
    "Moment",
    "NesterovSGD",
    "Recipe",
    "Search",
    "SparsestWithin",
    "Until",
    "classify",
    "cross_entropy",
]
