"""The rounds of a level: score and allocate repeatedly, without training in between."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from itertools import islice

import torch

from sparsight.model.weights import laid_out
from sparsight.numerics.seeds import derive, reseeded, seeded
from sparsight.pruning.restart import composed, reweighted
from sparsight.runs.state import RunState
from sparsight.train.batches import USUAL, batches
from sparsight.types import Allocation, Allocator, Batch, Split


def prune(state: RunState, rounds: Sequence[Allocator]) -> Allocation:
    """The combined allocation of the rounds.

    Each round scores the network that the previous rounds left, including their factors, and adds its own. A round
    that may restore weights starts over from the network before the level, without earlier factors.
    """
    allocation = Allocation(state.masks)
    if not rounds:
        return allocation
    scoring, model = state.recipe.scoring, state.model
    if scoring.of != "current":
        source = state.dense if scoring.of == "dense" else state.initial
        if source is None:
            raise ValueError("scores of the dense network need a level 0 that trains it: level 0 must not prune")
        model = copy.deepcopy(model)
        model.load_state_dict(source)
    examples = scored_batches(state)
    for allocator in rounds:
        earlier = allocation.multipliers if allocator.monotone else None
        at = model if earlier is None else reweighted(copy.deepcopy(model), earlier)
        scores = laid_out(at, scoring.scorer(at, allocation.masks, examples))
        allocation = composed(earlier, allocator.plan(scores, allocation.masks))
    return allocation


def scored_batches(state: RunState) -> Sequence[Batch]:
    """The scorer's batches: the first of a shuffle of the training split, the same at every level."""
    recipe = state.recipe
    if not recipe.scoring.batches:
        return ()
    seed = derive(recipe.seed, "score")
    generator = torch.Generator().manual_seed(seed)
    split = state.data.train
    if isinstance(split, Split):
        split = dataclasses.replace(split, augment=None)
    with seeded(seed), reseeded(split, seed):
        drawn = batches(split, recipe.plan.batch_size or USUAL, generator=generator, device=state.runtime.device)
        return tuple(islice(drawn, recipe.scoring.batches))
