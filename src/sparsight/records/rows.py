"""Measurements of a run's networks by `evaluate`: a row per number, and the predicted classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sparsight.records.folder import RunFolder
from sparsight.records.record import SCHEMA


@dataclass(frozen=True)
class Row:
    """One number of one network, with its 95 % interval and number of samples, or None."""

    level: int
    role: Literal["level", "control"]
    id: str  # of the network, as in its record
    metric: str
    group: str  # a class, a corruption, a layer or a runtime; "" for the whole
    severity: int | None  # of a corruption
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Rows:
    """All measurements so far."""

    entries: tuple[Row, ...]
    schema: int = SCHEMA


def stored_rows(folder: RunFolder) -> tuple[Row, ...]:
    """The rows in rows.json; () if nothing was measured. Raises: DamagedFile."""
    return folder.value("rows", Rows).entries if (folder.path / "rows.json").exists() else ()


def store_rows(folder: RunFolder, rows: Sequence[Row]) -> None:
    """Replace rows.json, and delete the report, which may use the rows."""
    folder.write_value("rows", Rows(tuple(rows)))


def stored_predictions(folder: RunFolder) -> dict[str, Tensor]:
    """Predicted test classes by network id, and the right ones as "labels"; {} without any.

    The validation split has "validation ID" and "validation labels". Raises: DamagedFile.
    """
    there = (folder.path / "predictions.safetensors").exists()
    return folder.only("predictions")[0] if there else {}


def store_predictions(folder: RunFolder, predictions: Mapping[str, Tensor]) -> None:
    """Replace predictions.safetensors."""
    folder.write_only("predictions", predictions)
