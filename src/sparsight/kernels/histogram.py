"""Power sums and a histogram of the high bits of magnitudes, from one reading of a piece of a tensor.

Of float32, float16 and bfloat16 the high 16 bits without the sign are counted, of float64 the high 19, so that
bins are 2^-7 wide relative to what they hold (float16: 2^-10, and like bfloat16 exact). Two tables take turns:
a run of equal weights would otherwise wait for its own counter.

Counting every weight takes twice as long as summing them. A tensor is therefore cut into blocks of `every` weights,
a power of two up to 64, of which one, drawn at random, is counted for all. What is drawn depends on the place in the
tensor alone: the same weights whatever the threads, the budget or the files.
"""

from __future__ import annotations

import numpy as np

from sparsight.kernels.jit import jit
from sparsight.kernels.pq import CHUNK, fill

BINS = {8: 1 << 18, 4: 1 << 15, 2: 1 << 15}
"""Bins by bytes of a weight."""
MOST_EVERY = 64
_BLOCK = 1 << 15  # weights: they are still in the cache when they are counted
_SHIFT = np.uint64(45)
_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@jit
def _draw(i):
    """64 random bits for a place: the i-th number of SplitMix64."""
    z = np.uint64(i + 1) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@jit
def _key(high, item, i):
    if item == 8:
        return (high[i] >> _SHIFT) & np.uint64(0x3FFFF)
    return (high[2 * i + 1] if item == 4 else high[i]) & np.uint64(0x7FFF)


@jit
def _count(high, item, start, stop, first, second):
    """Add x[start:stop] to the tables."""
    last = stop - (stop - start) % 2
    for i in range(start, last, 2):
        first[_key(high, item, i)] += 1
        second[_key(high, item, i + 1)] += 1
    if last < stop:
        first[_key(high, item, last)] += 1


@jit
def _sample(high, item, start, stop, at, count, every, first, second):
    """The same for one weight of each block. x[start] is weight `at` of a tensor of `count`.

    8 blocks share 64 random bits, 8 each. Of a last block of n < every weights one counts for n.
    """
    end = at + stop - start
    shift = start - at
    group = 8 * every
    mask = np.uint64(every - 1)
    for g in range(at // group, (end + group - 1) // group):
        bits = _draw(g)
        low = g * group
        if low >= at and low + group <= end:
            for j in range(0, 8, 2):
                a = low + j * every + np.int64((bits >> np.uint64(8 * j)) & mask)
                b = low + (j + 1) * every + np.int64((bits >> np.uint64(8 * j + 8)) & mask)
                first[_key(high, item, a + shift)] += every
                second[_key(high, item, b + shift)] += every
            continue
        for j in range(8):
            block = low + j * every
            n = min(every, count - block)
            if n <= 0:
                break
            if n == every:
                i = block + np.int64((bits >> np.uint64(8 * j)) & mask)
            else:
                i = block + np.int64(((bits >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
            if at <= i < end:
                first[_key(high, item, i + shift)] += n


@jit
def measure(x, high, length, exponents, limit, start, stop, table, at, count, every, first, second):
    """Lines start..stop of the table of a tensor of rows of `length`, of which x holds just these lines' weights.

    Lines are those of `pq.fill`. `high` is x as uint64 or uint16, x[0] weight `at`
    of the tensor's `count`. `first` and `second` are the histogram's tables; `every` = 0 leaves them alone.
    """
    chunks = (length + CHUNK - 1) // CHUNK
    c, a = start, 0
    while c < stop:
        if chunks == 1:  # whole rows
            n = min(stop - c, max(_BLOCK // length, 1))
            width = length
            z = a + n * length
        else:  # part of one row
            done = c % chunks
            n = min(stop - c, chunks - done, _BLOCK // CHUNK)
            width = min(n * CHUNK, length - done * CHUNK)
            z = a + width
        fill(x[a:z], None, width, exponents, limit, 0, n, table[c - start : c - start + n])
        if every == 1:
            _count(high, x.itemsize, a, z, first, second)
        elif every > 1:
            _sample(high, x.itemsize, a, z, at + a, count, every, first, second)
        c, a = c + n, z


@jit
def take(first, second, out, low, high):
    """Add both tables to `out`, and empty them; they hold nothing outside low..high."""
    for i in range(low, high):
        out[i] += first[i] + second[i]
    for i in range(low, high):
        first[i] = second[i] = 0
