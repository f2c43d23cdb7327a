"""Where the next level starts from: the same weights, stored ones, or fresh ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from sparsight.model.hold import apply_
from sparsight.model.names import named
from sparsight.types import Allocation, Params, StateDict


def carry_on(model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
    """Go on from the weights as trained, the pruned ones +0.0."""
    return _settle(model, allocation)


def rewind(model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
    """Return to the rewind point: weights, biases, normalisation parameters *and* buffers, copied by value.

    With the rewind point at initialisation this is the lottery ticket's reset.
    """
    model.load_state_dict(rewind_point)
    return _settle(model, allocation)


@dataclass(frozen=True)
class Reinitialise:
    """Draw fresh weights, by each module's own `reset_parameters`; the sanity check that masks alone matter.

    Drawn from `seed` without touching the global random state. ValueError names a module that holds parameters
    and has no `reset_parameters`.
    """

    seed: int = 0

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(self.seed)
            for name, module in model.named_modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
                elif next(module.parameters(recurse=False), None) is not None:
                    raise ValueError(
                        f"cannot reinitialise {name or 'the model'!r} ({type(module).__name__}): it has parameters "
                        "and no `reset_parameters`; give the recipe a restart of your own"
                    )
        return _settle(model, allocation)


def reweighted(model: nn.Module, multipliers: Params | None) -> nn.Module:
    """The model, changed: its parameters times `multipliers`."""
    parameters = named(model)
    with torch.no_grad():
        for name, factor in (multipliers or {}).items():
            parameters[name].mul_(factor.to(parameters[name].device))
    return model


def composed(earlier: Params | None, allocation: Allocation) -> Allocation:
    """The allocation, with the factors of an earlier round multiplied into its own."""
    if not earlier:
        return allocation
    own = allocation.multipliers or {}
    both = {name: own[name] * factor if name in own else factor for name, factor in earlier.items()}
    return replace(allocation, multipliers={**own, **both})


def _settle(model: nn.Module, allocation: Allocation) -> nn.Module:
    apply_(reweighted(model, allocation.multipliers), allocation.masks)
    return model
