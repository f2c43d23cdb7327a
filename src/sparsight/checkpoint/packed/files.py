"""Packs and unpacks checkpoints: a file, or an index with its shards."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch import Tensor, nn

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry, in_memory, opened
from sparsight.checkpoint.open import INDEXES, open_checkpoint
from sparsight.checkpoint.packed.head import FORMAT, LAYOUTS, SAFETENSORS, dense_bytes
from sparsight.checkpoint.packed.write import Lossy, Written, packed_file, spans_of
from sparsight.checkpoint.reading import read_elements
from sparsight.checkpoint.writing import refuse_write, safetensors_header, write_atomically

_THEN = "try again"


@dataclass(frozen=True)
class Packing:
    """Sizes of a packed checkpoint in bytes: `payload` for values, masks and ranks, `header` for the rest."""

    tensors: int
    dense: int
    payload: int
    header: int
    files: tuple[Path, ...]
    # objects of the source that are not part of the network: optimiser states, anything but tensors
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Total bytes of the files."""
        return self.payload + self.header


def pack(
    source: str | os.PathLike[str] | nn.Module | Mapping[str, Tensor],
    out: str | os.PathLike[str],
    *,
    lossy: Lossy | None = None,
) -> Packing:
    """Write a checkpoint, a model's state dict, or tensors by name as a packed file; returns its sizes.

    Each tensor takes its smallest form: values other than +0.0 with their places, a single value, or all values as
    they are. `load` returns the same names, shapes, dtypes and bits; -0.0 is a value like others. Tied tensors are
    stored once. A sharded checkpoint becomes a folder `out` of packed shards. `lossy` first rounds wider floats to
    "bfloat16" or "float16" (to nearest, ties to even).
    Memory holds a few million weights, the packed bytes of one tensor, and at most 64 MiB of earlier ones; the rest
    waits in a file next to `out`.

    Raises: CheckpointError if the source cannot be read or a tensor cannot be stored; OSError if writing `out` fails.
    """
    if lossy is not None and lossy not in get_args(Lossy):
        raise ValueError(f"expected lossy to be one of {', '.join(get_args(Lossy))}, got {lossy!r}")
    if isinstance(source, (nn.Module, Mapping)):
        tensors = source.state_dict() if isinstance(source, nn.Module) else source
        return _packed(in_memory("the tensors given", "tensors", tensors.items()), Path(out), lossy)
    parts = [_packed(part, target, lossy) for part, target in _files(Path(source), Path(out))]
    files = tuple(path for part in parts for path in part.files)
    left = tuple(name for part in parts for name in part.left_out)
    total = {key: sum(getattr(part, key) for part in parts) for key in ("tensors", "dense", "payload", "header")}
    return Packing(**total, files=files, left_out=left)


def unpack(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write a packed file, or a folder of packed shards, as plain safetensors to `out`.

    Tied tensors are written once per name. The metadata of the packed checkpoint (`__metadata__`) are restored.
    Raises: CheckpointError for a damaged or unpacked file, with `out` unchanged; OSError if `out` cannot be written.
    """
    for part, target in _files(Path(path), Path(out)):
        if part.format != FORMAT:
            raise CheckpointError(part.source, f"it is not a packed file but a {part.format} file")
        write_atomically(target, _dense_file(part), then=_THEN)


def _packed(checkpoint: Checkpoint, out: Path, lossy: Lossy | None) -> Packing:
    chosen = [e for e in checkpoint.entries if e.part == "network" and e.dtype]
    alone = [one for entry in chosen for one in _untied(entry)]
    written = Written()
    write_atomically(out, packed_file(written, alone, checkpoint.metadata, lossy, out.parent), then=_THEN)
    dense, names = sum(dense_bytes(e.dtype, e.shape) for e in alone), {e.name for e in chosen}
    left = tuple(e.name for e in checkpoint.entries if e.name not in names)
    return Packing(len(alone), dense, written.payload, out.stat().st_size - written.payload, (out,), left)


def _untied(entry: Entry) -> Iterator[Entry]:
    """The entry, and a separate entry for each of its names that shows it transposed."""
    turned = {other.name: other for other in entry.turned if other.name in entry.aliases}
    yield replace(entry, aliases=tuple(name for name in entry.aliases if name not in turned), turned=())
    yield from turned.values()


def _files(source: Path, out: Path) -> Iterator[tuple[Checkpoint, Path]]:
    """Each file of a checkpoint and its destination; writes an index after all files."""
    whole = open_checkpoint(source)
    if not whole.format.startswith("sharded"):
        if out.is_dir():
            refuse_write(out, IsADirectoryError(errno.EISDIR, "it is a folder"), _THEN)
        yield whole, out
        return
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        refuse_write(out, error, _THEN)
    where: dict[str, str] = {}
    for path in whole.files:
        part = [entry for entry in whole.entries if entry.path == path]
        target = out / f"{path.stem}.safetensors"
        yield replace(open_checkpoint(path), entries=tuple(part)), target
        where |= {name: target.name for entry in part for name in (entry.name, *entry.aliases)}
    total = sum(dense_bytes(e.dtype, e.shape) for e in whole.entries if e.dtype in LAYOUTS)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_atomically(out / INDEXES[0], [json.dumps(index, indent=2).encode()], then=_THEN)


def _dense_file(checkpoint: Checkpoint) -> Iterator[Any]:
    """The bytes of a safetensors file of these tensors."""
    order = [(name, entry) for entry in checkpoint.entries for name in (entry.name, *entry.aliases)]
    sizes = [dense_bytes(entry.dtype, entry.shape) for _, entry in order]
    if any(size % LAYOUTS[e.dtype].size for size, (_, e) in zip(np.cumsum([0, *sizes]), order, strict=False)):
        order.sort(key=lambda pair: -LAYOUTS[pair[1].dtype].size)  # keeps elements aligned
    of = ((name, SAFETENSORS[e.dtype], list(e.shape), dense_bytes(e.dtype, e.shape)) for name, e in order)
    yield safetensors_header(checkpoint.metadata, of)
    for _, entry in order:
        with ExitStack() as stack:
            assert entry.path is not None
            file = opened(entry.path, stack)
            for first, last in spans_of(entry.count):
                words = np.empty(last - first, LAYOUTS[entry.dtype].word)
                read_elements(entry, file, first, last, words)
                yield words.data
