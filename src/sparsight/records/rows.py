"""What evaluation measured of a run's networks: a row for each number, and the class that each sample was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sparsight.records.folder import RunFolder
from sparsight.records.record import SCHEMA


@dataclass(frozen=True)
class Row:
    """One number of one network. The interval, of 95 %, and the samples behind it are None without any."""

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
    """What has been measured so far."""

    entries: tuple[Row, ...]
    schema: int = SCHEMA


def stored_rows(folder: RunFolder) -> tuple[Row, ...]:
    """The rows in rows.json; () if nothing was measured. DamagedFile."""
    return folder.value("rows", Rows).entries if (folder.path / "rows.json").exists() else ()


def store_rows(folder: RunFolder, rows: Sequence[Row]) -> None:
    """Replace rows.json; the report goes, since it may speak of them."""
    folder.write_value("rows", Rows(tuple(rows)))


def stored_predictions(folder: RunFolder) -> dict[str, Tensor]:
    """The class that each network, by its id, gave each test sample, and the right ones as "labels"; {} without any.

    Likewise "validation ID" and "validation labels" of the validation split. DamagedFile.
    """
    there = (folder.path / "predictions.safetensors").exists()
    return folder.only("predictions")[0] if there else {}


def store_predictions(folder: RunFolder, predictions: Mapping[str, Tensor]) -> None:
    """Replace predictions.safetensors."""
    folder.write_only("predictions", predictions)
