"""Selection by integer keys: histograms of the digits of the keys, and masks from a threshold.

The bits of a float as a signed integer, with the negative half reversed, sort like the floats:
key(b) = b for b >= 0 and -(b without its sign bit) for b < 0. -0.0 and +0.0 share the key 0. One kernel serves all
floats of a width: int16 (float16, bfloat16), int32, int64. `mask` and `out` are the bytes of bool tensors. Loops run
over short slices without branches: numba computes in 64 bits, and only such loops are vectorised at the keys' width.
"""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.jit import jit

DIGITS = 1 << 16
"""Values of one digit: keys are read 16 bits at a time, from the top."""

_CHUNK = 1024  # flags of a chunk are counted as eight bytes of a word: at most 1024 / 8 = 128 in each byte


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
    """How many are True. (numpy counts as fast, but holds the interpreter lock.)"""
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

    Returns how many alive keys are below `low`, and whether an alive key is a NaN (beyond `infinity`).
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
            if words[word]:  # few are: most keys are far from the threshold
                for i in range(8 * word, 8 * word + 8):
                    if inside[i]:
                        histogram[(keys[i] >> shift) & 65535] += 1
    return below, nan.max() != 0


@jit
def write(bits, mask, threshold, count, out):
    """out = alive and key > threshold. Returns the alive entries with key == threshold, if `count`."""
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
    """Set `out` at the alive entries with key == threshold, but for the first `skip` of them."""
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
def rows(bits, mask, counts, out):
    """In every row, out = alive but for the `counts[row]` smallest."""
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
