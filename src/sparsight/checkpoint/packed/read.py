"""Reads packed files: their tensors, and their values chunk by chunk. Checksums are verified before use."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from sparsight.checkpoint import safetensors
from sparsight.checkpoint.entry import (
    Checkpoint,
    CheckpointError,
    Entry,
    check_name,
    open_file,
    opened,
    read_at,
    size_of,
)
from sparsight.checkpoint.packed import chunks
from sparsight.checkpoint.packed.head import CONSTANT, FORMAT, SAFETENSORS, SPARSE, SUFFIX, VERSION, Head, parse

_KEYS = {"version", "facts", "crc32"}
_FIRST = 256  # bytes to read first of a packed tensor, for its head
_PIECE = 1 << 20


def read_safetensors(path: Path) -> Checkpoint:
    """The tensors of a safetensors file, packed or not. Raises: CheckpointError."""
    found = safetensors.read_safetensors(path)
    packed = found.metadata.get("format") == FORMAT
    packed |= len(_KEYS & found.metadata.keys()) > 1  # a damaged packed file
    return _unfolded(path, found) if packed else found


def _unfolded(path: Path, file: Checkpoint) -> Checkpoint:
    """The tensors of a packed file under their original names; heads and plain tensors are checked.

    Raises: CheckpointError for another version, a damaged head, a wrong checksum, missing tensors or repeated names.
    """
    facts = _facts(path, file.metadata)
    found, plain = [], iter(facts["plain"])
    with open_file(path) as handle:
        ends = [*(entry.offset for entry in file.entries[1:]), size_of(path)]
        for entry, end in zip(file.entries, ends, strict=False):
            if entry.name.endswith(SUFFIX):
                found.append(_packed(path, handle, entry, end - entry.offset))
            else:
                _check_plain(path, handle, entry, end - entry.offset, next(plain, None))
                found.append(entry)
    if len(found) != facts["tensors"] or next(plain, None) is not None:
        raise CheckpointError(path, f"it holds {len(found):,} tensors, not as many as were packed")
    entries = _with_aliases(path, found, facts["aliases"])
    return Checkpoint(str(path), FORMAT, entries, (path,), {**facts["metadata"]})


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of the file, with the types that `write` wrote."""
    version = metadata.get("version")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(path, f"it looks like a packed file, but its format is {metadata.get('format')!r:.40}")
    if version != VERSION:
        what = f"it is a packed file of version {version!r:.40}, expected {VERSION!r}"
        raise CheckpointError(path, f"{what}; it needs another version of sparsight" if version else what)
    if metadata.keys() != {"format", *_KEYS}:
        raise CheckpointError(path, f"it is a packed file, but its metadata are {sorted(metadata)!s:.80}")
    text = metadata.get("facts", "")
    if metadata.get("crc32") != f"{zlib.crc32(text.encode('utf-8', 'replace')):08x}":
        raise CheckpointError(path, "it is damaged: the checksum of its metadata differs")
    facts = None
    try:
        facts = json.loads(text)
        kinds = {"tensors": int, "plain": list, "aliases": dict, "metadata": dict, "lossy": str}
        right = isinstance(facts, dict) and facts.keys() == kinds.keys()
        right = right and all(type(facts[key]) is kind for key, kind in kinds.items())
        right = right and all(isinstance(value, str) for value in facts["metadata"].values())
    except (ValueError, RecursionError):
        right = False
    if facts is None or not right:
        raise CheckpointError(path, "its metadata are not those of a packed file")
    return facts


def _packed(path: Path, handle: Any, entry: Entry, size: int) -> Entry:
    name = entry.name.removesuffix(SUFFIX)
    check_name(path, name)
    try:
        need: Head | int = min(_FIRST, size)
        while isinstance(need, int):
            handle.seek(entry.offset)
            need = parse(name, handle.read(need), entry.offset, size)
    except ValueError as error:
        raise CheckpointError(path, f"the packed tensor {name!r:.80} {error}") from error
    return replace(entry, name=name, dtype=need.dtype, shape=need.shape, packed=need)


def _check_plain(path: Path, handle: Any, entry: Entry, size: int, wanted: Any) -> None:
    handle.seek(entry.offset)
    found = plain_checksum(entry.name, entry.dtype, entry.shape)
    while size > 0 and (piece := handle.read(min(size, _PIECE))):
        found, size = zlib.crc32(piece, found), size - len(piece)
    if found != wanted:
        raise CheckpointError(path, f"the tensor {entry.name!r:.80} is damaged: its checksum differs")


