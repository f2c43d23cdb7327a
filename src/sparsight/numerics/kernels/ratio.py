"""Largest and total share of each input in each output: a product with maxima for sums, which BLAS does not have.

For inputs a (K rows, one column for each patch), reciprocals r of the positive and of the negative part of every
output, and the side that each weight is on,

    top[f, k]   = max( top[f, k], max_p a[k, p] r[side[f, k], f, p] )
    total[f, k] = total[f, k] + sum_p a[k, p] r[side[f, k], f, p]

Everything is nonnegative. Each weight costs one multiplication, one comparison and one addition for each patch.
Vector code for LLVM does it, or its twin in plain numba, which has the same bits and takes up to ten times as long.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.kernels.jit import each, jit, or_twin
from sparsight.numerics.kernels.power_sums_llvm import LANES
from sparsight.numerics.kernels.ratio_llvm import four_rows

# numba passes an intrinsic's first argument itself:
# pyright: reportCallIssue=false

_ROWS = 64  # rows of `a` that stay in a core's cache while all of r passes by
_BLOCK = 1 << 26  # numbers that the tensor code holds at a time


@jit
def _plain_rows(a, r, first, r0, r1, r2, r3, n):
    """As `four_rows`."""
    top, total = np.zeros((4, LANES), a.dtype), np.zeros((4, LANES), a.dtype)
    for p in range(0, n - n % LANES, LANES):
        for row, other in enumerate((r0, r1, r2, r3)):
            for lane in range(LANES):
                product = a[first + p + lane] * r[other + p + lane]
                total[row, lane] += product
                if product > top[row, lane]:
                    top[row, lane] = product
    left = LANES
    while left > 1:
        left //= 2
        for row in range(4):
            for lane in range(left):
                total[row, lane] += total[row, lane + left]
                if not top[row, lane] > top[row, lane + left]:
                    top[row, lane] = top[row, lane + left]
    t, s = top[:, 0], total[:, 0]
    return t[0], t[1], t[2], t[3], s[0], s[1], s[2], s[3]


@jit
def _block(a, r, side, top, total, low, high, vector):
    """Rows low <= k < high of `a`, four outputs at a time; by the vector code unless `vector` is None."""
    outputs, n = side.shape[0], a.shape[1]
    flat, others = a.reshape(-1), r.reshape(-1)
    whole = n - n % LANES
    for f in range(0, outputs, 4):
        last = outputs - 1
        f0, f1, f2, f3 = f, min(f + 1, last), min(f + 2, last), min(f + 3, last)
        for k in range(low, high):
            r0 = (side[f0, k] * outputs + f0) * n
            r1 = (side[f1, k] * outputs + f1) * n
            r2 = (side[f2, k] * outputs + f2) * n
            r3 = (side[f3, k] * outputs + f3) * n
            if vector is None:  # then the other branch is not compiled
                t0, t1, t2, t3, s0, s1, s2, s3 = _plain_rows(flat, others, k * n, r0, r1, r2, r3, n)
            else:
                t0, t1, t2, t3, s0, s1, s2, s3 = four_rows(flat, others, k * n, r0, r1, r2, r3, n)
            for p in range(whole, n):
                x = a[k, p]
                v0, v1, v2, v3 = x * others[r0 + p], x * others[r1 + p], x * others[r2 + p], x * others[r3 + p]
                t0, t1, t2, t3 = max(t0, v0), max(t1, v1), max(t2, v2), max(t3, v3)
                s0, s1, s2, s3 = s0 + v0, s1 + v1, s2 + v2, s3 + v3
            top[f0, k] = max(top[f0, k], t0)
            total[f0, k] += s0
            if f + 1 <= last:
                top[f1, k] = max(top[f1, k], t1)
                total[f1, k] += s1
            if f + 2 <= last:
                top[f2, k] = max(top[f2, k], t2)
                total[f2, k] += s2
            if f + 3 <= last:
                top[f3, k] = max(top[f3, k], t3)
                total[f3, k] += s3


def vector_block(a, r, side, top, total, low, high):
    _block(a, r, side, top, total, low, high, True)


def plain_block(a, r, side, top, total, low, high):
    """Twin of the vector code, with the same bits."""
    _block(a, r, side, top, total, low, high, None)


_rows_of_inputs = or_twin(vector_block, plain_block)


@jit
def _take(plus, minus, side, top, total, scale):
    for i in range(len(side)):
        mine = minus[i] if side[i] else plus[i]
        total[i] += mine
        mine *= scale
        top[i] = mine if mine > top[i] else top[i]


def take_(plus: Tensor, minus: Tensor, side: Tensor, top: Tensor, total: Tensor, patches: int) -> None:
    """Add what is on each weight's side to `total`, and let `top` be at least a `patches`-th of it. All contiguous."""
    if _compiled(plus):
        flat = [t.view(-1).numpy() for t in (plus, minus, side, top, total)]
        _take(*flat, flat[0].dtype.type(1 / patches))
        return
    mine = torch.where(side.bool(), minus, plus)
    total += mine
    torch.maximum(top, mine.div_(patches), out=top)


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def largest_and_total_(a: Tensor, r: Tensor, side: Tensor, top: Tensor, total: Tensor) -> None:
    """Update `top` and `total` (F, K) by the columns of `a` (K, M) and `r` (2, F, M); `side` (F, K) is 0 or 1 (uint8).

    Compiled on the CPU, for float32 and float64; tensor code elsewhere. All are contiguous and of one dtype.
    """
    if not _compiled(a):
        tensor_largest_and_total_(a, r, side, top, total)
        return
    arrays = [t.numpy() for t in (a, r, side, top, total)]
    count = -(-len(a) // _ROWS)
    each(lambda i: _rows_of_inputs(*arrays, i * _ROWS, min((i + 1) * _ROWS, len(a))), count)


def tensor_largest_and_total_(a: Tensor, r: Tensor, side: Tensor, top: Tensor, total: Tensor) -> None:
    """The same on any device, in blocks of outputs."""
    step = max(1, _BLOCK // max(1, a.numel()))
    negative = side.bool()
    for start in range(0, len(side), step):
        some = slice(start, start + step)
        peak = [(a.unsqueeze(0) * half[some].unsqueeze(1)).amax(-1) for half in r]
        mean = [half[some] @ a.t() for half in r]
        top[some] = torch.maximum(top[some], torch.where(negative[some], peak[1], peak[0]))
        total[some] += torch.where(negative[some], mean[1], mean[0])
