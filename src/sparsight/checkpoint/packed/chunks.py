"""Encodes and decodes a chunk of a tensor: the mask of nonzero words, the ranks of their exponents, and other bits.

docs/packed-format.md specifies the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import zstandard

from sparsight.numerics.kernels import sparse_words as kernels
from sparsight.numerics.kernels.sparse_words import ESCAPE, SKIP

_HEAD = struct.Struct("<IIIBBHII")  # words, mask stored, mask whole, kind, exponents, 0, ranks stored, escapes
_NONE, _GAPS, _BITS = 0, 1, 2  # kinds of masks
_SETTINGS = {"min_match": 7, "hash_log": 6}  # for zstd's level 1: repetitions here are chance, and cost bits
_SAMPLE = 1 << 14  # bytes of a plane to test whether it can be compressed
_WORTH = 15 / 16  # the compressed sample must be at most this large
_NOTHING = np.empty(0, np.uint8)

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes of a word, and bits of its mantissa and exponent; whole numbers have no exponent."""

    size: int
    low: int
    width: int

    @property
    def word(self) -> np.dtype:
        return np.dtype(f"u{self.size}")

    @property
    def planes(self) -> int:
        """Bytes of a word without its exponent."""
        return -(-(8 * self.size - self.width) // 8)

    @property
    def exponent(self) -> np.dtype:
        """The dtype of a stored exponent."""
        return np.dtype("u1" if self.width <= 8 else "<u2")


def encode(words: np.ndarray, layout: Layout) -> bytes:
    """A chunk of words as bytes."""
    n = int(kernels.count(words))
    values, kind, mask, whole = _masked(words, n)
    table, nibbles, escapes = _ranks(values, layout)
    stored = [mask, _squeezed(nibbles)]
    planes = np.empty((layout.planes, n), np.uint8)
    kernels.split(values, layout.low, layout.width, planes)
    rests = [_squeezed_if_worth(plane) for plane in planes]
    head = _HEAD.pack(n, len(stored[0]), whole, kind, len(table), 0, len(stored[1]), len(escapes))
    sizes = struct.pack(f"<{len(rests)}I", *map(len, rests))
    return b"".join([head, sizes, table.tobytes(), *stored, escapes.tobytes(), *rests])


def head_size(chunk: bytes, layout: Layout) -> int:
    """Bytes of a chunk before its mask: the lengths of its parts, and the table of exponents."""
    return _HEAD.size + 4 * layout.planes + _HEAD.unpack_from(chunk)[4] * layout.exponent.itemsize


def _masked(words: np.ndarray, n: int) -> tuple[np.ndarray, int, Bytes, int]:
    """The nonzero words, and the mask of their places: kind, compressed bytes, size before compression."""
    if n in (0, len(words)):
        return words[:n], _NONE, b"", 0
    if 2 * n <= len(words):
        values, gaps = np.empty(n + 1, words.dtype), np.empty(n + len(words) // SKIP + 1, np.uint8)
        gaps = gaps[: kernels.compact(words, values, gaps)]
        mask = _squeezed(gaps)
        if 8 * len(mask) <= len(words):
            return values[:n], _GAPS, mask, len(gaps)
    bits = np.packbits(words != 0, bitorder="little")
    return words[words != 0], _BITS, _squeezed(bits), len(bits)


def _ranks(values: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The table of exponents, their ranks, two per byte, and the exponents that are not in the table."""
    if not layout.width or not len(values):
        return _NOTHING, _NOTHING, _NOTHING
    counts = np.zeros(1 << layout.width, np.int64)
    kernels.histogram(values, layout.low, counts)
    order = np.argsort(-counts, kind="stable")[:ESCAPE]
    table = order[counts[order] > 0]
    ranks = np.full(len(counts), ESCAPE, np.uint8)
    ranks[table] = np.arange(len(table), dtype=np.uint8)
    nibbles = np.empty((len(values) + 1) // 2, np.uint8)
    escapes = np.empty(int(counts.sum() - counts[table].sum()), layout.exponent)
    kernels.ranked(values, layout.low, ranks, nibbles, escapes)
    return table.astype(layout.exponent), nibbles, escapes


def _squeezed(part: np.ndarray) -> Bytes:
    """Bytes compressed by zstd, or unchanged if that is no smaller."""
    if not len(part):
        return b""
    settings = zstandard.ZstdCompressionParameters.from_level(1, **_SETTINGS)
    found = zstandard.ZstdCompressor(compression_params=settings).compress(part.data)
    return found if len(found) < len(part) else part.data


def _squeezed_if_worth(plane: np.ndarray) -> Bytes:
    """`_squeezed` for a plane. Mantissas are mostly noise: a sample shows whether the whole is worth the time."""
    if len(plane) > 2 * _SAMPLE and len(_squeezed(plane[:_SAMPLE])) > _WORTH * _SAMPLE:
        return plane.data
    return _squeezed(plane)


# -- decoding --------------------------------------------------------------------------------------------------


def decode(chunk: memoryview, layout: Layout, out: np.ndarray) -> None:
    """Decode a chunk into `out`, which has one place per word. Raises: ValueError for anything but a valid chunk."""
    parts = _Parts(chunk, layout, len(out))
    if parts.words == len(out):
        parts.values(out)
    else:
        values = np.empty(parts.words, layout.word)
        parts.values(values)
        kernels.spread(parts.places(), values, out)


def nonzero(chunk: memoryview, layout: Layout, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The places (uint32, ascending) of the nonzero words in a chunk of `size` words, and these words.

    Raises: ValueError for anything but a valid chunk.
    """
    parts = _Parts(chunk, layout, size)
    values = np.empty(parts.words, layout.word)
    parts.values(values)
    return parts.places(), values


class _Parts:
    """The parts of a chunk, cut by its head, and no longer than `size` words can need."""

    def __init__(self, chunk: memoryview, layout: Layout, size: int) -> None:
        more = struct.Struct(f"<{layout.planes}I")
        if len(chunk) < _HEAD.size + more.size:
            raise ValueError("it is shorter than its head")
        head = _HEAD.unpack_from(chunk)
        self.words, mask, self._whole, self._kind, exponents, reserved, ranks, escapes = head
        self._size, self._layout = size, layout
        item = layout.exponent.itemsize
        lengths = [exponents * item, mask, ranks, escapes * item, *more.unpack_from(chunk, _HEAD.size)]
        ends = [*accumulate(lengths, initial=_HEAD.size + more.size)]
        self._check(exponents, reserved, escapes)
        if ends[-1] > len(chunk) or any(chunk[ends[-1] :]):
            raise ValueError("its parts do not fill it")
        cut = [chunk[a:b] for a, b in pairwise(ends)]
        self._table, self._mask, self._ranks, self._escapes, *self._planes = cut

    def _check(self, exponents: int, reserved: int, escapes: int) -> None:
        n, size = self.words, self._size
        most = {_NONE: 0, _GAPS: n + size // SKIP, _BITS: -(-size // 8)}.get(self._kind, -1)
        wrong = n > size or (self._kind == _NONE and n not in (0, size)) or self._whole > most
        wrong |= self._kind == _BITS and self._whole != most
        wrong |= exponents > ESCAPE or escapes > n or reserved != 0
        if wrong or (not self._layout.width and exponents + escapes):
            raise ValueError("its head is contradictory")

    def places(self) -> np.ndarray:
        """The places of the nonzero words."""
        if self._kind == _NONE:
            return np.arange(self.words, dtype=np.uint32)
        mask, places = _expanded(self._mask, self._whole), np.empty(self.words + 1, np.uint32)
        gaps = self._kind == _GAPS
        if not (kernels.walk(mask, self._size, places[:-1]) if gaps else kernels.find(mask, self._size, places)):
            raise ValueError("its mask does not have as many words as its head says")
        return places[:-1]

    def values(self, out: np.ndarray) -> None:
        """Write the nonzero words to `out`."""
        size = (self.words + 1) // 2 if self._layout.width else 0
        nibbles, planes = _expanded(self._ranks, size), [_expanded(plane, self.words) for plane in self._planes]
        together = np.stack(planes) if len(planes) > 1 else planes[0][None]
        table, escapes = self._exponents(self._table), self._exponents(self._escapes)
        if self.words and not kernels.join(nibbles, table, escapes, together, self._layout.low, out):
            raise ValueError("a word of it is 0 or has an unknown exponent")

    def _exponents(self, part: memoryview) -> np.ndarray:
        found = np.frombuffer(part, self._layout.exponent).astype(np.uint16)
        if self._layout.width != 8 and len(found) and found.max() >> self._layout.width:
            raise ValueError("an exponent of it has too many bits")
        return found


def _expanded(part: memoryview, size: int) -> np.ndarray:
    """The `size` bytes that `_squeezed` compressed."""
    if len(part) == size:
        return np.frombuffer(part, np.uint8)
    try:
        if zstandard.frame_content_size(part) != size:
            raise ValueError("a part of it has another length than its head says")
        found = zstandard.ZstdDecompressor().decompress(part, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"a part of it is no zstd frame: {error}") from error
    if len(found) != size:
        raise ValueError("a part of it has another length than its head says")
    return np.frombuffer(found, np.uint8)
