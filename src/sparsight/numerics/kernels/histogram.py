"""Counting magnitudes by their high bits: all of a piece of a tensor, or a random sample.

Of float32, float16 and bfloat16 the high 16 bits without the sign are counted, of float64 the high 19, so that
bins are 2^-7 wide relative to what they hold (float16: 2^-10, and like bfloat16 exact). Two tables take turns:
a run of equal weights would otherwise wait for its own counter.

Counting every weight takes twice as long as summing them. A tensor is therefore cut into blocks of `every` weights,
a power of two up to 64, of which one, drawn at random, is counted for all. What is drawn depends on the place in the
tensor alone: the same weights whatever the threads, the budget or the files.
"""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.jit import jit
from sparsight.numerics.kernels.sample_llvm import bin_of, draw

# numba passes an intrinsic's first argument itself
# pyright: reportCallIssue=false

BINS = {8: 1 << 18, 4: 1 << 15, 2: 1 << 15}
"""Bins by bytes of a weight."""
MOST_EVERY = 64


@jit
def log2_of(every):
    """Of a power of two."""
    k = 0
    while every > 1 << k:
        k += 1
    return k


@jit
def count_part(x, start, stop, at, count, log2, first):
    """Count what stands in x[start:stop], part of one octet. Of a last block of n < 2^log2 weights one counts for n."""
    if start >= stop:
        return
    every = 1 << log2
    octet = (at + start) >> (log2 + 3)
    bits = draw(octet)
    for j in range(8):
        block = ((octet << 3) + j) << log2
        n = min(every, count - block)
        if n == every:
            i = block + np.int64((bits >> np.uint64(8 * j)) & np.uint64(every - 1))
        else:
            i = block + np.int64(((bits >> np.uint64(32)) * np.uint64(max(n, 0))) >> np.uint64(32))
        if n > 0 and start <= i - at < stop:
            first[bin_of(x, i - at)] += n


@jit
def take(first, second, out, start, stop):
    """Add both tables to `out`, and empty them; they hold nothing outside bins start..stop.

    Returned is the first bin after bin 0 that may have held something: exact zeros are far from all else.
    """
    if start == 0:
        out[0] += first[0] + second[0]
        first[0] = second[0] = 0
        start = min(1, stop)
        while start < stop and first[start] == 0 and second[start] == 0:
            start += 1
    a, b, o = first[start:stop], second[start:stop], out[start:stop]  # without an offset, vectors are used
    for i in range(len(o)):
        o[i] += a[i] + b[i]
    for i in range(len(o)):
        a[i] = 0
        b[i] = 0
    return start
