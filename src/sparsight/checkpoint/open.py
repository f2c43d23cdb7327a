"""Opens a checkpoint and loads its tensors. Its content determines the format, not its name. No code in it is run."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparsight.checkpoint.entry import (
    Checkpoint,
    CheckpointError,
    Entry,
    check_entries,
    check_header,
    check_name,
    opened,
    read_bytes,
    size_of,
)
from sparsight.checkpoint.packed.read import read_safetensors
from sparsight.checkpoint.pytorch import read_torch
from sparsight.checkpoint.reading import read_elements
from sparsight.checkpoint.safetensors import strict_json
from sparsight.numerics.kernels.jit import each

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
_RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}  # by bytes per element


def open_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a checkpoint, and their places. Only headers are read, and no code is run.

    `path` is a .safetensors file, a .pt, .pth, .bin or .ckpt file of PyTorch, an index of shards, or a folder with
    one of these. Headers are bounded by `entry.LONGEST_HEADER`, `entry.MOST_ENTRIES`, `opcodes.MOST_OPCODES` and
    `MOST_OBJECTS`. Raises: CheckpointError.
    """
    if path.is_dir():
        return _folder(path)
    if path.name.endswith(".index.json"):
        return _sharded(path)
    return _file(path)


def _file(path: Path) -> Checkpoint:
    size = size_of(path)
    start = read_bytes(path, 0, min(size, 24))
    if start == b"version https://git-lfs.":
        raise CheckpointError(path, "it is a pointer of Git LFS, without the tensors: fetch them with git lfs pull")
    if not size:
        raise CheckpointError(path, "it is empty")
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return read_safetensors(path)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80" or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return read_torch(path)
    raise CheckpointError(path, "it is neither a safetensors file nor one of PyTorch")


def _folder(path: Path) -> Checkpoint:
    for name in INDEXES:
        if (path / name).exists():
            return _sharded(path / name)
    for name in SINGLES:
        if (path / name).exists():
            return _file(path / name)
    found = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".bin"))
    if len(found) == 1:
        return _file(path / found[0])
    which = f"it has {', '.join(found[:4])}: name one" if found else "it has none"
    raise CheckpointError(
        path, f"a folder must have one of {', '.join((*INDEXES, *SINGLES))}, or one checkpoint; {which}"
    )


def _sharded(index: Path) -> Checkpoint:
    size = size_of(index)
    check_header(index, "the index", size)
    content = strict_json(index, read_bytes(index, 0, size), "the index")
    where = content.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(index, "it has no weight_map of tensor names to files")
    shards: dict[str, list[str]] = {}
    for name, shard in where.items():
        check_name(index, name)
        if not isinstance(shard, str) or not shard or Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise CheckpointError(index, f"tensor {name!r:.80} is in {shard!r:.80}, expected a file beside the index")
        shards.setdefault(shard, []).append(name)
    entries: dict[str, Entry] = {}
    held: set[str] = set()
    for shard in sorted(shards):
        part = index.parent / shard
        if not part.exists():
            raise CheckpointError(index, f"the shard {shard!r} is missing; it should hold {shards[shard][0]!r}")
        for entry in _file(part).entries:
            names = [n for n in (entry.name, *entry.aliases) if where.get(n, shard) == shard]
            if names and names[0] not in entries:
                entries[names[0]] = replace(entry, name=names[0], aliases=tuple(names[1:]))
                held.update(names)
        check_entries(index, len(entries))
        missing = next((name for name in shards[shard] if name not in held), None)
        if missing is not None:
            raise CheckpointError(index, f"tensor {missing!r} should be in {shard!r}, which does not have it")
    parts = tuple(index.parent / shard for shard in sorted(shards))
    kind = "sharded safetensors" if index.name == INDEXES[0] else "sharded torch"
    return Checkpoint(str(index.parent), kind, tuple(entries.values()), parts)


# -- loading -----------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Load a state dict: every tensor of the network under each of its names; tied names share one tensor.

    `path` is a packed file, safetensors, a `.pt` or `.bin` file of PyTorch, shards, or a folder of these. No code
    in it is run. Raises: CheckpointError for a damaged file, before any tensor is returned.
    """
    return load_tensors(open_checkpoint(Path(path)))


def load_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Copies of all tensors of the network, under each of their names. Raises: CheckpointError."""
    wanted = [entry for entry in checkpoint.entries if entry.part == "network" and entry.dtype]
    found = {}
    for entry, tensor in zip(wanted, each(lambda i: _tensor(checkpoint, wanted[i]), len(wanted)), strict=True):
        found |= dict.fromkeys((entry.name, *entry.aliases), tensor)
        found |= {other.name: _tensor(checkpoint, other) for other in entry.turned if other.name in entry.aliases}
    return found


def _tensor(checkpoint: Checkpoint, entry: Entry) -> Tensor:
    if entry.obstacle is not None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} cannot be read: {entry.obstacle}")
    if entry.tensor is not None:
        return entry.tensor.clone()
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype) or entry.path is None:
        raise CheckpointError(entry.path or checkpoint.source, f"{entry.name!r:.80} has the dtype {entry.dtype!r:.40}")
    try:
        tensor = torch.empty(entry.shape, dtype=dtype)
    except RuntimeError as error:
        raise CheckpointError(entry.path, f"{entry.name!r:.80} needs more memory than there is") from error
    if entry.count:
        with ExitStack() as stack:
            out = tensor.view(-1).view(torch.uint8).numpy().view(_RAW[dtype.itemsize])
            read_elements(entry, opened(entry.path, stack), 0, entry.count, out)
    return tensor
