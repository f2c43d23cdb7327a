"""Power sums of rows of weights, chunk by chunk: one pass over memory, the same bits whatever the threads.

A row is cut into chunks of 8192 weights counted from its start. Each chunk gives one line of a table, and lines
are folded in order, into rows, tensors or everything, so a result depends on the data and on nothing else.

Arrays hold float32 or float64, or the bits of bfloat16 as uint16 and of float16 as int16. An exponent e > 0 asks
for sum |x|^e. A negative one asks for sum y ln y with y = |x|^-e, and stands right behind the exponent -e.
"""

from __future__ import annotations

import math

import numpy as np

from sparsight.kernels.jit import jit
from sparsight.kernels.pq_lanes import half_and_one, half_one_two, magnitude, one_and_two

# numba passes an intrinsic's first argument itself:
# pyright: reportCallIssue=false

CHUNK = 8192
COUNT, ZEROS, LARGEST, SMALLEST, SCALE, SUMS = range(6)
"""Columns of a table. SCALE is the log2 of the unit that the sums are in; they are followed by what their
float64 lost (each sum is a pair of float64)."""
_STEP = 64.0  # units are powers of 2^64, so that a change of unit is exact for the usual exponents
_LARGEST_UNIT = 960.0
_SQRT_FLOOR = 2.0**-40  # chunks of narrower floats below it: residuals of float32 roots would be denormal
_LANES = 16


@jit
def unit_of(largest: float, limit: float) -> float:
    """log2 of the unit for weights up to `largest`: 0 unless their powers might leave float64's range."""
    if largest == 0.0 or not math.isfinite(largest) or 1.0 / limit <= largest <= limit:
        return 0.0
    unit = _STEP * round(math.log2(largest) / _STEP)
    return min(max(unit, -_LARGEST_UNIT), _LARGEST_UNIT)


@jit
def term(x: float, e: float) -> float:
    """x^e for x >= 0; y ln y with y = x^-e where e < 0."""
    if x == 0.0:
        return 0.0
    if e == 1.0:
        return x
    if e == 2.0:
        return x * x
    if e == 0.5:
        return math.sqrt(x)
    if e > 0.0:
        return x**e
    y = x**-e
    return y * math.log(y) if y > 0.0 else 0.0


@jit
def _sum_terms(x, mask, start, stop, e, unit):
    """Sum of `term` over x[start:stop], in float64 and lanes."""
    lanes = np.zeros(_LANES)
    factor = math.ldexp(1.0, -int(unit))
    for i in range(start, stop):
        if mask is None or mask[i]:
            lanes[(i - start) % _LANES] += term(magnitude(x, i) * factor, e)
    n = _LANES
    while n > 1:
        n //= 2
        for i in range(n):
            lanes[i] += lanes[i + n]
    return lanes[0]


@jit
def _extremes(x, mask, start, stop):
    """Largest magnitude (NaN wins) and number of zeros."""
    largest, zeros = 0.0, 0
    for i in range(start, stop):
        if mask is None or mask[i]:
            v = magnitude(x, i)
            zeros += v == 0.0
            if v != v:
                return v, zeros
            largest = max(largest, v)
    return largest, zeros


@jit
def _careful(x, mask, start, stop, exponents, limit, table, c):
    """Line c, where the vector code will not do: other exponents, zeros to count, extreme magnitudes."""
    largest, zeros = _extremes(x, mask, start, stop)
    unit = unit_of(largest, limit)
    table[c, ZEROS], table[c, LARGEST], table[c, SCALE] = zeros, largest, unit
    narrow = x.itemsize < 8 and 0.0 < largest < _SQRT_FLOOR
    for j in range(len(exponents)):
        e = exponents[j]
        if unit != 0.0 or narrow or (e != 0.5 and e != 1.0 and e != 2.0):
            table[c, SUMS + j] = _sum_terms(x, mask, start, stop, e, unit)


@jit
def fill(x, mask, length, exponents, limit, start, stop, table):
    """Lines start..stop of the table of `x`, which holds rows of `length` weights one after the other.

    A weight that is not finite leaves a LARGEST that is not.
    """
    at_half = at_one = at_two = -1
    for j in range(len(exponents)):
        if exponents[j] == 0.5:
            at_half = SUMS + j
        elif exponents[j] == 1.0:
            at_one = SUMS + j
        elif exponents[j] == 2.0:
            at_two = SUMS + j
    half, two = at_half >= 0, at_two >= 0
    other = len(exponents) > half + two + (at_one >= 0)
    low = max(1.0 / limit, _SQRT_FLOOR) if half and x.itemsize < 8 else 1.0 / limit
    chunks = (length + CHUNK - 1) // CHUNK
    row = start // chunks
    a = row * length + (start - row * chunks) * CHUNK
    for c in range(start, stop):
        end = (row + 1) * length
        z = min(a + CHUNK, end)
        # The vector code stands here, not behind a call, which would cost as much as a hundred weights.
        if not half:
            root, one, square, largest, smallest, count = one_and_two(x, mask, a, z - a)
        elif two:
            root, one, square, largest, smallest, count = half_one_two(x, mask, a, z - a)
        else:
            root, one, square, largest, smallest, count = half_and_one(x, mask, a, z - a)
        for j in range(table.shape[1]):
            table[c, j] = 0.0
        table[c, COUNT], table[c, LARGEST], table[c, SMALLEST] = count, largest, smallest
        if half:
            table[c, at_half] = root
        if at_one >= 0:
            table[c, at_one] = one
        if two:
            table[c, at_two] = square
        if other or not (low <= largest <= limit) or smallest == 0.0 or not math.isfinite(one):
            _careful(x, mask, a, z, exponents, limit, table, c)
        row += z == end
        a = z


@jit
def _two_sum(a, b):
    """a + b, and what that lost."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@jit
def _fold_sums(table, start, stop, exponents, unit, line):
    """The sums of lines start..stop in `unit`, each kept as a pair."""
    n = len(exponents)
    for j in range(n):
        e = exponents[j]
        total = lost = 0.0
        for i in range(start, stop):
            s, s_lost = table[i, SUMS + j], table[i, SUMS + n + j]
            if table[i, SCALE] < unit:  # never without mass, whose unit is 0
                change = (table[i, SCALE] - unit) * abs(e)
                factor = 2.0**change
                s, s_lost = s * factor, s_lost * factor
                if e < 0.0:  # f y ln(f y) = f (y ln y) + (f ln f) y
                    s += factor * change * math.log(2.0) * table[i, SUMS + j - 1]
            total, rounded = _two_sum(total, s)
            lost += rounded + s_lost
        line[SUMS + j], line[SUMS + n + j] = _two_sum(total, lost)


@jit
def fold(table, per, exponents, out):
    """Each line of `out` from `per` lines of `table`, in order, in the largest of their units."""
    for g in range(len(out)):
        start, stop = g * per, min((g + 1) * per, len(table))
        count = zeros = largest = 0.0
        smallest, unit = math.inf, -math.inf
        for i in range(start, stop):
            count += table[i, COUNT]
            zeros += table[i, ZEROS]
            largest = max(largest, table[i, LARGEST])
            smallest = min(smallest, table[i, SMALLEST])
            if table[i, LARGEST] > 0.0:
                unit = max(unit, table[i, SCALE])
        line = out[g]
        line[COUNT], line[ZEROS], line[LARGEST], line[SMALLEST] = count, zeros, largest, smallest
        line[SCALE] = unit if largest > 0.0 else 0.0
        _fold_sums(table, start, stop, exponents, line[SCALE], line)
