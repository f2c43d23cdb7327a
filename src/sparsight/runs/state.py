"""The state of a run in progress."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from sparsight.measure.flow import Probe
from sparsight.records.journal import Journal, Watch
from sparsight.records.record import LevelRecord
from sparsight.records.starts import Starts
from sparsight.runs.recipe import Recipe
from sparsight.train.parallel import Runtime
from sparsight.train.stop import Reference
from sparsight.types import Data, Masks, StateDict


@dataclass
class RunState:
    """A run in progress: everything that the next level depends on."""

    recipe: Recipe
    model: nn.Module
    data: Data
    runtime: Runtime
    journal: Journal
    watch: Watch
    initial: StateDict
    rewind_point: StateDict
    masks: Masks
    starts: Starts | None = None  # shared trainings of the dense network
    dense: StateDict | None = None
    history: list[LevelRecord] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)  # networks that stopping rules compare with
    probe: Probe | None = None  # batches that stopping rules measure on

    @property
    def parent(self) -> str | None:
        """The content id of the level before."""
        return self.history[-1].id if self.history else None


def snapshot(model: nn.Module, device: str | torch.device | None = None) -> StateDict:
    """A copy of the state dict."""
    return {
        name: value.detach().to(device, copy=True) if device is not None else value.detach().clone()
        for name, value in model.state_dict().items()
    }
