"""Rescaling inside a run: a restart sees no data, so the factors are measured where the scores are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from sparsight.measure.criticality.phase import CriticalStart
from sparsight.model.masks import all_kept
from sparsight.pruning.rescale.rescale import Rescale
from sparsight.pruning.restart import Reinitialise, carry_on
from sparsight.types import Allocation, Allocator, Batch, Masks, Scorer, Scores, StateDict


class ScoresSeen(dict[str, Tensor]):
    """Scores that remember the network and the batches that they were computed on."""

    model: nn.Module
    batches: Sequence[Batch]


@dataclass(frozen=True)
class ScoredAt:
    """Scores of the network at its critical start (or as it is, with None), which `Rescaled` can calibrate on."""

    score: Scorer
    start: CriticalStart | None = None

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scores:
        at = model
        if self.start is not None:
            at = copy.deepcopy(model)
            self.start(at)
        found = ScoresSeen(self.score(at, masks, batches))
        found.model, found.batches = at, batches
        return found


@dataclass(frozen=True)
class Rescaled:
    """An allocator's plan, with the factors of `rescale` as its multipliers, measured on the scorer's batches.

    Its scores have to come from `ScoredAt`, and be of weights that are not pruned yet.
    """

    allocator: Allocator
    rescale: Rescale

    @property
    def monotone(self) -> bool:
        return getattr(self.allocator, "monotone", True)

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        if not isinstance(scores, ScoresSeen):
            raise TypeError(f"Rescaled needs the scores of ScoredAt: got {type(scores).__name__}")
        plan = self.allocator.plan(scores, masks)
        factors = self.rescale.factors(scores.model, plan.masks, scores.batches)
        before = plan.multipliers or {}
        return replace(plan, multipliers={**before, **{n: before.get(n, 1) * factor for n, factor in factors.items()}})

    def __call__(self, scores: Scores, masks: Masks) -> Masks:
        return self.plan(scores, masks).masks


@dataclass(frozen=True)
class Fresh:
    """Weights drawn anew by each module's own `reset_parameters`, as a function of a model: a start for `Rescale`."""

    seed: int = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        return Reinitialise(self.seed)(model, {}, Allocation(all_kept(model)))


@dataclass(frozen=True)
class FromStart:
    """Restart from the rewind point, with the weights, biases and norms that `start` draws."""

    start: CriticalStart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        model.load_state_dict(rewind_point)
        return carry_on(self.start(model), rewind_point, allocation)
