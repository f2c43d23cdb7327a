"""Power sums of rows of weights, chunk by chunk: one pass over memory, the same bits for any number of threads.

Rows are cut into chunks of 8192 weights, from the start of each row. A chunk gives one line of a table, and lines are
folded in order, into rows, tensors or everything. Within a chunk, the machine's vectors decide the order of a sum.

Arrays hold float32 or float64, or the bits of bfloat16 as uint16 and of float16 as int16. An exponent e > 0 means
sum |x|^e. A negative one means sum y ln y with y = |x|^-e, and directly follows the exponent -e.
"""

from __future__ import annotations

import math

import numpy as np

from sparsight.numerics.kernels.jit import jit, summing
from sparsight.numerics.kernels.magnitudes import infinity_of, magnitude, number, root_of

CHUNK = 8192
COUNT, ZEROS, LARGEST, SMALLEST, SCALE, SUMS = range(6)
"""Columns of a table. SCALE is the log2 of the sums' unit. The sums are followed by their rounding errors: each sum is
a pair of float64."""
_STEP = 64.0  # units are powers of 2^64: changing the unit is exact for the usual exponents
_LARGEST_UNIT = 960.0
_SQRT_FLOOR = 2.0**-40  # in chunks of narrower floats below it, residuals of float32 roots would be denormal


@jit
def _kept(x, mask, out):
    """The kept weights of x, written to the beginning of `out`."""
    n = 0
    for i in range(len(x)):
        out[n] = x[i]
        n += mask[i]
    return out[:n]


@summing
def _sums(x):
    """Sums of |x|^0.5, |x| and x^2, the largest and smallest magnitude. A NaN is the largest.

    Always computes all three: with fewer, the compiler would order the sums differently.
    """
    root, one, two, lost = 0.0, 0.0, 0.0, np.float32(0.0)
    largest = magnitude(x.dtype.type(0))
    smallest = infinity_of(largest)
    for i in range(len(x)):
        bits = magnitude(x[i])
        largest, smallest = max(largest, bits), min(smallest, bits)
        v = number(bits)
        s, more = root_of(v)
        root += np.float64(s)
        one += np.float64(v)
        two += np.float64(v) * np.float64(v)
        lost += more
    root += 0.5 * np.float64(lost)
    return root, one, two, np.float64(number(largest)), np.float64(number(smallest))


@jit
def unit_of(largest: float, limit: float) -> float:
    """log2 of the unit for weights up to `largest`: 0 unless their powers might leave float64's range."""
    if largest == 0.0 or not math.isfinite(largest) or 1.0 / limit <= largest <= limit:
        return 0.0
    unit = _STEP * round(math.log2(largest) / _STEP)
    return min(max(unit, -_LARGEST_UNIT), _LARGEST_UNIT)


@jit
def term(x: float, e: float) -> float:
    """x^e for x >= 0; y ln y with y = x^-e if e < 0."""
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


@summing
def _sum_terms(x, e, unit):
    """Sum of `term` in float64."""
    total, factor = 0.0, math.ldexp(1.0, -int(unit))
    for i in range(len(x)):
        total += term(np.float64(number(magnitude(x[i]))) * factor, e)
    return total


@jit
def _careful(x, exponents, limit, line):
    """Complete the line of `_sums`: number of zeros, other exponents, extreme magnitudes."""
    largest = line[LARGEST]
    line[SCALE] = unit = unit_of(largest, limit)
    if line[SMALLEST] == 0.0:
        for i in range(len(x)):
            line[ZEROS] += magnitude(x[i]) == 0
    narrow = x.itemsize < 8 and 0.0 < largest < _SQRT_FLOOR
    for j in range(len(exponents)):
        e = exponents[j]
        if unit != 0.0 or narrow or (e != 0.5 and e != 1.0 and e != 2.0):
            line[SUMS + j] = _sum_terms(x, e, unit)


@jit
def fill(x, mask, place, length, exponents, limit, start, stop, table):
    """Write lines start..stop of a tensor with consecutive rows of `length` weights to `table`.

    x[0] is weight `place` of the tensor. A non-finite weight makes LARGEST non-finite.
    """
    low = 1.0 / limit if x.itemsize == 8 else max(1.0 / limit, _SQRT_FLOOR)
    chunks = (length + CHUNK - 1) // CHUNK
    row = start // chunks
    a = row * length + (start - row * chunks) * CHUNK - place
    room = np.empty(CHUNK, x.dtype)
    for c in range(stop - start):
        end = (row + 1) * length - place
        z = min(a + CHUNK, end)
        some, line = x[a:z] if mask is None else _kept(x[a:z], mask[a:z], room), table[c]
        line[:] = 0.0
        line[COUNT] = len(some)
        root, one, two, line[LARGEST], line[SMALLEST] = _sums(some)
        other = False
        for j in range(len(exponents)):
            e = exponents[j]
            line[SUMS + j] = root if e == 0.5 else one if e == 1.0 else two
            other |= e != 0.5 and e != 1.0 and e != 2.0
        if other or line[SMALLEST] == 0.0 or not (low <= line[LARGEST] <= limit):
            _careful(some, exponents, limit, line)
        row += z == end
        a = z


@jit
def _two_sum(a, b):
    """a + b, and its rounding error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@jit
def _fold_sums(table, start, stop, exponents, unit, line):
    """The sums of lines start..stop in `unit`, each as a pair."""
    n = len(exponents)
    totals, losts = np.zeros(n), np.zeros(n)
    for i in range(start, stop):
        change = table[i, SCALE] - unit
        for j in range(n):
            s, s_lost = table[i, SUMS + j], table[i, SUMS + n + j]
            if change < 0.0:  # never without mass: the unit is then 0
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
    """Fold every `per` lines of `table`, in order, into one line of `out`, in the largest of their units.

    LARGEST becomes NaN if it is not finite in any of the lines.
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
    """PQ index 1 - M_p / M_q; 0 if all magnitudes are equal or there is no mass."""
    if not 0.0 < largest > smallest:
        return 0.0
    low, high = sum_p / count, sum_q / count
    if p < 0.5 or q > 2.0:  # a power of a mean may leave float64's range though the ratio does not
        return -math.expm1(_log_ratio(low, high, p, q)) + 0.0  # never -0.0
    return max(1.0 - _power_mean(low, p) / _power_mean(high, q), 0.0)


@jit
def effective(count, largest, smallest, sum_p, sum_q, p, q):
    """Effective count, p < q; `count` if all magnitudes are equal or there is no mass."""
    if not 0.0 < largest > smallest:
        return count
    return count * math.exp(p * q / (q - p) * _log_ratio(sum_p / count, sum_q / count, p, q))


@jit
def of_lines(table, at_p, at_q, p, q, counts):
    """The effective count of each line (p < q) if `counts`, else its PQ index."""
    found = np.empty(len(table))
    for i in range(len(table)):
        line = table[i, COUNT], table[i, LARGEST], table[i, SMALLEST], table[i, at_p], table[i, at_q], p, q
        found[i] = effective(*line) if counts else index(*line)
    return found


@jit
def neurons(table, at_p, at_q, p, q, shares, gamma, beta):
    """PQ indices of the lines with mass, and for each share the total number of weights to prune in them.

    Of d weights, min(gamma (d - m), beta d) are pruned, with the bound m = share d (1 - I)^(pq / (q - p)). This is
    rounded down, but values within rounding errors of a whole number count as that number.
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
