"""A run of several processes: all compute, the main one decides and writes, and tells the others."""

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
    """ValueError, naming the first difference, unless every process was started for the same run."""
    records = runtime.gathered(record)
    for rank, other in enumerate(records):
        found = first_difference(records[0], other)
        if found is not None:
            where, first, here = found
            raise ValueError(
                f"the {runtime.world} processes are to run different things: {where} is {first!r:.120} in process 0 "
                f"and {here!r:.120} in process {rank}; start all with the same command, on the same data and weights"
            )


def told(state: RunState, decide: Callable[[], Allocation]) -> Allocation:
    """What the main process decides, on the device of each."""
    if state.runtime.world == 1:
        return decide()
    return _moved(state.runtime.told(lambda: _moved(decide(), "cpu")), state.runtime.device)


def _moved(allocation: Allocation, device: torch.device | str) -> Allocation:
    both = move((allocation.masks, allocation.multipliers), device)
    return dataclasses.replace(allocation, masks=both[0], multipliers=both[1])


def shared(journal: Journal, runtime: Runtime) -> Journal:
    """The journal of the main process, for all; that of another is not used."""
    return journal if runtime.world == 1 else _Shared(journal, runtime)


class _Shared(Journal):
    """Every process asks at the same places of a run; the main one asks its journal, and tells."""

    def __init__(self, journal: Journal, runtime: Runtime) -> None:
        self._journal, self._runtime = journal, runtime

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "keep_level":
            return super().__getattribute__(name)
        ask = self._runtime.alone if name.startswith("keep_") else self._runtime.told
        return lambda *asked: ask(lambda: getattr(self._journal, name)(*asked))

    def keep_level(self, result: LevelResult) -> LevelResult:
        record = self._runtime.told(lambda: self._journal.keep_level(result).record)
        return dataclasses.replace(result, record=record)
