"""Words (the bits of weights) taken apart and put together: where they are not 0, their exponents, their other bits.

A word is sign | exponent | mantissa, with `low` bits of mantissa and `width` of exponent. What is left of it without
the exponent, sign above mantissa, is its rest; planes[b] holds bits 8 b .. 8 b + 7 of each rest. Whole numbers have no
exponent: `width` is 0, and the rest is the word. An exponent is written as its rank in a table of at most 15, two
ranks to a byte, the first in the low half; rank 15 says that the exponent is the next of a list.
"""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.jit import jit

SKIP = 255
"""As a gap: so many zeros, and no word after them."""
ESCAPE = 15
_BLOCK = 2048
_UNKNOWN = np.uint16(1 << 15)  # exponents have 11 bits at most


@jit
def count(words):
    """Words that are not 0."""
    found = 0
    for word in words:
        found += word != 0
    return found


@jit
def compact(words, values, gaps):
    """The words that are not 0, and the zeros before each of them, a byte a gap; how many bytes that took.

    `values` has room for one more, `gaps` for one more in each `SKIP` zeros.
    """
    places, last, found, used = np.empty(_BLOCK + 1, np.int64), -1, 0, 0
    for start in range(0, len(words), _BLOCK):
        part, here = words[start : start + _BLOCK], 0
        for i in range(len(part)):  # without branches, which nobody can predict
            values[found + here] = part[i]
            places[here] = start + i
            here += part[i] != 0
        for i in range(here):
            gap = places[i] - last - 1
            while gap >= SKIP:
                gaps[used] = SKIP
                used += 1
                gap -= SKIP
            gaps[used] = gap
            used += 1
            last = places[i]
        found += here
    return used


@jit
def histogram(values, low, counts):
    """Add to `counts`, a power of two of them, how often each exponent occurs."""
    shift, some = values.dtype.type(low), values.dtype.type(len(counts) - 1)
    for value in values:
        counts[(value >> shift) & some] += 1


@jit
def split(values, low, width, planes):
    """The rest of each word, in planes."""
    kind = values.dtype.type
    mantissa, to, fro = kind((kind(1) << kind(low)) - kind(1)), kind(low), kind(low + width)
    for b in range(len(planes)):
        plane, shift = planes[b], kind(8 * b)
        for i in range(len(values)):
            rest = (values[i] & mantissa) | ((values[i] >> fro) << to)
            plane[i] = (rest >> shift) & kind(255)


@jit
def ranked(values, low, ranks, nibbles, escapes):
    """The rank of each exponent, `ranks[exponent]`, and those of rank 15 themselves; how many these are."""
    shift, some = values.dtype.type(low), values.dtype.type(len(ranks) - 1)
    used = 0
    for i in range(len(values)):
        exponent = (values[i] >> shift) & some
        rank = ranks[exponent]
        if rank == ESCAPE:
            escapes[used] = exponent
            used += 1
        if i & 1:
            nibbles[i >> 1] |= rank << 4
        else:
            nibbles[i >> 1] = rank
    return used


@jit
def walk(gaps, size, places):
    """Where the words of these gaps lie among `size`; False unless all of `places` are found there."""
    at, found = 0, 0
    for gap in gaps:
        at += gap
        if gap != SKIP:
            if found == len(places) or at >= size:
                return False
            places[found] = at
            found += 1
            at += 1
    return found == len(places) and at <= size


@jit
def find(bits, size, places):
    """Where the first `size` bits, of each byte the lowest first, are 1; False unless all but the last of `places`,
    whose value is left open, are found."""
    if _ones(bits) != len(places) - 1 or (size & 7 and bits[-1] >> (size & 7)):
        return False
    found = 0
    for i in range(len(bits)):
        for b in range(8):
            places[found] = 8 * i + b
            found += (bits[i] >> b) & 1
    return True


@jit
def join(nibbles, table, escapes, planes, low, out):
    """Words from the ranks of their exponents and the planes of their rests; False if a word is 0 or has no exponent.

    `table` (uint16) is empty for whole numbers. `escapes` are used up.
    """
    known, exponents = np.full(16, _UNKNOWN), np.zeros(_BLOCK, np.uint16)
    known[: len(table)] = table
    pairs = np.empty(256, np.uint32)
    for i in range(256):
        pairs[i] = known[i & 15] | np.uint32(known[i >> 4]) << np.uint32(16)
    used, width = 0, 8 * out.itemsize - 1 - low
    for start in range(0, len(out), _BLOCK):
        part = out[start : start + _BLOCK]
        _rests(planes, start, part)
        if width:
            used = _exponents(nibbles, start, pairs, escapes, used, exponents[: len(part)])
            if used < 0:
                return False
        if not _whole(exponents, low, width, part):
            return False
    return used == len(escapes)


@jit
def _rests(planes, start, out):
    kind = out.dtype.type
    plane = planes[0, start : start + len(out)]
    for i in range(len(out)):
        out[i] = plane[i]
    for b in range(1, len(planes)):
        plane, shift = planes[b, start : start + len(out)], kind(8 * b)
        for i in range(len(out)):
            out[i] |= kind(plane[i]) << shift


@jit
def _exponents(nibbles, start, pairs, escapes, used, out):
    """Exponents of some ranks, by the table of two of them; how many of `escapes` are used after them, or -1."""
    some, seen = nibbles[start >> 1 : (start + len(out) + 1) >> 1], np.uint32(0)
    for i in range(len(out) >> 1):
        pair = pairs[some[i]]
        out[2 * i], out[2 * i + 1] = pair & np.uint32(0xFFFF), pair >> np.uint32(16)
        seen |= pair
    if len(out) & 1:
        out[-1] = pairs[some[-1]] & np.uint32(0xFFFF)
        seen |= out[-1]
        if some[-1] >> 4:
            return -1
    if seen & np.uint32(0x80008000):
        for i in range(len(out)):
            if out[i] == _UNKNOWN:
                if (some[i >> 1] >> (4 * (i & 1))) & 15 != ESCAPE or used == len(escapes):
                    return -1
                out[i] = escapes[used]
                used += 1
    return used


@jit
def _whole(exponents, low, width, out):
    kind = out.dtype.type
    mantissa, to, fro = kind((kind(1) << kind(low)) - kind(1)), kind(low), kind(low + width)
    zeros = 0
    for i in range(len(out)):
        rest = out[i]
        word = kind((rest & mantissa) | (kind(exponents[i]) << to) | ((rest >> to) << fro))
        out[i] = word
        zeros += word == 0
    return zeros == 0


@jit
def spread(places, values, out):
    """Each word to its place in `out`, which is 0 elsewhere."""
    out[:] = 0
    for i in range(len(places)):
        out[places[i]] = values[i]


@jit
def _ones(bits):
    found = 0
    for byte in bits:
        for b in range(8):
            found += (byte >> b) & 1
    return found
