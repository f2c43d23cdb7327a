"""The events of a run, and the journal that stores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sparsight.measure.flow import Probe
from sparsight.records.record import LevelRecord, LevelTimes
from sparsight.train.observation import Observation
from sparsight.types import Masks, StateDict


@dataclass(frozen=True)
class LevelResult:
    """A level: its record, its weights (a copied state dict on the CPU) and its masks."""

    record: LevelRecord
    times: LevelTimes
    weights: StateDict
    masks: Masks


@dataclass(frozen=True)
class Event:
    """An event of a run: a level begins, reaches an evaluation point ("epoch"), or is done."""

    kind: Literal["begin", "epoch", "done"]
    role: Literal["level", "control"]
    level: int
    budget: int  # epochs that the level may take
    kept: int
    total: int
    observation: Observation | None = None
    record: LevelRecord | None = None


Watch = Callable[[Event], None]


class Journal(Protocol):
    """Stores a run, and restores it. The defaults store nothing."""

    def levels(self) -> Sequence[LevelRecord]:
        return ()

    def restore(self, record: LevelRecord) -> tuple[StateDict, Masks]:
        raise LookupError(f"level {record.level} is not stored")

    def rewind_point(self) -> StateDict | None:
        return None

    def keep_rewind_point(self, weights: StateDict) -> None:
        return None

    def progress(self) -> Mapping[str, Any] | None:
        return None

    def keep_progress(self, state: Mapping[str, Any]) -> None:
        return None

    def keep_level(self, result: LevelResult) -> LevelResult:
        return result

    def keep_probe(self, probe: Probe) -> None:
        return None


class Nowhere(Journal):
    """The journal of a run that is not stored."""
