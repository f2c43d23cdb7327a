"""The ledger of a run's network: the one handed over, or another level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsight.checkpoint.open import open_checkpoint
from sparsight.deploy.ledger.count import Roles, ledger
from sparsight.deploy.ledger.records import Ledger, Request
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import level_folder
from sparsight.records.record import LevelRecord, RunRecord
from sparsight.zoo.networks import KNOWN

_LARGEST = 1 << 24  # numbers of an input that a record may ask for


def of_run(
    folder: RunFolder,
    record: LevelRecord | None = None,
    *,
    model: nn.Module | None = None,
    shape: tuple[int, ...] = (),
    measure: Request | None = None,
    count_macs: bool = True,
) -> Ledger:
    """The ledger of a level, by default the one handed over, or else the last whose weights are there.

    A network of the zoo and the shape of its input are known from the records; any other is given as `model`, and
    `shape` is that of an input without the batch. FileNotFoundError: no weights are there. Errors of `ledger`.
    """
    record = record or _default(folder)
    path, roles = _file(folder, record), Roles([layer.name for layer in record.layers])
    shape = shape or _shape(folder.record.data.get("facts"))
    model = model or _known(folder.record, shape, path)
    inputs = torch.zeros(1, *shape) if shape and model is not None else None
    return ledger(path, inputs, model=model, roles=roles, measure=measure, count_macs=count_macs)


def _shape(facts: Any) -> tuple[int, ...]:
    """The shape of an input, as the data's facts have it; empty if they do not."""
    found = facts.get("input_shape") if isinstance(facts, Mapping) else None
    whole = isinstance(found, (list, tuple)) and all(type(size) is int and size > 0 for size in found)
    return tuple(found) if found and whole and math.prod(found) <= _LARGEST else ()


def _known(run: RunRecord, shape: tuple[int, ...], path: Path) -> nn.Module | None:
    """The run's network if it is one of the zoo, and the file is of it; made without memory first, to see that."""
    spec = str(run.model.get("spec")).lower().replace("_", "-")
    classes = run.data.get("facts", {}).get("classes") if shape else None
    if spec not in KNOWN or type(classes) is not int or classes < 1:
        return None
    entries = open_checkpoint(path).entries
    stored = {name: entry.shape for entry in entries for name in (entry.name, *entry.aliases)}
    try:
        with torch.device("meta"):
            fits = {k: tuple(v.shape) for k, v in KNOWN[spec](shape, classes, seed=0).state_dict().items()} == stored
    except (ValueError, RuntimeError):
        return None
    return KNOWN[spec](shape, classes, seed=0) if fits else None


def _default(folder: RunFolder) -> LevelRecord:
    levels = [level for level in folder.levels() if level.role == "level" and folder.keeps(level)]
    choice = folder.record.chosen
    found = next((level for level in levels if choice is not None and level.id == choice.id), None)
    if not levels:
        raise FileNotFoundError(f"{folder.path} has no level whose weights are there yet")
    return found or levels[-1]


def _file(folder: RunFolder, record: LevelRecord) -> Path:
    choice, path = folder.record.chosen, folder.path / level_folder(record) / "model.safetensors"
    handed_over = folder.path / "model.safetensors"
    if choice is not None and choice.id == record.id and handed_over.exists():
        return handed_over
    if not path.exists():
        raise FileNotFoundError(f"the weights of {record.role} {record.level} were not kept in {folder.path}")
    return path
