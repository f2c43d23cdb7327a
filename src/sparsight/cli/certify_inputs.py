"""The networks of commands: a pruned network from a run or a checkpoint, and its unpruned original."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sparsight.checkpoint import load
from sparsight.cli.errors import Misuse, NotFound, refusing
from sparsight.cli.run_options import look_for
from sparsight.deploy.network_of_run import names_of
from sparsight.model.masks import all_kept
from sparsight.pruning.sipp.certificate import pruning_of
from sparsight.records.files import DamagedFile, there
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord
from sparsight.records.tensors import tensors_digest
from sparsight.types import Data, Masks, Split, StateDict
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo
from sparsight.zoo.networks.build import own

INPUTS = 64
"""Validation inputs on which a compacted or exported network is compared."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """An unpruned network, the masks that prune it, and its data."""

    source: str
    unpruned: str  # source of the weights before pruning
    data: Data
    before: nn.Module
    masks: Masks
    seed: int
    notes: tuple[str, ...] = ()
    record: LevelRecord | None = None  # of a run


def of_checkpoint(path: Path, unpruned: Path | None, model: str | None, data: str | None) -> Pruned:
    """The network in a file, and its unpruned weights in another.

    Raises: Misuse if an option is missing; NotFound; CheckpointError; ValueError if it is not a pruning of the other.
    """
    check_exists(path)
    missing = [name for name, value in (("--dense", unpruned), ("--model", model), ("--data", data)) if value is None]
    if unpruned is None or model is None or data is None:
        raise Misuse(f"{path} is a checkpoint, which needs --dense, --model and --data: missing {', '.join(missing)}")
    check_exists(unpruned)
    source, network = _network(model, data, 0)
    before = _filled(network, load(unpruned), str(unpruned), model)
    after = _filled(network, load(path), str(path), model)
    return Pruned(str(path), str(unpruned), source, before, pruning_of(before, after, all_kept(before)), 0)


def of_run(path: Path, number: int | None, model: str | None, data: str | None, as_pruned: bool) -> Pruned:
    """A level of a run, by default the chosen one, and the weights that it was pruned from.

    `as_pruned` takes the level before its training. Raises: ValueError if its weights were trained.
    """
    with RunFolder.open(path) as folder:
        record = _level(folder, number)
        masks, run = folder.masks(record), folder.record
        spec, source, network = _made_again(folder, model, data)
        _check_origin(record, path, as_pruned)
        unpruned, weights = _scored(folder, record, network)
        before = _filled(network, weights, unpruned, spec)
        where = f"level {record.level} of {path}"
        if not as_pruned:
            after = _filled(network, _weights(folder, record), where, spec)
            said = f"cannot certify {where}: {{}}. Use --as-pruned to certify it before that training"
            with refusing(make=ValueError, form=said):
                masks = pruning_of(before, after, masks)
    notes = []
    if as_pruned:
        notes.append(f"This is {where} as it was pruned, before its training, not the weights in the run folder.")
        if any(word in json.dumps(dict(record.operation)) for word in ("SiPPRand", "SiPPHybrid", "Rescale")):
            notes.append("Its recipe may have reweighted the kept weights; this bound is for the mask alone.")
    return Pruned(where, unpruned, source, before, masks, run.seed, tuple(notes), record)


def trained(path: Path, number: int | None, model: str | None, data: str | None) -> tuple[str, Data, nn.Module]:
    """A pruned level of a run, by default the chosen one: its name, its data and its network."""
    with RunFolder.open(path) as folder:
        record = _level(folder, number)
        spec, source, network = _made_again(folder, model, data)
        where = f"level {record.level} of {path}"
        return where, source, _filled(network, _weights(folder, record), where, spec)


def network_of(path: Path, number: int | None, model: str | None, data: str | None) -> tuple[str, nn.Module, Tensor]:
    """A pruned network of a run or a checkpoint, in evaluation mode: its name, itself, and validation inputs.

    Raises: as `of_checkpoint`; Misuse for inputs that are not one tensor.
    """
    check_exists(path)
    if (path / "run.json").exists():
        where, source, network = trained(path, number, model, data)
    elif model is None or data is None or number is not None:
        if number is not None:
            raise Misuse(f"--level is for runs: {path} is a checkpoint")
        raise Misuse(
            f"{path} is a checkpoint, which needs --model and --data: missing {'--data' if model else '--model'}"
        )
    else:
        source, network = _network(model, data, 0)
        where, network = str(path), _filled(network, load(path), str(path), model)
    split = source.validation
    x = split.x if isinstance(split, Split) else next(iter(split))
    x = x[0] if isinstance(x, tuple | list) else x
    if not isinstance(x, Tensor):
        raise Misuse(f"the inputs of {source.name} must be a tensor, got {type(x).__name__}")
    return where, network.eval(), x[:INPUTS]


# -- a level of a run ------------------------------------------------------------------------------------------


def _made_again(folder: RunFolder, model: str | None, data: str | None) -> tuple[str, Data, nn.Module]:
    """The spec of a run's network, its data, and the network with its initial weights."""
    spec, name = names_of(folder, model, data)
    return spec, *_network(spec, name, folder.record.seed)


