"""Files of torch.save: the places of their tensors. No code is run, and no values are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsight.checkpoint.archive import Record, read_archive
from sparsight.checkpoint.entry import (
    LONGEST_HEADER,
    Checkpoint,
    CheckpointError,
    Entry,
    check_entries,
    check_header,
    open_file,
    read_bytes,
    row_major,
    size_of,
)
from sparsight.checkpoint.named import Item, named
from sparsight.checkpoint.opcodes import Pickles
from sparsight.checkpoint.rebuild import Inert, OddTensor, Storages, Stored, spelled, storage_key

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # a file of the old format begins with these
_VERSIONS = range(1, 11)  # of archives that PyTorch reads
_LONGEST_FACT = 1000  # bytes
_MOST_SHOWN, _ALWAYS_SHOWN = 4, 512 << 20
"""Largest ratio of all tensors (tied ones count once) to the bytes of their file, and bytes that are always fine."""


def read_torch(path: Path) -> Checkpoint:
    """The tensors of a file written by torch.save, by their dotted names.

    Names leave out dictionaries of `named.WRAPPERS`. Other objects next to tensors are entries too. An entry's part
    says whether it belongs to the network, to another dictionary, or to an optimiser.

    Raises: CheckpointError for a damaged file, beyond the limits of `entry` and `opcodes`, or without tensors.
    """
    size = size_of(path)
    if read_bytes(path, 0, min(size, 4)) == b"PK\x03\x04":
        kind, items, starts = "torch", *_archive(path, size)
    else:
        kind, items, starts = "torch, old format", *_stream(path, size)
    check_entries(path, len(items))
    found = _once([_placed(path, item, starts) for item in items])
    return Checkpoint(str(path), kind, tuple(_shown(found, size)), (path,))


def _archive(path: Path, size: int) -> tuple[list[Item], dict[str, int]]:
    """The contents of an archive, and where each of its storages starts."""
    records = read_archive(path, size)
    folder = next(iter(records)).partition("/")[0]
    pickled = records.get(f"{folder}/data.pkl")
    if pickled is None:
        raise CheckpointError(path, f"its archive has no {folder!r:.80}/data.pkl")
    check_header(path, "its pickle", pickled.size)
    _check_facts(path, folder, records)
    storages = Storages(views=False)
    loaded = Pickles(path, read_bytes(path, pickled.start, pickled.size), storages).load()
    starts = {}
    for storage in storages.found.values():
        record = records.get(f"{folder}/data/{storage.key}")
        if record is None or record.size < storage.nbytes:
            has = "is missing" if record is None else f"has {record.size:,} bytes, but needs {storage.nbytes:,}"
            raise CheckpointError(path, f"the record of the storage {storage.key!r:.40} {has}")
        starts[storage.key] = record.start
    return named(path, loaded), starts


def _check_facts(path: Path, folder: str, records: Mapping[str, Record]) -> None:
    """Raise CheckpointError unless PyTorch could read the archive."""
    texts = {}
    for name in ("byteorder", "version", ".data/version", ".data/serialization_id", ".storage_alignment"):
        record = records.get(f"{folder}/{name}")
        if record is not None:
            texts[name] = read_bytes(path, record.start, min(record.size, _LONGEST_FACT)).decode("utf-8", "replace")
    odd = next((name for name, value in texts.items() if "\ufffd" in value or len(value) >= _LONGEST_FACT), None)
    if odd is not None:
        raise CheckpointError(path, f"its record {odd} is damaged: {texts[odd]!r:.40}")
    if texts.get("byteorder", "little") != "little":
        what = f"it was written on a machine with the byte order {texts['byteorder']!r:.40}, expected 'little'"
        raise CheckpointError(path, what)
    version, alignment = (texts.get(".data/version") or texts.get("version", "")).strip(), ".storage_alignment"
    if not version.isdecimal() or int(version) not in _VERSIONS:
        most = _VERSIONS.stop - 1
        raise CheckpointError(path, f"its archive has the version {version!r:.40}, expected a number up to {most}")
    if not texts.get(alignment, "0").isdecimal():
        raise CheckpointError(path, f"its records are aligned to {texts[alignment]!r:.40}, expected a number")


def _stream(path: Path, size: int) -> tuple[list[Item], dict[str, int]]:
    """The contents of a file in the format before PyTorch 1.6, and where each of its storages starts.

    pickles: magic | protocol | facts | saved object | names of storages; then for each storage: elements | bytes
    """
    content = read_bytes(path, 0, min(size, LONGEST_HEADER))
    if content[257:262] == b"ustar":
        raise CheckpointError(path, "it is of PyTorch's format before 0.2, a tar file; save it again with a later one")
    storages = Storages(views=True)
    pickles = Pickles(path, content, storages)
    if pickles.load() != _MAGIC or pickles.load() != _PROTOCOL:
        raise CheckpointError(path, "it is not a file of torch.save")
    pickles.load()
    loaded, keys = pickles.load(), pickles.load()
    starts, at = {}, pickles.at
    with open_file(path) as file:
        for key in _keys(path, keys):
            storage = storages.found.get(key)
            file.seek(at)
            count = int.from_bytes(file.read(8), "little")
            if storage is None or key in starts or count * storage.dtype.itemsize != storage.nbytes:
                raise CheckpointError(path, f"the storage {key!r:.40} does not have the size that its pickle says")
            starts[key] = at + 8
            at += 8 + storage.nbytes
            if at > size:
                raise CheckpointError(path, f"it ends after {size:,} bytes, but needs {at:,}")
    missing = next((key for key in storages.found if key not in starts), None)
    if missing is not None:
        raise CheckpointError(path, f"the storage {missing!r:.40} is missing")
    return named(path, loaded), starts


def _keys(path: Path, keys: Any) -> list[str]:
    try:
        return [storage_key(key) for key in keys]
    except (TypeError, ValueError) as error:
        raise CheckpointError(path, "it does not name its storages") from error


# -- the tensors -----------------------------------------------------------------------------------------------


def _placed(path: Path, item: Item, starts: Mapping[str, int]) -> Entry:
    name, value, part = item.name, item.value, item.part
    if isinstance(value, OddTensor):
        return Entry(name, value.dtype, value.shape, path, obstacle=f"it is {value.what}", part=part)
    if not isinstance(value, Stored):
        what = f"{value.name:.80}, which is not rebuilt" if isinstance(value, Inert) else type(value).__name__
        return Entry(name, "", (), path, obstacle=f"not a tensor but a {what}", part=part)
    storage, dtype, shape = value.storage, spelled(value.dtype), value.shape
    if 0 in shape:
        return Entry(name, dtype, shape, path, part=part)
    size = value.dtype.itemsize
    if math.prod(shape) * size > storage.nbytes:
        return Entry(name, dtype, shape, path, obstacle="it is a view that shows its storage more than once", part=part)
    alike = all(n <= 1 or s == r for n, s, r in zip(shape, value.strides, row_major(shape), strict=True))
    start = starts[storage.key] + storage.start + value.first * size
    return Entry(name, dtype, shape, path, start, None if alike else value.strides, part=part)


def _once(entries: list[Entry]) -> list[Entry]:
    """Tied tensors, transposed or not, under their first name."""
    found: dict[tuple, list[Entry]] = {}
    for entry in entries:
        strides = entry.strides or row_major(entry.shape)
        lay = tuple(sorted((s, n) for n, s in zip(entry.shape, strides, strict=True) if n != 1))
        place = (entry.path, entry.offset, lay, entry.dtype) if entry.offset else (entry.name,)
        found.setdefault(place, []).append(entry)
    return [
        replace(
            first,
            aliases=tuple(e.name for e in others),
            turned=tuple(e for e in others if (e.shape, e.strides) != (first.shape, first.strides)),
        )
        if others
        else first
        for first, *others in found.values()
    ]


def _shown(entries: Sequence[Entry], size: int) -> Iterator[Entry]:
    """The entries. One that spans the file yet again, after many others did, is only listed."""
    left = max(_MOST_SHOWN * size, _ALWAYS_SHOWN)
    for entry in entries:
        if entry.offset:
            left -= entry.reach * getattr(torch, entry.dtype).itemsize
        if entry.offset and left < 0:
            what = f"it and the tensors before it span the file's bytes more than {_MOST_SHOWN} times"
            yield replace(entry, obstacle=what)
        else:
            yield entry
