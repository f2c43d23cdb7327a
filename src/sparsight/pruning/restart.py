"""Restarts: the weights that the next level starts from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from sparsight.model.hold import apply_
from sparsight.model.names import named
from sparsight.types import Allocation, Params, StateDict


def carry_on(model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
    """Continue from the current weights, with pruned ones set to +0.0."""
    apply_(reweighted(model, allocation.multipliers), allocation.masks)
    return model


def rewind(model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
    """Return to the rewind point: weights, biases, normalisation parameters and buffers.

    From initialisation, this is the lottery ticket's reset.
    """
    model.load_state_dict(rewind_point)
    return carry_on(model, rewind_point, allocation)


def reweighted(model: nn.Module, multipliers: Params | None) -> nn.Module:
    """Multiply the parameters of the model in place; returns the model."""
    parameters = named(model)
    with torch.no_grad():
        for name, factor in (multipliers or {}).items():
            parameters[name].mul_(factor.to(parameters[name].device))
    return model


def composed(earlier: Params | None, allocation: Allocation) -> Allocation:
    """The allocation, with the factors of earlier rounds multiplied into its own."""
    if not earlier:
        return allocation
    own = allocation.multipliers or {}
    both = {name: own[name] * factor if name in own else factor for name, factor in earlier.items()}
    return replace(allocation, multipliers={**own, **both})
