"""A restart from fresh weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sparsight.pruning.restart import carry_on
from sparsight.types import Allocation, StateDict


@dataclass(frozen=True)
class Reinitialise:
    """Draw fresh weights with each module's `reset_parameters`: a sanity check of whether only the masks matter.

    Uses `seed`, without changing the global random state. Raises: ValueError for a module with parameters but without
    `reset_parameters`.
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
                        "but no `reset_parameters`; use your own restart"
                    )
        return carry_on(model, rewind_point, allocation)
