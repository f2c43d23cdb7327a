"""The IDX format of the MNIST family: magic number, sizes, then one byte for each entry; mostly inside gzip."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20


def read_idx(path: Path, *, sha256: str | None = None, packed: bool = True) -> Tensor:
    """The uint8 tensor in an IDX file, gzip-compressed unless `packed` is False.

    Format: two zero bytes, the type (0x08 = unsigned byte, the only one read), the number of dimensions,
    each dimension as a big-endian uint32, then the entries in row-major order, and nothing after them.
    `sha256` is checked against the uncompressed content, so recompressed copies of a file are equal.
    ValueError names the file and what is wrong with it; memory never exceeds what the file really holds.
    """
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            content = _read_content(file, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged or not gzip ({error}); delete it and get it again") from error
    dims = _header(content, path)
    start, count = 4 + 4 * len(dims), math.prod(dims)
    if len(content) != start + count:
        got = f"{len(content) - start}" if len(content) < start + count else f"more than {count}"
        raise ValueError(f"{path}: got {got} entries, the header promises {count} ({dims}); get the file again")
    digest = hashlib.sha256(content).hexdigest() if sha256 else None
    if digest != sha256:
        raise ValueError(
            f"{path}: not the file it should be: expected SHA-256 {sha256} of its content, got {digest} "
            "(other data sets use the same file names)"
        )
    if count == 0:
        return torch.empty(dims, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).reshape(dims)


def _header(content: bytearray, path: Path) -> tuple[int, ...]:
    if len(content) < 4:
        raise ValueError(f"{path}: got {len(content)} bytes, an IDX file has at least 4")
    zero, kind, n_dims = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != _UNSIGNED_BYTE or not 1 <= n_dims <= 4:
        magic = int.from_bytes(content[:4], "big")
        raise ValueError(f"{path}: expected magic number 0x00000801 to 0x00000804 (IDX, bytes), got 0x{magic:08x}")
    if len(content) < 4 + 4 * n_dims:
        raise ValueError(f"{path}: ends inside its header of {n_dims} dimensions")
    return struct.unpack_from(f">{n_dims}I", content, 4)


def _read_content(file: gzip.GzipFile | BufferedReader, path: Path) -> bytearray:
    """Everything up to one chunk past the promised end: a small file cannot unpack to a huge one."""
    content = bytearray(file.read(4 + 4 * 4))
    promised = 4 + 4 * 4 + math.prod(_header(content, path))
    while len(content) <= promised and (chunk := file.read(_CHUNK)):
        content += chunk
    return content
