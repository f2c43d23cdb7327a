"""Selection by integer keys: histograms of their digits, and masks from a threshold.

The bits of a float as a signed integer, with the negative half reversed, sort like the floats:
key(b) = b for b >= 0 and -(b without its sign bit) for b < 0. -0.0 and +0.0 share the key 0. One kernel serves all
floats of a width: int16 (float16, bfloat16), int32, int64. `mask` and `out` are the bytes of bool tensors. Loops run
over short slices without branches: numba computes in 64 bits, and only such loops are vectorised at the keys' width.

A piece is a run of at most `BLOCK` entries in row-major order. Tensors in another memory order, and tensors to widen
for comparison with others, are copied piece by piece, never whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.kernels.jit import jit

DIGITS = 1 << 16
"""Number of values of a digit: keys are read 16 bits at a time, from the top."""

BLOCK = 1 << 21
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1024  # flags of a chunk are counted in the eight bytes of a word: at most 1024 / 8 = 128 in each


@jit
def _turn(bits, keys):
    top = 8 * bits.itemsize - 1
    below = ~(np.int64(-1) << top)
    for i in range(bits.size):
        sign = bits[i] >> top
        keys[i] = (bits[i] ^ (sign & below)) - sign


@jit
def _count(words):
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    count = 0
    for byte in range(8):
        count += np.int64((total >> np.uint64(8 * byte)) & np.uint64(255))
    return count


@jit
def count(mask):
    """The number of True entries. (numpy counts as fast, but holds the interpreter lock.)"""
    main = mask.size - mask.size % 8
    words = mask[:main].view(np.uint64)
    total = 0
    for start in range(0, words.size, _CHUNK // 8):
        total += _count(words[start : start + _CHUNK // 8])
    for i in range(main, mask.size):
        total += mask[i]
    return total


@jit
def survey(bits, mask, histogram):
    """Add the top digits of the alive keys to `histogram`."""
    down = 8 * bits.itemsize - 16
    keys = np.empty(_CHUNK, bits.dtype)
    digits = np.empty(_CHUNK, np.uint16)
    even = np.zeros(1 << 16, np.int32)  # two histograms: runs of equal digits do not wait for one another
    odd = np.zeros(1 << 16, np.int32)
    for start in range(0, bits.size, _CHUNK):
        b = bits[start : start + _CHUNK]
        m = mask[start : start + _CHUNK]
        _turn(b, keys)
        for i in range(b.size):
            digits[i] = (keys[i] >> down) + 32768
        pairs = b.size // 2 * 2
        for i in range(0, pairs, 2):
            even[digits[i]] += m[i]
            odd[digits[i + 1]] += m[i + 1]
        if pairs < b.size:
            even[digits[pairs]] += m[pairs]
    for i in range(histogram.size):
        histogram[i] += even[i] + odd[i]


@jit
def narrow(bits, mask, low, high, shift, infinity, histogram):
    """Add the digits at `shift` of the alive keys in [low, high] to `histogram`.

    Returns the number of alive keys below `low`, and whether any alive key is NaN (beyond `infinity`).
    """
    keys = np.empty(_CHUNK, bits.dtype)
    under = np.zeros(_CHUNK, np.uint8)
    inside = np.zeros(_CHUNK, np.uint8)
    nan = np.zeros(_CHUNK, np.uint8)
    words = inside.view(np.uint64)
    below = 0
    for start in range(0, bits.size, _CHUNK):
        b = bits[start : start + _CHUNK]
        m = mask[start : start + _CHUNK]
        under[b.size :] = 0
        inside[b.size :] = 0
        _turn(b, keys)
        for i in range(b.size):
            under[i] = m[i] & np.uint8(keys[i] < low)
            inside[i] = m[i] & np.uint8(keys[i] >= low) & np.uint8(keys[i] <= high)
            nan[i] |= m[i] & (np.uint8(keys[i] > infinity) | np.uint8(keys[i] < -infinity))
        below += _count(under.view(np.uint64))
        for word in range(words.size):
            if words[word]:  # rare: most keys are far from the threshold
                for i in range(8 * word, 8 * word + 8):
                    if inside[i]:
                        histogram[(keys[i] >> shift) & 65535] += 1
    return below, nan.max() != 0


@jit
def write(bits, mask, threshold, count, out):
    """out = alive and key > threshold. If `count`, returns the number of alive entries with key == threshold."""
    keys = np.empty(_CHUNK, bits.dtype)
    flags = np.zeros(_CHUNK, np.uint8)
    ties = 0
    for start in range(0, bits.size, _CHUNK):
        b = bits[start : start + _CHUNK]
        m = mask[start : start + _CHUNK]
        o = out[start : start + _CHUNK]
        _turn(b, keys)
        for i in range(b.size):
            o[i] = m[i] & np.uint8(keys[i] > threshold)
        if count:
            flags[b.size :] = 0
            for i in range(b.size):
                flags[i] = m[i] & np.uint8(keys[i] == threshold)
            ties += _count(flags.view(np.uint64))
    return ties


@jit
def restore(bits, mask, threshold, skip, out):
    """Set `out` at the alive entries with key == threshold, except for the first `skip`."""
    keys = np.empty(_CHUNK, bits.dtype)
    for start in range(0, bits.size, _CHUNK):
        b = bits[start : start + _CHUNK]
        m = mask[start : start + _CHUNK]
        o = out[start : start + _CHUNK]
        _turn(b, keys)
        if skip > 0:
            for i in range(b.size):
                tie = m[i] & np.uint8(keys[i] == threshold)
                o[i] |= tie & np.uint8(skip <= 0)
                skip -= tie
        else:
            for i in range(b.size):
                o[i] |= m[i] & np.uint8(keys[i] == threshold)


@jit
def _rows(bits, mask, counts, out):
    """In every row, out = all alive entries except the `counts[row]` smallest."""
    keys = np.empty(bits.shape[1], bits.dtype)
    work = np.empty(bits.shape[1], bits.dtype)
    for row in range(bits.shape[0]):
        m = mask[row]
        o = out[row]
        _turn(bits[row], keys)
        if counts[row] == 0:
            o[:] = m
            continue
        alive = 0
        for i in range(m.size):
            work[alive] = keys[i]
            alive += m[i]
        threshold, ties = np.partition(work[:alive], counts[row] - 1)[counts[row] - 1], counts[row]
        for i in range(alive):
            ties -= work[i] < threshold
        for i in range(m.size):
            tie = m[i] & np.uint8(keys[i] == threshold)
            o[i] = (m[i] & np.uint8(keys[i] > threshold)) | (tie & np.uint8(ties <= 0))
            ties -= tie


# -- pieces of tensors ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """One run of entries on the CPU."""

    name: str
    score: Tensor
    mask: Tensor
    out: Tensor
    wide: torch.dtype  # for comparing scores

    @property
    def width(self) -> int:
        """Bits per key."""
        return 8 * self.wide.itemsize

    @property
    def infinity(self) -> int:
        """The key of +inf. The key of -inf is its negative, and NaN is beyond both."""
        return int(torch.tensor(torch.inf, dtype=self.wide).view(_BITS[self.wide.itemsize]))

    def key(self, key: int) -> Any:
        """`key` in the integer type of the keys, the only one that kernels are compiled for."""
        return np.dtype(f"i{self.wide.itemsize}").type(key)

    def has_nan(self) -> bool:
        return bool((self.score.isnan() & self.mask).any())

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Bits of the scores and bytes of the mask: views if possible, otherwise new copies on every use."""
        return self._views or self._flat()

    @cached_property
    def _views(self) -> tuple[np.ndarray, np.ndarray] | None:
        here = self.score.is_contiguous() and self.mask.is_contiguous() and self.score.dtype == self.wide
        return self._flat() if here else None

    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        return _bits(self.score.reshape(-1).to(self.wide)), bytes_of(self.mask)

    @cached_property
    def kept(self) -> np.ndarray:
        """Bytes of the new mask."""
        return bytes_of(self.out)


