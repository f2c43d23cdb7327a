"""The network of a run from its records: names, file, class and input shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from sparsight.checkpoint.open import open_checkpoint
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import level_folder
from sparsight.records.record import LevelRecord, RunRecord
from sparsight.zoo import data as readers
from sparsight.zoo.networks import KNOWN

_LARGEST = 1 << 24  # most numbers in an input that a record may specify


def input_shape(run: RunRecord) -> tuple[int, ...]:
    """The shape of an input from the data's facts; empty if unknown."""
    facts = run.data.get("facts")
    found = facts.get("input_shape") if isinstance(facts, Mapping) else None
    whole = isinstance(found, (list, tuple)) and all(type(size) is int and size > 0 for size in found)
    return tuple(found) if found and whole and math.prod(found) <= _LARGEST else ()


def known_network(run: RunRecord, shape: tuple[int, ...], path: Path, *, empty: bool = False) -> nn.Module | None:
    """The run's network, if it is from the zoo and fits the file. With `empty`, on the meta device."""
    spec = str(run.model.get("spec")).lower().replace("_", "-")
    classes = run.data.get("facts", {}).get("classes") if shape else None
    if spec not in KNOWN or type(classes) is not int or classes < 1:
        return None
    entries = open_checkpoint(path).entries
    stored = {name: entry.shape for entry in entries for name in (entry.name, *entry.aliases)}
    try:
        with torch.device("meta"):
            network = KNOWN[spec](shape, classes, seed=0)
    except (ValueError, RuntimeError):
        return None
    if {k: tuple(v.shape) for k, v in network.state_dict().items()} != stored:
        return None
    return network if empty else KNOWN[spec](shape, classes, seed=0)


def default_level(folder: RunFolder) -> LevelRecord:
    """The chosen level, otherwise the last with weights on disk. Raises: FileNotFoundError without any."""
    levels = [level for level in folder.levels() if level.role == "level" and folder.keeps(level)]
    choice = folder.record.chosen
    found = next((level for level in levels if choice is not None and level.id == choice.id), None)
    if not levels:
        raise FileNotFoundError(f"{folder.path} has no level with stored weights yet")
    return found or levels[-1]


def level_file(folder: RunFolder, record: LevelRecord) -> Path:
    """The file of a level's weights. Raises: FileNotFoundError if they were not kept."""
    choice, path = folder.record.chosen, folder.path / level_folder(record) / "model.safetensors"
    chosen_file = folder.path / "model.safetensors"
    if choice is not None and choice.id == record.id and chosen_file.exists():
        return chosen_file
    if not path.exists():
        raise FileNotFoundError(f"the weights of {record.role} {record.level} were not kept in {folder.path}")
    return path


class Unnamed(ValueError):
    """The network or data of a run are the user's code, but were not named again."""


def names_of(folder: RunFolder, model: str | None, data: str | None) -> tuple[str, str]:
    """The names of the network and data: as given, otherwise from the records if they are in the zoo.

    Raises: Unnamed.
    """
    run, path = folder.record, folder.path
    spec, name = model or run.model.get("spec"), data or run.data["name"]
    if data is None and name not in readers.KNOWN:
        raise Unnamed(f"the data of {path}, {name!r}, are your own: give --data package.module:attribute")
    if spec is None:
        raise Unnamed(f"the network of {path} was built in Python: give --model package.module:attribute")
    if model is None and ":" in spec:
        raise Unnamed(f"the network of {path} is your own code, which must be named again: add --model {spec}")
    return spec, name
