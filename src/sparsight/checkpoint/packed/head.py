"""The head of a packed tensor: dtype, shape and places of its chunks. docs/packed-format.md specifies the bytes."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sparsight.checkpoint.packed.chunks import Layout

FORMAT, VERSION = "sparsight-packed", "1"
SUFFIX = "::packed"
"""Suffix of the name of a packed tensor in the file."""
RAW, CONSTANT, SPARSE = range(3)
MOST_TIMES = 4096
"""Largest ratio of a tensor's bytes to its packed bytes: a small file cannot demand unlimited memory."""
ALIGNED = 8  # each entry of the file begins at a multiple of this many bytes
CHUNK = 20  # weights per chunk, as a power of two
_CHUNKS = range(4, 25)
_MOST_DIMENSIONS = 64

_START = struct.Struct("<BBBBI")  # encoding, dtype, dimensions, weights per chunk, checksum
_DTYPES: tuple[tuple[str, str, Layout], ...] = (  # the code of a dtype is its index here
    ("F64", "float64", Layout(8, 52, 11)), ("F32", "float32", Layout(4, 23, 8)),
    ("F16", "float16", Layout(2, 10, 5)), ("BF16", "bfloat16", Layout(2, 7, 8)),
    *((name, dtype, Layout(size, 8 * size - 1, 0)) for name, dtype, size in (
        ("I64", "int64", 8), ("I32", "int32", 4), ("I16", "int16", 2), ("I8", "int8", 1),
        ("U64", "uint64", 8), ("U32", "uint32", 4), ("U16", "uint16", 2), ("U8", "uint8", 1),
        ("BOOL", "bool", 1), ("C64", "complex64", 8), ("F8_E4M3", "float8_e4m3fn", 1),
        ("F8_E5M2", "float8_e5m2", 1), ("F8_E8M0", "float8_e8m0fnu", 1),
        ("F8_E4M3FNUZ", "float8_e4m3fnuz", 1), ("F8_E5M2FNUZ", "float8_e5m2fnuz", 1),
    )),
)  # fmt: skip
CODES = {dtype: code for code, (_, dtype, _) in enumerate(_DTYPES)}
"""The code of each dtype, by its name in torch."""
SAFETENSORS = {dtype: name for name, dtype, _ in _DTYPES}
LAYOUTS = {dtype: layout for _, dtype, layout in _DTYPES}


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """How a tensor is packed. Chunk i starts at weight i · per, in bytes starts[i]..starts[i + 1] of the file."""

    encoding: int
    dtype: str
    shape: tuple[int, ...]
    per: int
    starts: tuple[int, ...]
    sums: tuple[int, ...]  # CRC-32 of each chunk's bytes

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.dtype]

    @property
    def size(self) -> int:
        """Bytes of its chunks."""
        return self.starts[-1] - self.starts[0]


def head(
    name: str, encoding: int, dtype: str, shape: Sequence[int], power: int, sizes: Sequence[int], sums: Sequence[int]
) -> bytes:
    """The head of a packed tensor, with the sizes and checksums of its chunks."""
    rest = struct.pack(f"<{len(shape)}Q", *shape)
    rest += struct.pack(f"<{2 * len(sizes)}I", *(n for pair in zip(sizes, sums, strict=True) for n in pair))
    start = _START.pack(encoding, CODES[dtype], len(shape), power, 0)
    return _START.pack(encoding, CODES[dtype], len(shape), power, _checksum(name, start, rest)) + rest


def _checksum(name: str, start: bytes, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(start[:-4] + name.encode()))


def parse(name: str, content: bytes, offset: int, size: int) -> Head | int:
    """The head of the packed tensor in `size` bytes from `offset` of a file, decoded from its first bytes.

    Returns the number of bytes needed instead if there are too few. Raises: ValueError for an invalid head.
    """
    if size < _START.size:
        raise ValueError(f"takes {size} bytes, expected at least {_START.size}")
    encoding, code, dimensions, power, checksum = _START.unpack_from(content)
    if encoding > SPARSE or code >= len(_DTYPES) or dimensions > _MOST_DIMENSIONS or power not in _CHUNKS:
        raise ValueError("has a damaged head")
    at = _START.size + 8 * dimensions
    if len(content) < at <= size:
        return at
    shape = struct.unpack_from(f"<{dimensions}Q", content, _START.size) if at <= size else ()
    _, dtype, layout = _DTYPES[code]
    count = product(shape, MOST_TIMES * size)
    if at > size or not count or count * layout.size > MOST_TIMES * size:
        raise ValueError(f"has a damaged head, or more than {MOST_TIMES} times its {size:,} bytes")
    chunks = 1 if encoding == CONSTANT else -(-count // (1 << power))
    end = at + 8 * chunks
    if len(content) < end <= size:
        return end
    if end > size or _checksum(name, content[: _START.size], content[_START.size : end]) != checksum:
        raise ValueError("has a damaged head: its checksum differs")
    table = struct.unpack_from(f"<{2 * chunks}I", content, at)
    starts = tuple(accumulate(table[::2], initial=offset + end))
    if starts[-1] != offset + size:
        raise ValueError("has chunks that do not fill its bytes")
    return Head(encoding, dtype, shape, 1 << power, starts, table[1::2])


def product(shape: Sequence[int], most: int) -> int:
    """Number of entries of a shape; stops multiplying at the first product above `most`."""
    found = 0 if 0 in shape else 1
    for size in shape:
        found *= size
        if found > most:
            break
    return found


def padding(length: int, dense: int) -> int:
    """Padding after a packed tensor of this size: aligns the next one, and limits the ratio to `MOST_TIMES`."""
    least = max(length, -(-dense // MOST_TIMES))
    return -(-least // ALIGNED) * ALIGNED - length


def dense_bytes(dtype: str, shape: Sequence[int]) -> int:
    return LAYOUTS[dtype].size * math.prod(shape)
