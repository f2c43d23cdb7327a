"""Power sums of rows of weights, chunk by chunk: one pass over memory, the same bits whatever the threads.

A row is cut into chunks of 8192 weights counted from its start. Each chunk gives one line of a table, and lines
are folded in order, into rows, tensors or everything, so a result depends on the data and on nothing else.

Arrays hold float32 or float64, or the bits of bfloat16 as uint16 and of float16 as int16. An exponent e > 0 asks
for sum |x|^e. A negative one asks for sum y ln y with y = |x|^-e, and stands right behind the exponent -e.
"""

from __future__ import annotations

import math

import numpy as np

from sparsight.numerics.kernels.jit import jit, or_twin
from sparsight.numerics.kernels.power_sums_llvm import half_and_one, half_one_two, one_and_two
from sparsight.numerics.kernels.power_sums_plain import LANES, joined, magnitude, plain_sums

# numba passes an intrinsic's first argument itself, and drops what a None or its absence rules out:
# pyright: reportCallIssue=false

CHUNK = 8192
COUNT, ZEROS, LARGEST, SMALLEST, SCALE, SUMS = range(6)
"""Columns of a table. SCALE is the log2 of the unit that the sums are in; they are followed by what their
float64 lost (each sum is a pair of float64)."""
_STEP = 64.0  # units are powers of 2^64, so that a change of unit is exact for the usual exponents
_LARGEST_UNIT = 960.0
_SQRT_FLOOR = 2.0**-40  # chunks of narrower floats below it: residuals of float32 roots would be denormal


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
    lanes = np.zeros(LANES)
    factor = math.ldexp(1.0, -int(unit))
    for i in range(start, stop):
        if mask is None or mask[i]:
            lanes[(i - start) % LANES] += term(magnitude(x, i) * factor, e)
    return joined(lanes)


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
def _fill(x, mask, place, length, exponents, limit, start, stop, table, vectors):
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
    a = row * length + (start - row * chunks) * CHUNK - place
    for c in range(stop - start):
        end = (row + 1) * length - place
        z = min(a + CHUNK, end)
        # The vector code stands here, not behind a call, which would cost as much as a hundred weights. Inlining by
        # numba would not help: it counts references to the arrays anew each time.
        if vectors is None:  # then the other branches are not compiled
            root, one, square, largest, smallest, count = plain_sums(x, mask, a, z - a)
        elif not half:
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


def _vectors(x, mask, place, length, exponents, limit, start, stop, table):
    _fill(x, mask, place, length, exponents, limit, start, stop, table, True)


def plain_fill(x, mask, place, length, exponents, limit, start, stop, table):
    """The same without hand-written code: twin of the vector code, from which square roots may differ in 2.6e-9."""
    _fill(x, mask, place, length, exponents, limit, start, stop, table, None)


fill = or_twin(_vectors, plain_fill)
"""Lines start..stop of a tensor that holds rows of `length` weights one after the other, into `table`.

x[0] is weight `place` of the tensor. A weight that is not finite leaves a LARGEST that is not.
"""


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
    totals, losts = np.zeros(n), np.zeros(n)
    for i in range(start, stop):
        change = table[i, SCALE] - unit
        for j in range(n):
            s, s_lost = table[i, SUMS + j], table[i, SUMS + n + j]
            if change < 0.0:  # never without mass, whose unit is 0
                e = exponents[j]
                shift = change * abs(e)
                factor = 2.0**shift
                s, s_lost = s * factor, s_lost * factor
                if e < 0.0:  # f y ln(f y) = f (y ln y) + (f ln f) y
                    s += factor * shift * math.log(2.0) * table[i, SUMS + j - 1]
            totals[j], rounded = _two_sum(totals[j], s)
            losts[j] += rounded + s_lost
    for j in range(n):
        line[SUMS + j], line[SUMS + n + j] = _two_sum(totals[j], losts[j])


