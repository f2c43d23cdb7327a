"""The directory of a torch.save archive, read strictly: records are uncompressed, unique and do not overlap."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sparsight.checkpoint.entry import CheckpointError, check_entries, check_header, open_file, read_bytes

_END = struct.Struct("<4sHHHHIIH")  # signature, disks, entries here, entries, size, offset, length of a comment
_LOCATOR = struct.Struct("<4sIQI")  # signature, disk, offset of the zip64 end, disks
_END64 = struct.Struct("<4sQHHIIQQQQ")  # signature, its size, versions, disks, entries here, entries, size, offset
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4s5H3I2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # placeholders for numbers in a zip64 field
_ENCRYPTED, _FOLDER = 0x2041, 0x10  # flags


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes start..start + size of the file."""

    name: str
    start: int
    size: int


def read_archive(path: Path, size: int) -> dict[str, Record]:
    """The records of an archive by name, in the order of its directory. Raises: CheckpointError."""
    count, length, offset, end = _directory(path, size)
    check_entries(path, count)
    check_header(path, "the directory of its archive", length)
    if offset + length != end:
        raise CheckpointError(path, "its archive is damaged: its directory is not where its end says")
    content = read_bytes(path, offset, length)
    heads, at = [], 0
    try:
        for _ in range(count):
            head, at = _head(content, at)
            heads.append(head)
    except (struct.error, ValueError) as error:
        raise CheckpointError(path, f"its archive is damaged: {error}") from error
    if at != length:
        raise CheckpointError(path, "its archive is damaged: its directory is longer than its entries")
    if len({head.name.lower() for head in heads}) < count:
        raise CheckpointError(path, "its archive names a record twice")
    _check_kind(path, [head.name for head in heads])
    return _records(path, heads, offset)


def _check_kind(path: Path, names: Sequence[str]) -> None:
    """Raise CheckpointError unless torch.save wrote the archive."""
    leaves = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in leaves or any("/code/" in name for name in names):
        what = "it is a TorchScript archive, which holds code; save the model's state_dict() instead"
    elif leaves & {"archive_format", "serialized_exported_program.json"}:
        what = "it is an archive of torch.export, which holds a program; save the model's state_dict() instead"
    elif "data.pkl" not in leaves:
        what = "it is a zip archive, but not one of torch.save: it has no data.pkl"
    else:
        return
    raise CheckpointError(path, what)


@dataclass(frozen=True, slots=True)
class _Head:
    name: str
    raw: bytes
    flags: int
    method: int
    compressed: int
    size: int
    offset: int


def _directory(path: Path, size: int) -> tuple[int, int, int, int]:
    """The directory's number of entries, its length, its offset, and where it must end."""
    room = _END.size + _LOCATOR.size + _END64.size
    tail = read_bytes(path, max(size - room, 0), min(size, room)).rjust(room, b"\0")
    end = _END.unpack_from(tail, room - _END.size)
    if end[0] != b"PK\5\6" or end[1:3] != (0, 0) or end[3] != end[4] or end[7]:
        raise CheckpointError(path, "its archive is damaged: it does not end with its directory")
    found, stop = (end[4], end[5], end[6]), size - _END.size
    locator, end64 = _LOCATOR.unpack_from(tail, _END64.size), _END64.unpack_from(tail)
    if locator[0] == b"PK\6\7":
        stop = size - room
        found64 = (end64[7], end64[8], end64[9])
        same = all(a in (b, full) for a, b, full in zip(found, found64, (_FULL16, _FULL32, _FULL32), strict=True))
        alone = locator[1::2] == (0, 1) and end64[4:6] == (0, 0) and end64[6] == end64[7]
        if end64[0] != b"PK\6\6" or locator[2] != stop or not alone or not same:
            raise CheckpointError(path, "its archive is damaged: it has two directories")
        found = found64
    return *found, stop


def _head(content: bytes, at: int) -> tuple[_Head, int]:
    """The directory entry at a byte, and where the next one is."""
    fields = _CENTRAL.unpack_from(content, at)
    signature, _, _, flags, method, _, _, _, compressed, size, names, extras, comments = fields[:13]
    offset, start = fields[16], at + _CENTRAL.size
    after = start + names + extras + comments
    if signature != b"PK\1\2" or after > len(content) or fields[13] or fields[15] & _FOLDER:
        raise ValueError("an entry of its directory is invalid")
    raw = content[start : start + names]
    extra = content[start + names : start + names + extras]
    if _FULL32 in (size, compressed, offset):
        size, compressed, offset = _large(extra, [size, compressed, offset])
    return _Head(raw.decode(), raw, flags, method, compressed, size, offset), after


def _large(extra: bytes, numbers: list[int]) -> list[int]:
    """The numbers of an entry; those too large for 32 bits come from its extra fields."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            missing = [i for i, n in enumerate(numbers) if n == _FULL32]
            for i, n in zip(missing, struct.unpack_from(f"<{len(missing)}Q", field), strict=True):
                numbers[i] = n
            return numbers
        at += 4 + length
    return numbers


def _records(path: Path, heads: Sequence[_Head], end: int) -> dict[str, Record]:
    """The place of each record's bytes, after its local header."""
    found, spans = {}, []
    with open_file(path) as file:
        for head in heads:
            about = f"the record {head.name!r:.80}"
            if head.method or head.size != head.compressed or head.flags & _ENCRYPTED:
                raise CheckpointError(path, f"{about} is compressed or encrypted, which torch.save never does")
            file.seek(min(head.offset, end))
            local = file.read(_LOCAL.size + len(head.raw))
            fields = _LOCAL.unpack(local[: _LOCAL.size].ljust(_LOCAL.size, b"\0"))
            start = head.offset + _LOCAL.size + fields[9] + fields[10]
            if fields[0] != b"PK\3\4" or start + head.size > end:
                raise CheckpointError(path, f"{about} lies outside the file")
            if local[_LOCAL.size :] != head.raw or fields[9] != len(head.raw) or fields[3]:
                raise CheckpointError(path, f"{about} has another name in its local header")
            spans.append((head.offset, start + head.size))
            found[head.name] = Record(head.name, start, head.size)
    spans.sort()
    if any(stop > start for (_, stop), (start, _) in pairwise(spans)):
        raise CheckpointError(path, "two records of its archive share bytes")
    return found
