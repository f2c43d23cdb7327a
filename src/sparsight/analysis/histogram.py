"""What a histogram of high bits says for certain: Gini index and exact eta, each with how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparsight.numerics.kernels.jit import jit

_SLACK = 1e-12  # of a mass: sums of both sides are rounded


@dataclass(frozen=True, eq=False)
class Bins:
    """Magnitudes by intervals that they are known to be in; exact values where low == high. Zeros are a bin."""

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    every: int = 1  # one of so many weights at least was counted, for all of them

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def octaves(self) -> tuple[tuple[int, int], ...]:
        """(e, weights in [2^e, 2^(e+1))); denormals of a bin that starts at 0 count where it ends."""
        least, sums = _octaves(self.low, self.high, self.count)
        return tuple((least + i, n) for i, n in enumerate(sums.tolist()) if n)


@jit
def _octaves(low, high, count):
    sums = np.zeros(2200, np.int64)  # float64 goes from 2^-1074 to 2^1024
    start = stop = 0.0  # of the octave of the bin before, which is that of most
    octave = 0
    for i in range(len(count)):
        if high[i] > 0:
            x = low[i] if low[i] > 0 else high[i]
            if not start <= x < stop:
                octave = math.frexp(x)[1] - 1
                start, stop = math.ldexp(1.0, octave), math.ldexp(1.0, octave + 1)
            sums[octave + 1100] += count[i]
    first, last = 0, 0
    for i in range(len(sums)):
        if sums[i]:
            first = first or i
            last = i
    return first - 1100, sums[first : last + 1]


def decode(dtype: str, counts: np.ndarray, zeros: int, every: int = 1, used: tuple[int, int] | None = None) -> Bins:
    """The bins of a histogram by `kernels.histogram`; zeros are told from denormals in the lowest bin.

    In a sample what the lowest bin counts is taken for zeros where there are any. `used` says outside which bins,
    bin 0 apart, there is nothing.
    """
    first, last = used or (1, len(counts))
    keys, count = _filled(counts, first, last)
    if dtype == "float64":
        bits = keys.astype(np.uint64) << np.uint64(45)
        low, high = bits.view(np.float64), (bits | np.uint64((1 << 45) - 1)).view(np.float64)
    elif dtype == "float32":
        bits = keys.astype(np.uint32) << np.uint32(16)
        low, high = (b.view(np.float32).astype(np.float64) for b in (bits, bits | np.uint32(0xFFFF)))
    elif dtype == "bfloat16":
        low = high = (keys.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    else:
        low = high = keys.astype(np.uint16).view(np.float16).astype(np.float64)
    if zeros and len(count) and every > 1 and low[0] == 0:
        high = np.concatenate([[0.0], high[1:]])
    elif zeros and len(count) and every == 1:
        rest = count[0] - zeros
        head = (0.0, 0.0, zeros)
        low, high, count = (np.concatenate([[h], a]) for h, a in zip(head, (low, high, count), strict=True))
        count[1] = rest
        alive = count > 0
        low, high, count = low[alive], high[alive], count[alive]
    return Bins(low, high, count, every)


@jit
def _filled(counts, first, last):
    """Those of bin 0 and the bins first..last that hold something, and what."""
    keys, count = np.empty(1 + last - first, np.int64), np.empty(1 + last - first, np.int64)
    some = 0
    if len(counts):
        keys[0], count[0] = 0, counts[0]
        some += counts[0] != 0
    for k in range(max(first, 1), last):
        keys[some], count[some] = k, counts[k]
        some += counts[k] != 0
    return keys[:some], count[:some]


def join(parts: Mapping[str, tuple[np.ndarray, int, int, tuple[int, int]]]) -> Bins:
    """The bins of histograms by dtype, each with its zeros, `every` and `used`.

    Bins of different dtypes overlap; those of samples are put into bins of 2^-7, in order.
    """
    if not parts:
        return Bins(np.empty(0), np.empty(0), np.empty(0, np.int64))
    every = max(part[2] for part in parts.values())
    found = [decode(dtype, counts, zeros, every, used) for dtype, (counts, zeros, _, used) in parts.items()]
    if len(found) == 1:
        return found[0]
    low, high, count = (np.concatenate([getattr(b, f) for b in found]) for f in ("low", "high", "count"))
    if every == 1:
        return Bins(low, high, count)
    keys = np.where(high > 0, low.view(np.uint64) >> np.uint64(45), np.uint64(0))
    kept, at = np.unique(np.stack([keys, high > 0]), axis=1, return_inverse=True)
    size = kept.shape[1]
    joined = np.zeros(size, np.int64)
    lows, highs = np.full(size, np.inf), np.zeros(size)
    np.add.at(joined, at, count)
    np.minimum.at(lows, at, low)
    np.maximum.at(highs, at, high)
    return Bins(lows, highs, joined, every)


def gini(bins: Bins, mass: float, unit: float) -> tuple[float, float]:
    """Gini index and how far off it may be; `mass` is the exact sum of |w| / unit.

        G = sum_i (2 i - d - 1) x_(i) / (d sum x),       x_(1) <= … <= x_(d) the magnitudes

    In [0, 1 - 1/d], larger = sparser; 0 where all are 0. Each x is taken to be the middle of its bin. A sum of
    absolute differences moves by at most d times the sum of what its terms move, so G is off by at most
    (sum of half widths) / (sum of x): below 2^-8 for normal float32 and float64, 0 for 16-bit floats.
    """
    if mass <= 0:
        return 0.0, 0.0
    middle = (bins.low + (bins.high - bins.low) / 2) / unit
    order = np.argsort(middle, kind="stable")
    x, n = middle[order], bins.count[order].astype(np.float64)
    d = n.sum()
    before = np.cumsum(n) - n
    value = float(np.sum(n * (2 * before + n - d) * x) / (d * mass))
    error = float(np.sum(bins.count * ((bins.high - bins.low) / 2 / unit)) / mass)
    return min(max(value, 0.0), 1.0), error


def droppable(bins: Bins, p: float, eta: float, mass: float, unit: float) -> tuple[int, int, int]:
    """How many of the smallest weights hold at most eta of the others' p-mass: (certainly, probably, at most).

    K = largest k with sum_{i <= k} x_(i)^p <= eta sum_{i > k} x_(i)^p; `mass` is the exact sum of (|w|/unit)^p.
    Order statistics of the bins' ends enclose those of the weights, so the first and the last are rigorous.
    """
    zeros = int(bins.count[bins.high == 0].sum())
    if eta == 0 or mass <= 0:
        return zeros, zeros, zeros
    goal = eta / (1 + eta) * mass
    middle = bins.low + (bins.high - bins.low) / 2
    least = count_up_to(bins.high / unit, bins.count, p, goal * (1 - _SLACK))
    most = count_up_to(bins.low / unit, bins.count, p, goal * (1 + _SLACK))
    near = count_up_to(middle / unit, bins.count, p, goal)
    least, near, most = int(least), int(near), int(most)
    return least, min(max(near, least), most), most


def count_up_to(x: np.ndarray, count: np.ndarray, p: float, goal: float) -> float:
    """How many of the smallest of `count` weights of magnitudes x hold at most `goal` of the p-mass."""
    order = np.argsort(x, kind="stable")
    term, n = x[order] ** p, count[order]
    sums = np.cumsum(term * n)
    at = int(np.searchsorted(sums, goal, side="right"))
    whole = n[:at].sum()
    if at == len(n):
        return whole
    left = goal - (sums[at - 1] if at else 0.0)
    return whole + (min(max(left / term[at], 0), n[at]) if term[at] > 0 else n[at])
