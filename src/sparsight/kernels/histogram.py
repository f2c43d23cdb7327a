"""Power sums and a histogram of the high bits of magnitudes, from one reading of a piece of a tensor.

Of float32, float16 and bfloat16 the high 16 bits are counted, the sign among them, of float64 the high 19, so that
bins are 2^-7 wide relative to what they hold (float16: 2^-10, and like bfloat16 exact). Two tables take turns:
a run of equal weights would otherwise wait for its own counter.
"""

from __future__ import annotations

import numpy as np

from sparsight.kernels.jit import jit
from sparsight.kernels.pq import CHUNK, fill

BINS = {8: 1 << 19, 4: 1 << 16, 2: 1 << 16}
"""Bins by bytes of a weight; the upper half is of negative ones."""
_BLOCK = 1 << 16  # weights
_ONE = np.uint32(1)
_SHIFT = np.uint64(45)


@jit
def _count(high, item, start, stop, first, second):
    """Add x[start:stop] to the tables; `high` is x as uint64 (item 8) or as uint16."""
    last = stop - (stop - start) % 2
    if item == 4:
        for i in range(start, last, 2):
            first[high[2 * i + 1]] += _ONE
            second[high[2 * i + 3]] += _ONE
        if last < stop:
            first[high[2 * last + 1]] += _ONE
    else:
        for i in range(start, last, 2):
            first[high[i]] += _ONE
            second[high[i + 1]] += _ONE
        if last < stop:
            first[high[last]] += _ONE


@jit
def _count_wide(high, start, stop, first):
    for i in range(start, stop):
        first[high[i] >> _SHIFT] += _ONE


@jit
def measure(x, high, length, exponents, limit, start, stop, table, first, second):
    """Lines start..stop of the table of a tensor of rows of `length`, of which x holds just these lines' weights.

    Lines are those of `pq.fill`; the table comes filled with zeros. `first` and `second` are the tables of the
    histogram to add to; empty ones are left alone. Blocks are small enough to be counted before they leave the cache.
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
        if len(first):
            if x.itemsize == 8:
                _count_wide(high, a, z, first)
            else:
                _count(high, x.itemsize, a, z, first, second)
        c, a = c + n, z


@jit
def take(first, second, out):
    """Add both tables to `out`, the signs together, and empty them."""
    half = len(out)
    for i in range(half):
        n = first[i] + first[i + half]
        first[i] = first[i + half] = 0
        if len(second):
            n += second[i] + second[i + half]
            second[i] = second[i + half] = 0
        out[i] += n
