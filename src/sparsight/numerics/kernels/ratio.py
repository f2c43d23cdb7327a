"""Largest and total share of each input in each output: a product with maxima instead of sums, which BLAS lacks.

For inputs a (K rows, one column per patch), reciprocals r of the positive and negative part of every output, and the
side of each weight,

    top[f, k]   = max( top[f, k], max_p a[k, p] r[side[f, k], f, p] )
    total[f, k] = total[f, k] + sum_p a[k, p] r[side[f, k], f, p]

Everything is nonnegative. Each weight costs one multiplication, one comparison and one addition per patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsight.numerics.kernels.jit import each, jit, summing
from sparsight.numerics.kernels.magnitudes import magnitude, number

_ROWS = 64  # rows of `a` that stay in a core's cache while all of r is read
_BLOCK = 1 << 26  # numbers that the tensor code holds at a time


@summing
def _largest_and_sum(x, r):
    """Largest product, and their sum. Compares bits as integers: a maximum of floats with NaN depends on order."""
    total, top = x.dtype.type(0), magnitude(x.dtype.type(0))
    for p in range(len(x)):
        product = x[p] * r[p]
        top = max(top, magnitude(product))
        total += product
    return number(top), total


@jit
def _rows_of_inputs(a, r, side, top, total, low, high):
    """Update by rows low <= k < high of `a`."""
    for f in range(len(side)):
        for k in range(low, high):
            largest, added = _largest_and_sum(a[k], r[side[f, k], f])
            top[f, k] = max(top[f, k], largest)
            total[f, k] += added


@jit
def _take(plus, minus, side, top, total, scale):
    for i in range(len(side)):
        mine = minus[i] if side[i] else plus[i]
        total[i] += mine
        mine *= scale
        top[i] = mine if mine > top[i] else top[i]


def take_(plus: Tensor, minus: Tensor, side: Tensor, top: Tensor, total: Tensor, patches: int) -> None:
    """Add each weight's side, plus or minus, to `total`; raise `top` to at least 1/patches of it. All contiguous."""
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
    """`largest_and_total_` on any device, in blocks of outputs."""
    step = max(1, _BLOCK // max(1, a.numel()))
    negative = side.bool()
    for start in range(0, len(side), step):
        some = slice(start, start + step)
        peak = [(a.unsqueeze(0) * half[some].unsqueeze(1)).amax(-1) for half in r]
        mean = [half[some] @ a.t() for half in r]
        top[some] = torch.maximum(top[some], torch.where(negative[some], peak[1], peak[0]))
        total[some] += torch.where(negative[some], mean[1], mean[0])