def keep_rows(score: Tensor, mask: Tensor, counts: Tensor, out: Tensor) -> None:
    """In every row of these matrices, out = all alive entries except the `counts[row]` smallest."""
    alive = mask.contiguous().view(torch.uint8).numpy()
    _rows(_bits(score), alive, counts.contiguous().numpy(), out.view(torch.uint8).numpy())


def _bits(score: Tensor) -> np.ndarray:
    """Contiguous bits of the scores: kernels are compiled only for contiguous arrays."""
    return score.contiguous().view(_BITS[score.dtype.itemsize]).numpy()


def bytes_of(mask: Tensor) -> np.ndarray:
    """The contiguous bytes of a mask."""
    return mask.reshape(-1).contiguous().view(torch.uint8).numpy()


def cut(name: str, score: Tensor, mask: Tensor, out: Tensor, wide: torch.dtype) -> Iterator[Piece]:
    """The pieces of one tensor, in row-major order."""
    if score.numel() <= BLOCK:
        if score.numel():
            yield Piece(name, score, mask, out, wide)
        return
    if score.is_contiguous() and mask.is_contiguous():
        parts = zip(*(t.view(-1).split(BLOCK) for t in (score, mask, out)), strict=True)
    else:
        rows = max(1, BLOCK // score[0].numel())  # a row that is still too long is cut again
        parts = zip(*(t.split(rows) if rows > 1 else t.unbind() for t in (score, mask, out)), strict=True)
    for s, m, o in parts:
        yield from cut(name, s, m, o, wide)
