"""What commands speak of: an unpruned network with the masks of another, a pruned network of a run or a checkpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sparsight.checkpoint import load_tensors, open_checkpoint
from sparsight.cli.errors import Misuse, NotFound
from sparsight.cli.run_options import look_for
from sparsight.model.masks import all_kept
from sparsight.pruning.sipp.certificate import pruning_of
from sparsight.records.files import DamagedFile, there
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord
from sparsight.records.tensors import tensors_digest
from sparsight.runs.again import names_of
from sparsight.types import Data, Masks, Split, StateDict
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo

INPUTS = 64
"""Real inputs that a network made smaller or exported is compared on."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """An unpruned network, a pruning of it, and the data that both are for."""

    source: str
    unpruned: str  # where the weights before pruning are from
    data: Data
    before: nn.Module
    masks: Masks
    seed: int
    notes: tuple[str, ...] = ()


def of_checkpoint(path: Path, unpruned: Path | None, model: str | None, data: str | None) -> Pruned:
    """The network in a file, against the unpruned weights in another.

    Misuse where something is not named; NotFound; CheckpointError; ValueError where it is no pruning.
    """
    _there(path)
    missing = [name for name, value in (("--dense", unpruned), ("--model", model), ("--data", data)) if value is None]
    if unpruned is None or model is None or data is None:
        raise Misuse(
            f"{path} is a checkpoint and not a run, so the unpruned weights (--dense), the network (--model) and the "
            f"data (--data) must be named: got no {', '.join(missing)}"
        )
    _there(unpruned)
    source, network = _network(model, data, 0)
    before = _filled(network, load_tensors(open_checkpoint(unpruned)), str(unpruned), model)
    after = _filled(network, load_tensors(open_checkpoint(path)), str(path), model)
    return Pruned(str(path), str(unpruned), source, before, pruning_of(before, after, all_kept(before)), 0)


def of_run(path: Path, number: int | None, model: str | None, data: str | None, as_pruned: bool) -> Pruned:
    """A level of a run, against the weights that were scored for it; by default the level that was chosen.

    With `as_pruned` the network is that of before the level's training. ValueError where its weights were trained.
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
            masks = _untrained(before, after, masks, where)
    notes = []
    if as_pruned:
        notes.append(f"This is {where} as it was pruned, before its training; the weights in the folder are others.")
        if any(word in json.dumps(dict(record.operation)) for word in ("SiPPRand", "SiPPHybrid", "Rescale")):
            notes.append("Its recipe may have reweighted what it kept; this is the bound of the mask alone.")
    return Pruned(where, unpruned, source, before, masks, run.seed, tuple(notes))


def trained(path: Path, number: int | None, model: str | None, data: str | None) -> tuple[str, Data, nn.Module]:
    """A pruned level of a run with its weights, by default the chosen one: what to call it, its data, the network."""
    with RunFolder.open(path) as folder:
        record = _level(folder, number)
        spec, source, network = _made_again(folder, model, data)
        where = f"level {record.level} of {path}"
        return where, source, _filled(network, _weights(folder, record), where, spec)


def network_of(path: Path, number: int | None, model: str | None, data: str | None) -> tuple[str, nn.Module, Tensor]:
    """A pruned network in evaluation mode, of a run or of a checkpoint: what to call it, and real inputs of it.

    Errors as of `of_checkpoint`; Misuse for inputs that are no tensor.
    """
    _there(path)
    if (path / "run.json").exists():
        where, source, network = trained(path, number, model, data)
    elif model is None or data is None or number is not None:
        got = "--level, which is of runs" if number is not None else f"no {'--data' if model else '--model'}"
        wanted = "name its network (--model) and the data it is for (--data)"
        raise Misuse(f"{path} is a checkpoint and not a run: {wanted}, got {got}")
    else:
        source, network = _network(model, data, 0)
        where, network = str(path), _filled(network, load_tensors(open_checkpoint(path)), str(path), model)
    split = source.validation
    x = split.x if isinstance(split, Split) else next(iter(split))
    x = x[0] if isinstance(x, tuple | list) else x
    if not isinstance(x, Tensor):
        raise Misuse(f"the inputs of {source.name} must be one tensor, got {type(x).__name__}")
    return where, network.eval(), x[:INPUTS]


# -- a level of a run ------------------------------------------------------------------------------------------


def _made_again(folder: RunFolder, model: str | None, data: str | None) -> tuple[str, Data, nn.Module]:
    """The name of a run's network, its data, and the network with its initial weights."""
    spec, name = names_of(folder, model, data)
    return spec, *_network(spec, name, folder.record.seed)


