"""The header of a safetensors file, read strictly: everything is checked.

8 bytes: length n of the header | n bytes: JSON | the tensors' bytes, end to end
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from sparsight.checkpoint.entry import (
    Checkpoint,
    CheckpointError,
    Entry,
    check_entries,
    check_header,
    check_name,
    read_bytes,
    size_of,
)
from sparsight.checkpoint.packed.head import LAYOUTS, SAFETENSORS, product
from sparsight.numerics.collecting import uncollected

_MOST_VALUES = 2_500_000
"""Upper limit of values in a JSON text; an object counts as four, because it takes more memory."""
_MOST_DIMENSIONS = 64
_FIELDS = ("dtype", "shape", "data_offsets")
_Fields = tuple[Any, ...]
"""A tensor's fields in the order of `_FIELDS`, with tuples instead of lists: takes less memory and time."""
_SHOWN = 80

_DTYPES = {name: (dtype, 8 * LAYOUTS[dtype].size) for dtype, name in SAFETENSORS.items()}
_DTYPES |= {"F6_E2M3": ("float6_e2m3", 6), "F6_E3M2": ("float6_e3m2", 6), "F4": ("float4_e2m1", 4)}
"""For each dtype, its name in torch and its bits."""


@uncollected()
def read_safetensors(path: Path) -> Checkpoint:
    """The tensors of a file, in the order of their bytes.

    Raises: CheckpointError for a header that is longer than the file, beyond the limits, not UTF-8, not JSON or with
    repeated names; an unknown dtype; a shape that does not fit its bytes; bytes outside the file, in two tensors or in
    none.
    """
    size = size_of(path)
    if size < 8:
        raise CheckpointError(
            path, f"a safetensors file starts with 8 bytes, the length of its header, but it has {size}"
        )
    length = int.from_bytes(read_bytes(path, 0, 8), "little")
    if length > size - 8:
        raise CheckpointError(path, f"its header claims {length:,} bytes, but it has {size:,} bytes")
    check_header(path, "its header", length)
    header = _parse(path, read_bytes(path, 8, length))
    data = 8 + length
    found = [_entry(path, name, value, data, size - data) for name, value in header.items() if name != "__metadata__"]
    found.sort(key=lambda pair: (pair[0].offset, pair[1]))
    _check_cover(path, found, data, size)
    entries = tuple(entry for entry, _ in found)
    return Checkpoint(str(path), "safetensors", entries, (path,), header["__metadata__"])


def strict_json(path: Path, text: bytes, what: str) -> dict[str, Any]:
    """A JSON object in UTF-8 without repeated names. Raises: CheckpointError."""

    def pairs(items: list[tuple[str, Any]]) -> _Fields | dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice, _ = Counter(name for name, _ in items).most_common(1)[0]
            raise CheckpointError(path, f"{what} names {_show(twice)} twice")
        if len(found) != len(_FIELDS) or not all(name in found for name in _FIELDS):
            return found
        return tuple(tuple(x) if isinstance(x := found[name], list) else x for name in _FIELDS)

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not a JSON number")

    if sum(map(text.count, (b",", b"["))) + 4 * text.count(b"{") > _MOST_VALUES:
        raise CheckpointError(path, f"{what} has more than {_MOST_VALUES:,} values")
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise CheckpointError(path, f"{what} is not UTF-8 at byte {error.start}") from error
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"{what} is not JSON: {str(error)[:_SHOWN]}") from error
    value = _plain(value)
    if not isinstance(value, dict):
        raise CheckpointError(path, f"{what} is a JSON {type(value).__name__}, expected an object")
    return value


def _plain(value: Any) -> Any:
    """The original object, if it only looked like a tensor's fields."""
    return dict(zip(_FIELDS, value, strict=True)) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    text = ascii(value) if not isinstance(value, int) or abs(value) < 1 << 200 else "a huge number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    header = strict_json(path, text, "its header")
    header["__metadata__"] = metadata = _plain(header.get("__metadata__", {}))
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(path, "its __metadata__ is not an object of strings")
    check_entries(path, len(header))
    return header


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(path: Path, name: str, value: Any, data: int, room: int) -> tuple[Entry, int]:
    """The entry, and where its bytes end."""
    check_name(path, name)
    try:
        dtype, shape, start, end = _checked(value, room)
    except ValueError as error:
        raise CheckpointError(path, f"tensor {_show(name)} {error}") from error
    return Entry(name, dtype, shape, path, data + start), data + end


def _checked(value: Any, room: int) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, first and last byte of a tensor. Raises: ValueError for an invalid entry."""
    if not isinstance(value, tuple):
        raise ValueError(f"has {_show(value)}, expected dtype, shape and data_offsets")
    dtype, shape, span = value
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"has the dtype {_show(dtype)}, expected one of {', '.join(_DTYPES)}")
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise ValueError(f"has the shape {_show(shape)}, expected up to {_MOST_DIMENSIONS} sizes")
    if not isinstance(span, tuple) or len(span) != 2 or not all(map(_is_size, span)) or span[0] > span[1]:
        raise ValueError(f"has data_offsets {_show(span)}, expected [start, end]")
    start, end = span
    if end > room:
        raise ValueError(f"ends at byte {_show(end)} of {room:,}: the file is cut short, or lies")
    spelled, bits = _DTYPES[dtype]
    if product((bits, *shape), 8 * room) != 8 * (end - start):
        raise ValueError(f"of {dtype} {_show(shape)} does not fill its {end - start:,} bytes exactly")
    return spelled, shape, start, end


def _check_cover(path: Path, found: list[tuple[Entry, int]], data: int, size: int) -> None:
    """Raise CheckpointError unless every byte belongs to exactly one tensor."""
    at, before = data, None
    for entry, end in found:
        if entry.offset != at:
            what = "share bytes" if entry.offset < at else f"leave {entry.offset - at:,} bytes between them"
            left = "the header" if before is None else f"tensor {_show(before.name)}"
            raise CheckpointError(path, f"{left} and tensor {_show(entry.name)} {what}")
        at, before = end, entry
    if at != size:
        raise CheckpointError(path, f"{size - at:,} bytes at its end belong to no tensor")
