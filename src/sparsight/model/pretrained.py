"""Loads weights from a file into a model, matching names and reporting what does not fit."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry
from sparsight.checkpoint.open import load_tensors, open_checkpoint
from sparsight.model.names import some


class WeightsNote(UserWarning):
    """How the names in a file were matched, and which of its tensors were not used."""


def load_into(path: str | os.PathLike[str], model: nn.Module) -> str:
    """Load the state dict in a file into `model`, in place; returns a sentence about what was read.

    `path` is anything that `analyze` reads: a packed file, safetensors, a PyTorch `.pt` or `.bin` file (also a training
    checkpoint with the state dict under some key), shards, or their folder. No code in it is run. Prefixes of all names
    ("module.", "_orig_mod.", "model.", "state_dict."), in the file or in the model, are stripped.

    Warns: `WeightsNote` about stripped prefixes and unused tensors. Raises: `CheckpointError` for an unreadable file;
    ValueError for a tensor that the file lacks or has with another shape, without loading anything.
    """
    path = Path(path)
    empty = [name for name, value in model.state_dict().items() if isinstance(value, Tensor) and value.is_meta]
    if empty:
        raise ValueError(f"{empty[0]!r} is on device 'meta' and cannot hold values: call model.to_empty(device='cpu')")
    try:
        entries = fitting(path, model)
        found = load_tensors(Checkpoint(str(path), "", tuple({id(e): e for e in entries.values()}.values())))
    except CheckpointError as error:
        raise CheckpointError(error.path, error.what, "load weights from") from error
    model.load_state_dict({name: found[entry.name] for name, entry in entries.items()}, strict=False)
    return f"{len(entries)} tensors from {path}"


def fitting(path: Path, model: nn.Module) -> dict[str, Entry]:
    """Which tensor of a file is which of the model's state dict, and of its shape. Nothing but headers is read.

    Warnings and errors as of `load_into`.
    """
    checkpoint = open_checkpoint(path)
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    names = {name for entry in checkpoint.entries for name in (entry.name, *entry.aliases)}
    there, said = _match(wanted, names)
    tied: dict[int, list[str]] = {}  # the names of each tensor, which files may hold once
    for name, value in model.state_dict(keep_vars=True).items():
        tied.setdefault(id(value), []).append(name)
    missing = [name for group in tied.values() if there.keys().isdisjoint(group) for name in group if name in wanted]
    if missing:
        raise ValueError(
            f"{path} does not fit {type(model).__name__}: it lacks {some(missing, 4)} "
            f"({len(missing)} of {len(wanted)} tensors); it holds {some(sorted(names), 4)}"
        )
    by_name = {name: entry for entry in checkpoint.entries for name in (entry.name, *entry.aliases)}
    by_name |= {turned.name: turned for entry in checkpoint.entries for turned in entry.turned}
    found = {name: by_name[other] for name, other in there.items()}
    odd = [name for name, entry in found.items() if entry.shape != wanted[name].shape]
    if odd:
        shapes = f"{found[odd[0]].shape} in the file and {tuple(wanted[odd[0]].shape)} in the model"
        more = f", and {len(odd) - 1} more tensors differ" if len(odd) > 1 else ""
        raise ValueError(f"{path} does not fit {type(model).__name__}: {odd[0]!r} has shape {shapes}{more}")
    unused = sorted(names - set(there.values()))
    notes = [*said, *([f"not used: {some(unused, 4)}"] if unused else [])]
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", WeightsNote, stacklevel=3)
    return found


def _match(wanted: Mapping[str, Tensor], names: set[str]) -> tuple[dict[str, str], list[str]]:
    """The name in the file of each tensor of the model, and notes on prefixes.

    Tries all possible prefixes of names in the file, or in the model, and takes the one that fits most tensors, the
    shortest among equals.
    """
    added = Counter(f[: -len(w)] for w in wanted for f in names if f".{f}".endswith(f".{w}"))
    taken = Counter(w[: -len(f)] for w in wanted for f in names if w.endswith(f".{f}"))
    ways = [(added[prefix], -len(prefix), prefix, "") for prefix in added]
    ways += [(taken[prefix], -len(prefix), "", prefix) for prefix in taken]
    if not ways:
        return {}, []
    _, _, in_file, in_model = max(ways)
    matched = {}
    for name in wanted:
        other = in_file + name.removeprefix(in_model) if name.startswith(in_model) else ""
        if other in names:
            matched[name] = other
    said = [f"the prefix {in_file!r} was stripped"] if in_file else []
    return matched, said + ([f"its names lack the prefix {in_model!r}"] if in_model else [])
