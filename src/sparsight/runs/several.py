"""A run of several processes: all compute, the main one decides, writes and broadcasts its decisions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from sparsight.records.identity import first_difference
from sparsight.records.journal import Journal, LevelResult
from sparsight.records.record import RunRecord
from sparsight.runs.state import RunState
from sparsight.train.batches import move
from sparsight.train.parallel import Runtime
from sparsight.types import Allocation


def check_alike(record: RunRecord, runtime: Runtime) -> None:
    """Raise ValueError, with the first difference, unless all processes were started for the same run."""
    records = runtime.gathered(record)
    for rank, other in enumerate(records):
        found = first_difference(records[0], other)
        if found is not None:
            where, first, here = found
            raise ValueError(
                f"the {runtime.world} processes must run the same thing: {where} is {first!r:.120} in process 0 and "
                f"{here!r:.120} in process {rank}; start all with the same command, data and weights"
            )


def from_main(state: RunState, decide: Callable[[], Allocation]) -> Allocation:
    """The main process's decision, moved to each process's device."""
    if state.runtime.world == 1:
        return decide()
    return _moved(state.runtime.broadcast(lambda: _moved(decide(), "cpu")), state.runtime.device)


def _moved(allocation: Allocation, device: torch.device | str) -> Allocation:
    both = move((allocation.masks, allocation.multipliers), device)
    return dataclasses.replace(allocation, masks=both[0], multipliers=both[1])


def shared(journal: Journal, runtime: Runtime) -> Journal:
    """The main process's journal, for all processes."""
    return journal if runtime.world == 1 else _Shared(journal, runtime)


class _Shared(Journal):
    """The main process asks its journal and broadcasts the answers."""

    def __init__(self, journal: Journal, runtime: Runtime) -> None:
        self._journal, self._runtime = journal, runtime

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "keep_level":
            return super().__getattribute__(name)
        ask = self._runtime.on_main if name.startswith("keep_") else self._runtime.broadcast
        return lambda *asked: ask(lambda: getattr(self._journal, name)(*asked))

    def keep_level(self, result: LevelResult) -> LevelResult:
        record = self._runtime.broadcast(lambda: self._journal.keep_level(result).record)
        return dataclasses.replace(result, record=record)