def _level(folder: RunFolder, number: int | None) -> LevelRecord:
    """The level of that number, by default the chosen one, otherwise the last. Raises: Misuse if it is not pruned."""
    levels = [level for level in folder.levels() if level.role == "level"]
    pruned = ", ".join(str(level.level) for level in levels if level.kept < level.total) or "none yet"
    if number is None:
        choice = folder.record.chosen
        number = choice.level if choice is not None else levels[-1].level if levels else 0
    found = next((level for level in levels if level.level == number), None)
    if found is None:
        raise Misuse(f"{folder.path} has no level {number}: its pruned levels are {pruned}")
    if found.kept == found.total:
        raise Misuse(f"level {number} of {folder.path} is not pruned: give --level, the pruned levels are {pruned}")
    return found


def level_of(folder: RunFolder, number: int) -> LevelRecord:
    """The level of that number, pruned or not. Misuse if there is none."""
    levels = {one.level: one for one in folder.levels() if one.role == "level"}
    if number not in levels:
        raise Misuse(f"{folder.path} has no level {number}: expected one of {', '.join(map(str, levels))}")
    return levels[number]


def _check_origin(record: LevelRecord, path: Path, as_pruned: bool) -> None:
    """Raise ValueError if the folder does not hold the level's network before or after pruning."""
    score = record.operation.get("score")
    score = score if isinstance(score, Mapping) else {}
    where = f"level {record.level} of {path}"
    if score.get("start") is not None:
        raise ValueError(
            f"cannot certify {where}: it pruned freshly drawn weights, which the run folder does not keep; "
            "choose a level that pruned stored or initial weights"
        )
    if as_pruned and score.get("propagate"):
        raise ValueError(
            f"cannot certify {where} as it was pruned: its recipe (propagate) also set biases and norms to 0, which no "
            "bound covers; choose a run without propagate"
        )


def _scored(folder: RunFolder, record: LevelRecord, network: nn.Module) -> tuple[str, StateDict]:
    """The name of the weights that the level pruned, and the weights."""
    levels = [level for level in folder.levels() if level.role == "level"]
    come_from = record.operation.get("score_from")
    if come_from != "init" and record.parent is not None:
        wanted = levels[0].id if come_from == "dense" else record.parent
        parent = next((level for level in levels if level.id == wanted), None)
        if parent is None:
            what = f"it lacks the level {wanted!r:.80}, which level {record.level} was pruned from"
            raise DamagedFile(folder.path / "levels.jsonl", what)
        return f"level {parent.level}", _weights(folder, parent)
    initial = network.state_dict()
    if tensors_digest(initial) != folder.record.model["fingerprint"]:
        raise ValueError(
            f"level {record.level} of {folder.path} pruned the initial weights, and the network now starts from "
            "others: give the same model, built from the run's seed"
        )
    return "the initial weights", initial


def _weights(folder: RunFolder, record: LevelRecord) -> StateDict:
    with refusing(FileNotFoundError, make=NotFound):
        return folder.weights(record)


# -- networks --------------------------------------------------------------------------------------------------


def check_exists(path: Path) -> None:
    if not there(path):
        raise NotFound(f"{path} does not exist")


def _network(spec: str, data: str, seed: int) -> tuple[Data, nn.Module]:
    """The data, and a network built for them."""
    look_for("data", data, readers.KNOWN)
    look_for("model", spec, zoo.KNOWN)
    with refusing(TypeError):
        source = readers.load(data)
        return source, zoo.build(spec, source, seed)


def named_network(spec: str, shape: tuple[int, ...] = (), seed: int = 0, others: Sequence[str] = ()) -> nn.Module:
    """A network of the zoo, by default for images of 28 × 28, or of package.module:attribute.

    Raises: NotFound, which also lists `others`; Misuse for anything but a network.
    """
    name = spec.lower().replace("_", "-")
    if name in zoo.KNOWN:
        return zoo.KNOWN[name](shape or (1, 28, 28), seed=seed)
    look_for("network", spec, (*others, *zoo.KNOWN))
    with refusing(TypeError):
        return own(spec, seed)


def _filled(network: nn.Module, tensors: Mapping[str, Tensor], where: str, spec: str) -> nn.Module:
    """A copy of the network with these weights. Raises: Misuse, with the first tensor that does not fit."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            has = ", ".join(sorted(tensors)[:6])
            raise Misuse(f"{where} does not fit {spec}: it has {has}, but not {name!r}")
        if tensors[name].shape != tensor.shape:
            got, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise Misuse(f"{where} does not fit {spec}: {name!r} must have shape {expected}, got {got}")
    others = sorted(set(tensors) - set(wanted))
    if others:
        raise Misuse(f"{where} does not fit {spec}, which has no {', '.join(others[:6])}")
    made = copy.deepcopy(network)
    made.load_state_dict(tensors)
    return made
