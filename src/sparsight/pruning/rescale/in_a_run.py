"""Rescaling in a run: factors are measured while scoring, because a restart has no data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from sparsight.measure.criticality.phase import CriticalStart
from sparsight.model.masks import all_kept
from sparsight.model.weights import layouts
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.rescale.rescale import Rescale
from sparsight.pruning.restart import carry_on
from sparsight.types import Allocation, Allocator, Batch, Masks, Scored, Scorer, Scores, StateDict


@dataclass(frozen=True)
class ScoredAt:
    """Scores of the network at its critical start (None: as it is), on which `Rescaled` can calibrate."""

    score: Scorer
    start: CriticalStart | None = None

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scored:
        at = model
        if self.start is not None:
            at = copy.deepcopy(model)
            self.start(at)
        return Scored(self.score(at, masks, batches), model=at, batches=batches, layouts=layouts(at, masks))


@dataclass(frozen=True)
class Rescaled(Allocator):
    """An allocator's plan with the factors of `rescale` as multipliers, measured on the scorer's batches.

    The scores must come from `ScoredAt`, for unpruned weights.
    """

    allocator: Allocator
    rescale: Rescale

    @property
    def monotone(self) -> bool:
        return self.allocator.monotone

    def plan(self, scores: Scores, masks: Masks) -> Allocation:
        if not isinstance(scores, Scored) or scores.model is None:
            raise TypeError(f"Rescaled needs scores from ScoredAt, got {scores!r:.60}")
        plan = self.allocator.plan(scores, masks)
        factors = self.rescale.factors(scores.model, plan.masks, scores.batches)
        before = plan.multipliers or {}
        return replace(plan, multipliers={**before, **{n: before.get(n, 1) * factor for n, factor in factors.items()}})


@dataclass(frozen=True)
class Fresh:
    """Draws fresh weights with each module's `reset_parameters`: a start for `Rescale`."""

    seed: int = 0

    def __call__(self, model: nn.Module) -> nn.Module:
        return Reinitialise(self.seed)(model, {}, Allocation(all_kept(model)))


@dataclass(frozen=True)
class FromStart:
    """Restart from the rewind point, with weights, biases and norms drawn by `start`."""

    start: CriticalStart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        model.load_state_dict(rewind_point)
        return carry_on(self.start(model), rewind_point, allocation)