def _level(folder: RunFolder, number: int | None) -> LevelRecord:
    """The level of that number, which must be pruned; without one that which was chosen, or the last."""
    levels = [level for level in folder.levels() if level.role == "level"]
    pruned = ", ".join(str(level.level) for level in levels if level.kept < level.total) or "none yet"
    if number is None:
        choice = folder.record.chosen
        number = choice.level if choice is not None else levels[-1].level if levels else 0
    found = next((level for level in levels if level.level == number), None)
    if found is None:
        raise Misuse(f"{folder.path} has no level {number}: pruned levels are {pruned}")
    if found.kept == found.total:
        raise Misuse(f"level {number} of {folder.path} is not pruned; name one with --level: pruned are {pruned}")
    return found


def level_of(folder: RunFolder, number: int) -> LevelRecord:
    """The level of that number, pruned or not. Misuse if there is none."""
    levels = {one.level: one for one in folder.levels() if one.role == "level"}
    if number not in levels:
        raise Misuse(f"{folder.path} has no level {number}: expected one of {', '.join(map(str, levels))}")
    return levels[number]


def _check_origin(record: LevelRecord, path: Path, as_pruned: bool) -> None:
    """Refuse a level whose network before or after pruning the folder does not hold."""
    score = record.operation.get("score")
    score = score if isinstance(score, Mapping) else {}
    where = f"level {record.level} of {path}"
    if score.get("start") is not None:
        raise ValueError(
            f"no certificate for {where}: its weights were drawn anew before they were scored and pruned, and what was "
            "drawn is not kept; expected a level that pruned stored or initial weights"
        )
    if as_pruned and score.get("propagate"):
        raise ValueError(
            f"no certificate for {where} as it was pruned: its recipe also set biases and norms to 0 that no gradient "
            "reached (propagate), which of them is not kept, and no bound covers them; expected a run without it"
        )


def _scored(folder: RunFolder, record: LevelRecord, network: nn.Module) -> tuple[str, StateDict]:
    """The weights that the level's masks were chosen for, and what they are called."""
    levels = [level for level in folder.levels() if level.role == "level"]
    come_from = record.operation.get("score_from")
    if come_from != "init" and record.parent is not None:
        wanted = levels[0].id if come_from == "dense" else record.parent
        parent = next((level for level in levels if level.id == wanted), None)
        if parent is None:
            what = f"the level {wanted!r:.80}, whose weights level {record.level} pruned, is not in it"
            raise DamagedFile(folder.path / "levels.jsonl", what)
        return f"level {parent.level}", _weights(folder, parent)
    initial = network.state_dict()
    if tensors_digest(initial) != folder.record.model["fingerprint"]:
        raise ValueError(
            f"level {record.level} of {folder.path} pruned the initial weights, which are not kept, and the network "
            "made again has others; it must be the one of the run, made from its seed"
        )
    return "the initial weights", initial


def _weights(folder: RunFolder, record: LevelRecord) -> StateDict:
    try:
        return folder.weights(record)
    except FileNotFoundError as error:
        raise NotFound(str(error)) from error


def _untrained(before: nn.Module, after: nn.Module, masks: Masks, where: str) -> Mapping[str, Tensor]:
    try:
        return pruning_of(before, after, masks)
    except ValueError as error:
        raise ValueError(
            f"no certificate for {where}: {error}. --as-pruned speaks of it as it was pruned, before that training"
        ) from error


# -- networks --------------------------------------------------------------------------------------------------


def _there(path: Path) -> None:
    if not there(path):
        raise NotFound(f"there is no {path}")


def _network(spec: str, data: str, seed: int) -> tuple[Data, nn.Module]:
    """The data, and the network that is named, made for them."""
    look_for("data", data, readers.KNOWN)
    look_for("model", spec, zoo.KNOWN)
    try:
        source = readers.load(data)
        return source, zoo.build(spec, source, seed)
    except TypeError as error:
        raise Misuse(str(error)) from error


def _filled(network: nn.Module, tensors: Mapping[str, Tensor], where: str, spec: str) -> nn.Module:
    """A copy of the network with these weights. Misuse, naming the first tensor that does not fit."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            has = ", ".join(sorted(tensors)[:6])
            raise Misuse(f"{where} does not fit {spec}: it has no {name!r}, but {has}")
        if tensors[name].shape != tensor.shape:
            got, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise Misuse(f"{where} does not fit {spec}: {name!r} must have shape {expected}, got {got}")
    others = sorted(set(tensors) - set(wanted))
    if others:
        raise Misuse(f"{where} does not fit {spec}: it has {', '.join(others[:6])}, which the network has not")
    made = copy.deepcopy(network)
    made.load_state_dict(tensors)
    return made
