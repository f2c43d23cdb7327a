"""Splits words (the bits of weights) into places of nonzeros, exponents and other bits, and joins them again.

A word is sign | exponent | mantissa, with `low` bits of mantissa and `width` of exponent. Without the exponent, with
the sign above the mantissa, it is called its rest; planes[b] holds bits 8 b .. 8 b + 7 of each rest. Whole numbers have
no exponent: `width` is 0, and the rest is the word. An exponent is stored as its rank in a table of at most 15, two
ranks per byte, the first in the low half. Rank 15 means that the exponent is the next in a list.
"""

from __future__ import annotations

import numpy as np

from sparsight.numerics.kernels.jit import jit

SKIP = 255
"""A gap of this many zeros, with no word after them."""
ESCAPE = 15
_BLOCK = 2048
_UNKNOWN = np.uint16(1 << 15)  # exponents have 11 bits at most


@jit
def count(words):
    """The number of nonzero words."""
    found = 0
    for word in words:
        found += word != 0
    return found


@jit
def compact(words, values, gaps):
    """Write the nonzero words, and the gap of zeros before each, one byte per gap; returns the bytes of the gaps.

    `values` has room for one more word, `gaps` for one more byte per `SKIP` zeros.
    """
    places, last, found, used = np.empty(_BLOCK + 1, np.int64), -1, 0, 0
    for start in range(0, len(words), _BLOCK):
        part, here = words[start : start + _BLOCK], 0
        for i in range(len(part)):  # without branches, which would be unpredictable
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
    """Add the number of occurrences of each exponent to `counts`, which has a power of two as length."""
    shift, some = values.dtype.type(low), values.dtype.type(len(counts) - 1)
    for value in values:
        counts[(value >> shift) & some] += 1


@jit
def split(values, low, width, planes):
    """Write the rest of each word to `planes`."""
    kind = values.dtype.type
    mantissa, to, fro = kind((kind(1) << kind(low)) - kind(1)), kind(low), kind(low + width)
    for b in range(len(planes)):
        plane, shift = planes[b], kind(8 * b)
        for i in range(len(values)):
            rest = (values[i] & mantissa) | ((values[i] >> fro) << to)
            plane[i] = (rest >> shift) & kind(255)


@jit
def ranked(values, low, ranks, nibbles, escapes):
    """Write the rank of each exponent, `ranks[exponent]`, and the exponents of rank 15; returns how many escaped."""
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
    """Write the places of words among `size` from their gaps; False unless exactly all of `places` are found."""
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
    """Write the places of ones in the first `size` bits, lowest bit of a byte first; False unless they fill `places`
    except for its last entry, which is undefined."""
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
    """Join words from ranks of exponents and planes of rests; False if a word is 0 or has no exponent.

    `table` (uint16) is empty for whole numbers. All `escapes` must be used.
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
    """Write exponents from ranks, by a table of pairs; returns how many `escapes` are used by now, or -1 on error."""
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
    """Write each word to its place in `out`, and 0 elsewhere."""
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
