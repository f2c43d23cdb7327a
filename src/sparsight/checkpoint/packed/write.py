"""Writes packed files: each tensor in its smallest form, chunk by chunk."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch

from sparsight.checkpoint.entry import CheckpointError, Entry, check_name, opened
from sparsight.checkpoint.packed import chunks
from sparsight.checkpoint.packed.head import (
    ALIGNED,
    CHUNK,
    CONSTANT,
    FORMAT,
    LAYOUTS,
    RAW,
    SAFETENSORS,
    SPARSE,
    SUFFIX,
    VERSION,
    dense_bytes,
    head,
    padding,
)
from sparsight.checkpoint.packed.read import plain_checksum
from sparsight.checkpoint.reading import read_elements
from sparsight.checkpoint.writing import safetensors_header
from sparsight.numerics.kernels.jit import each

Lossy = Literal["bfloat16", "float16"]
_IN_MEMORY = 1 << 26  # bytes of a packed file to hold before they move to a file next to it
_PIECE = 1 << 22


@dataclass
class Written:
    """The contents of a file so far; its header is written last."""

    tensors: list[tuple[str, str, list[int], int]] = field(default_factory=list)  # name, dtype, shape, bytes
    plain: list[int] = field(default_factory=list)  # checksums of the plain ones
    payload: int = 0  # bytes without padding, and without heads of tensors or chunks


@dataclass(frozen=True)
class Values:
    """The words of a tensor, part by part, from memory or a file."""

    entry: Entry
    dtype: str  # their dtype when packed
    file: int | None
    tensor: torch.Tensor | None

    def words(self, first: int, last: int) -> np.ndarray:
        """The bits of weights first..last."""
        if self.tensor is None:
            assert self.file is not None
            out = np.empty(last - first, LAYOUTS[self.entry.dtype].word)
            read_elements(self.entry, self.file, first, last, out)
        else:
            raw = self.tensor[first:last].contiguous().view(torch.uint8).numpy()
            out = raw.view(LAYOUTS[self.entry.dtype].word)
        if self.dtype == self.entry.dtype:
            return out
        wide = torch.from_numpy(out.view(np.uint8)).view(getattr(torch, self.entry.dtype))
        narrow = wide.to(getattr(torch, self.dtype))
        if bool((narrow.isinf() & wide.isfinite()).any()):
            what = f"{self.entry.name!r:.80} has values that are too large for {self.dtype}"
            raise CheckpointError(self.entry.path or "the tensors given", what, "pack")
        return narrow.view(torch.uint8).numpy().view(LAYOUTS[self.dtype].word)


def packed_file(
    written: Written,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    lossy: Lossy | None = None,
    folder: Path | None = None,
) -> Iterator[Any]:
    """The bytes of a packed file with these tensors, in this order, and `metadata`. Fills in `written`.

    Memory holds a few chunks, the packed bytes of one tensor, and up to 64 MiB of earlier ones; the rest waits in
    a file in `folder`. Raises: CheckpointError for a tensor that cannot be read or stored.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(folder) if folder else None) as file:
        for entry in entries:
            _add(written, file, entry, lossy)
        yield _header(written, entries, metadata, lossy)
        file.seek(0)
        while piece := file.read(_PIECE):
            yield piece


def _header(written: Written, entries: Sequence[Entry], metadata: Mapping[str, str], lossy: Lossy | None) -> bytes:
    facts = {
        "tensors": len(written.tensors),
        "plain": written.plain,
        "aliases": {alias: entry.name for entry in entries for alias in entry.aliases},
        "metadata": {**metadata},
        "lossy": f"wider floats rounded to {lossy}" if lossy else "",
    }
    text = json.dumps(facts, separators=(",", ":"))
    own = {"format": FORMAT, "version": VERSION, "facts": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}
    return safetensors_header(own, written.tensors)