@jit
def fold(table, per, exponents, out):
    """Each line of `out` from `per` lines of `table`, in order, in the largest of their units.

    LARGEST is NaN where that of a line is not finite.
    """
    for g in range(len(out)):
        start, stop = g * per, min((g + 1) * per, len(table))
        count = zeros = largest = odd = 0.0
        smallest, unit = math.inf, -math.inf
        for i in range(start, stop):
            count += table[i, COUNT]
            zeros += table[i, ZEROS]
            largest, odd = max(largest, table[i, LARGEST]), odd + (table[i, LARGEST] - table[i, LARGEST])
            smallest = min(smallest, table[i, SMALLEST])
            if table[i, LARGEST] > 0.0:
                unit = max(unit, table[i, SCALE])
        line = out[g]
        line[COUNT], line[ZEROS], line[LARGEST], line[SMALLEST] = count, zeros, largest + odd, smallest
        line[SCALE] = unit if largest > 0.0 else 0.0
        _fold_sums(table, start, stop, exponents, line[SCALE], line)


@jit
def _power_mean(mean, e):
    """M_e of the mean of |x|^e."""
    if e == 0.5:
        return mean * mean
    if e == 1.0:
        return mean
    if e == 2.0:
        return math.sqrt(mean)
    return mean ** (1.0 / e)


@jit
def _log_ratio(low, high, p, q):
    """ln M_p - ln M_q of the means of |x|^p and |x|^q."""
    return min(math.log(low) / p - math.log(high) / q, 0.0)


@jit
def index(count, largest, smallest, sum_p, sum_q, p, q):
    """PQ index 1 - M_p / M_q; 0 where all magnitudes are equal or there is no mass."""
    if not 0.0 < largest > smallest:
        return 0.0
    low, high = sum_p / count, sum_q / count
    if p < 0.5 or q > 2.0:  # a power of a mean may leave float64's range though the ratio does not
        return -math.expm1(_log_ratio(low, high, p, q)) + 0.0  # never -0.0
    return max(1.0 - _power_mean(low, p) / _power_mean(high, q), 0.0)


@jit
def effective(count, largest, smallest, sum_p, sum_q, p, q):
    """Effective count, p < q: all where magnitudes are equal or there is no mass."""
    if not 0.0 < largest > smallest:
        return count
    return count * math.exp(p * q / (q - p) * _log_ratio(sum_p / count, sum_q / count, p, q))


@jit
def indices(table, at_p, at_q, p, q):
    """PQ index of each line."""
    found = np.empty(len(table))
    for i in range(len(table)):
        d, largest, smallest = table[i, COUNT], table[i, LARGEST], table[i, SMALLEST]
        found[i] = index(d, largest, smallest, table[i, at_p], table[i, at_q], p, q)
    return found


@jit
def effectives(table, at_p, at_q, p, q):
    """Effective count of each line, p < q."""
    found = np.empty(len(table))
    for i in range(len(table)):
        d, largest, smallest = table[i, COUNT], table[i, LARGEST], table[i, SMALLEST]
        found[i] = effective(d, largest, smallest, table[i, at_p], table[i, at_q], p, q)
    return found


@jit
def neurons(table, at_p, at_q, p, q, shares, gamma, beta):
    """PQ indices of the lines that hold mass, and for each share how many weights of all of them go.

    Of d weights go min(gamma (d - m), beta d), rounded down, m = share d (1 - I)^(pq / (q - p)) being the bound.
    What is a whole number but for rounding is taken for that number.
    """
    found, removed = np.empty(len(table)), np.zeros(len(shares), np.int64)
    power, some = p * q / (q - p), 0
    for i in range(len(table)):
        d, largest, smallest = table[i, COUNT], table[i, LARGEST], table[i, SMALLEST]
        if not largest > 0.0:
            continue
        found[some] = index(d, largest, smallest, table[i, at_p], table[i, at_q], p, q)
        kept = 1.0 - found[some]
        some += 1
        if power == 2.0:
            kept *= kept
        elif power != 1.0:
            kept **= power
        for k in range(len(shares)):
            removed[k] += np.int64(min(gamma * (d - shares[k] * d * kept), beta * d) + 1e-9 * d)
    return found[:some], removed