def plain_checksum(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """The checksum of a plain tensor's name, dtype and shape, to continue with its bytes."""
    return zlib.crc32(json.dumps([name, SAFETENSORS.get(dtype, dtype), list(shape)]).encode())


def _with_aliases(path: Path, found: list[Entry], aliases: Mapping[str, Any]) -> tuple[Entry, ...]:
    names = [entry.name for entry in found] + list(aliases)
    known = {entry.name for entry in found}
    if len({*names}) < len(names) or not all(isinstance(to, str) and to in known for to in aliases.values()):
        raise CheckpointError(path, "it names a tensor twice, or ties one to a missing tensor")
    others: dict[str, list[str]] = {}
    for alias, to in aliases.items():
        check_name(path, alias)
        others.setdefault(to, []).append(alias)
    return tuple(replace(e, aliases=tuple(others[e.name])) if e.name in others else e for e in found)


# -- values ----------------------------------------------------------------------------------------------------


def read_packed(entry: Entry, file: int, first: int, last: int, out: np.ndarray) -> None:
    """Read weights first..last of a packed tensor, in row-major order, into `out`, with a dtype of their size.

    Holds about four chunks besides `out`. Raises: CheckpointError for a damaged chunk.
    """
    packed = entry.packed
    assert packed is not None
    words = out.view(packed.layout.word)
    for i in range(first // packed.per, -(-last // packed.per)):
        low, high = i * packed.per, min((i + 1) * packed.per, entry.count)
        if first <= low and high <= last:
            _decode(entry, packed, file, i, words[low - first : high - first])
            continue
        whole = np.empty(high - low, words.dtype)
        _decode(entry, packed, file, i, whole)
        a, b = max(first, low), min(last, high)
        words[a - first : b - first] = whole[a - low : b - low]


def nonzeros(entry: Entry) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The weights of a packed tensor other than +0.0, chunk by chunk.

    Yields their places (int64, ascending, in row-major order of the tensor) and their bits, as unsigned integers of the
    size of a weight. Raises: ValueError for a tensor that is not packed; CheckpointError if it is damaged.
    """
    packed = entry.packed
    if packed is None or entry.path is None:
        raise ValueError(f"expected a packed tensor, got {entry.name!r:.80}")
    with ExitStack() as stack:
        file = opened(entry.path, stack)
        for low in range(0, entry.count, packed.per):
            size = min(packed.per, entry.count - low)
            if packed.encoding != SPARSE:
                words = np.empty(size, packed.layout.word)
                read_packed(entry, file, low, low + size, words)
                (places,) = words.nonzero()
                values = words[places]
            else:
                content = _chunk(entry, packed, file, low // packed.per)
                try:
                    places, values = chunks.nonzero(content, packed.layout, size)
                except ValueError as error:
                    _damaged(entry, error)
            yield places.astype(np.int64) + low, values


def _chunk(entry: Entry, packed: Head, file: int, i: int) -> memoryview:
    start, end = packed.starts[i : i + 2]
    content = np.empty(end - start, np.uint8)
    read_at(entry, file, start, content)
    if zlib.crc32(content.data) != packed.sums[i]:
        _damaged(entry, ValueError("its checksum differs"))
    return content.data


def _decode(entry: Entry, packed: Head, file: int, i: int, out: np.ndarray) -> None:
    content = _chunk(entry, packed, file, 0 if packed.encoding == CONSTANT else i)
    size = out.itemsize if packed.encoding == CONSTANT else out.nbytes
    try:
        if packed.encoding == SPARSE:
            chunks.decode(content, packed.layout, out)
        elif len(content) < size or any(content[size:]):
            what = "its single value is missing" if packed.encoding == CONSTANT else "its bytes are too few"
            raise ValueError(what)
        else:
            out[...] = np.frombuffer(content[:size], out.dtype)
    except ValueError as error:
        _damaged(entry, error)


def _damaged(entry: Entry, error: ValueError) -> NoReturn:
    raise CheckpointError(entry.path, f"the packed tensor {entry.name!r:.80} is damaged: {error}") from error