def _add(written: Written, file: IO[bytes], entry: Entry, lossy: Lossy | None) -> None:
    with ExitStack() as stack:
        values = values_of(entry, lossy, stack)
        shape, count = list(entry.shape), entry.count
        encoding, found = _encoded(values, count)
        dense = dense_bytes(values.dtype, shape)
        sizes = [len(chunk) for chunk in found]
        heads = len(head(entry.name, encoding, values.dtype, shape, CHUNK, sizes, sizes)) + len(SUFFIX)
        if heads + sum(sizes) < dense:
            file.writelines(_add_packed(written, entry.name, encoding, values.dtype, shape, found))
        elif dense % ALIGNED or entry.name.endswith(SUFFIX):  # only packed tensors may have such a name
            raw = [values.words(*span).tobytes() for span in spans_of(count)]
            file.writelines(_add_packed(written, entry.name, RAW, values.dtype, shape, raw))
        else:
            file.writelines(_add_plain(written, entry.name, values, shape, count))


def values_of(entry: Entry, lossy: Lossy | None, stack: ExitStack) -> Values:
    """The words of a tensor, ready to be read. Raises: CheckpointError if it cannot be packed."""
    where = entry.path or "the tensors given"
    if entry.obstacle is not None:
        raise CheckpointError(where, f"{entry.name!r:.80} cannot be read: {entry.obstacle}", "pack")
    if entry.dtype not in LAYOUTS:
        what = f"{entry.name!r:.80} has the dtype {entry.dtype!r:.40}, expected one of {', '.join(LAYOUTS)}"
        raise CheckpointError(where, what, "pack")
    for name in (entry.name + SUFFIX, *entry.aliases):
        check_name(where, name)
    if entry.name == "__metadata__" or (entry.name.endswith(SUFFIX) and not entry.count):
        raise CheckpointError(
            where, f"a tensor is called {entry.name!r}, a name that packed files use themselves", "pack"
        )
    narrow = lossy if lossy and entry.dtype in ("float64", "float32") else entry.dtype
    if entry.tensor is None:
        return Values(entry, narrow, opened(entry.path, stack) if entry.path else None, None)
    tensor = entry.tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return Values(entry, narrow, None, tensor)


def spans_of(count: int) -> list[tuple[int, int]]:
    """First and last weight of each chunk."""
    return [(first, min(first + (1 << CHUNK), count)) for first in range(0, count, 1 << CHUNK)]


def _encoded(values: Values, count: int) -> tuple[int, list[bytes]]:
    """All chunks, or the single value of all weights."""
    layout, spans = LAYOUTS[values.dtype], spans_of(count)

    def one(i: int) -> tuple[bytes | None, bytes]:
        words = values.words(*spans[i])
        alike = all((part == words[0]).all() for part in (words[:64], words))
        return (words[:1].tobytes() if alike else None), chunks.encode(words, layout)

    found = each(one, len(spans))
    first = found[0][0] if found else None
    if first is not None and all(value == first for value, _ in found):
        return CONSTANT, [first]
    return SPARSE, [chunk for _, chunk in found]


def _add_packed(
    written: Written, name: str, encoding: int, dtype: str, shape: list[int], found: list[bytes]
) -> list[bytes]:
    sizes = [len(chunk) for chunk in found]
    layout = LAYOUTS[dtype]
    written.payload += sum(sizes) - sum(chunks.head_size(c, layout) for c in found if encoding == SPARSE)
    length = len(head(name, encoding, dtype, shape, CHUNK, sizes, sizes)) + sum(sizes)
    found[-1] += bytes(padding(length, dense_bytes(dtype, shape)))
    sizes[-1] = len(found[-1])
    top = head(name, encoding, dtype, shape, CHUNK, sizes, [zlib.crc32(chunk) for chunk in found])
    written.tensors.append((name + SUFFIX, "U8", [len(top) + sum(sizes)], len(top) + sum(sizes)))
    return [top, *found]


def _add_plain(written: Written, name: str, values: Values, shape: list[int], count: int) -> Iterator[bytes]:
    checksum = plain_checksum(name, values.dtype, tuple(shape))
    for span in spans_of(count):
        piece = values.words(*span).tobytes()
        checksum = zlib.crc32(piece, checksum)
        yield piece
    size = dense_bytes(values.dtype, shape)
    written.payload += size
    written.plain.append(checksum)
    written.tensors.append((name, SAFETENSORS[values.dtype], shape, size))
