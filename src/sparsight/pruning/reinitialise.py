"""A level that starts from fresh weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sparsight.pruning.restart import carry_on
from sparsight.types import Allocation, StateDict


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
        return carry_on(model, rewind_point, allocation)
