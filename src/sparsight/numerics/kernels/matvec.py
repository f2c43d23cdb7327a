"""A sparse matrix times one vector: by slots (windowed SELL-16), or row by row without AVX-512.

A slot holds at most one nonzero for each of 16 lanes, all within 32 columns of its base. Five bits select the column of
a lane, by one permutation of two vectors of x. In fp32 a lane has two rows, and a sixth bit selects one of them: slots
have fewer empty places, and memory is the bottleneck. With bfloat16 weights a lane has one row.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils

from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels.calls import call, operation, put_real, real, small, word
from sparsight.numerics.kernels.jit import cached, has, jit, summing
from sparsight.numerics.kernels.llvm import BYTES, I16, I64, LANES, VI, ZERO, V, fma, function, i64, load, store
from sparsight.numerics.kernels.planes import OPERATION, OUT_ROW, chunk_of, clamped_sum, input_of
from sparsight.numerics.kernels.walk import aligned_copy

ADVANCES, BLOCKS, STARTS, BIAS, PAIRS = range(k.MORE, k.MORE + 5)
# PARTS divide groups of rows (`group`); OUT_ROW is the bytes of a group.

WINDOW = 2 * LANES
STEP = 8  # bases are multiples of this many columns: fewer unaligned vectors of x span two cache lines


class Slots(NamedTuple):
    """The format of the slots of a group of rows: lane l has the rows l, LANES + l, ..."""

    rows: int  # per lane
    bits: int  # per place
    block: int  # slots with places that fit into a word of 32 bits


EXACT, HALF = Slots(2, 6, 5), Slots(1, 5, 6)
_SUMS = 3  # independent accumulators per row


def group(half: bool) -> int:
    """Rows that the kernels process at once: 16 with bfloat16 weights, otherwise 32."""
    return LANES * (HALF if half else EXACT).rows


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 (uint16)."""
    return torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)


@jit
def _fill(begins, columns, weights, bits, advances, places, values):
    """Fill the blocks of one group of rows; returns their number. Each row's nonzeros begin at `begins`."""
    rows, block_size = len(begins) - 1, values.shape[1]
    next_ = begins[:-1].copy()
    here = count = 0
    while True:
        base = np.int64(2**62)
        for row in range(rows):
            if next_[row] < begins[row + 1]:
                base = min(base, np.int64(columns[next_[row]]))
        if base == 2**62:
            return -(-count // block_size)
        steps = min(base // STEP - here, 255)  # empty slots bridge longer distances
        here += steps
        block, slot = count // block_size, count % block_size
        advances[block, slot] = steps
        for lane in range(LANES):
            row = lane
            for other in range(lane + LANES, rows, LANES):
                if next_[row] == begins[row + 1] or (
                    next_[other] < begins[other + 1] and columns[next_[other]] < columns[next_[row]]
                ):
                    row = other
            at = next_[row]
            if at < begins[row + 1] and columns[at] < here * STEP + WINDOW:
                place = columns[at] - here * STEP + WINDOW * (row // LANES)
                places[block, lane] |= np.uint32(place) << np.uint32(bits * slot)
                values[block, slot, lane] = weights[at]
                next_[row] = at + 1
        count += 1


def slots(
    shape: tuple[int, int], row: np.ndarray, column: np.ndarray, weights: np.ndarray, half: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slots of a matrix: advances (n, 8), blocks of places and values (n, words), and the start of each group.

    `shape` is (rows, columns); `weights` are the nonzeros, float32, in row-major order. `half`: values are bfloat16.
    """
    rows, columns = shape
    _, bits, block = HALF if half else EXACT
    begins = np.searchsorted(row, np.arange(rows + 1))
    parts = [begins[first : first + group(half) + 1] for first in range(0, rows, group(half))]
    most = max((part[-1] - part[0] for part in parts), default=0) + 1 + columns // (255 * STEP)
    advances, places = np.zeros((most, 8), np.uint8), np.zeros((most, LANES), np.uint32)
    values = np.zeros((most, block, LANES), np.float32)
    steps, blocks, starts = [], [], [0]
    for part in parts:
        n = _fill(part, column, weights, bits, advances, places, values)
        kept = bfloat16(values[:n]) if half else values[:n]
        steps.append(advances[:n].copy())
        blocks.append(np.concatenate([places[:n], kept.reshape(n, block * LANES).view(np.uint32)], axis=1))
        starts.append(starts[-1] + n)
        for used in (advances, places, values):
            used[:n] = 0
    return aligned_copy(np.concatenate(steps)), aligned_copy(np.concatenate(blocks)), np.array(starts, np.int32)


def _all(number: int) -> Any:
    return ir.Constant(VI, [number] * LANES)


def _group_of_rows(b: Any, x: Any, advances: Any, blocks: Any, begin: Any, end: Any, out: Any, half: int) -> None:
    rows, bits, count = HALF if half else EXACT
    permute = function(b, "llvm.x86.avx512.vpermi2var.ps.512", V, V, VI, V)
    size = BYTES // 2 if half else BYTES
    sums = [[cgutils.alloca_once_value(b, ZERO) for _ in range(_SUMS)] for _ in range(rows)]
    for total in chain(*sums):
        b.store(ZERO, total)
    base = cgutils.alloca_once_value(b, x)
    b.store(x, base)

    with cgutils.for_range(b, b.sub(end, begin)) as loop:
        number = b.add(begin, loop.index)
        advance = load(b, b.add(advances, b.mul(number, i64(8))), I64, 8)
        block = b.add(blocks, b.mul(number, i64(BYTES + count * size)))
        places = load(b, block, VI, size)
        at = b.load(base)
        for i in range(count):
            step = b.and_(b.lshr(advance, i64(8 * i)), i64(255))
            at = b.add(at, b.mul(step, i64(4 * STEP)))
            low, high = (load(b, b.add(at, i64(k)), align=4) for k in (0, BYTES))
            raw = b.add(block, i64(BYTES + i * size))
            if half:
                narrow = load(b, raw, ir.VectorType(I16, LANES), size)
                weight = b.bitcast(b.shl(b.zext(narrow, VI), _all(16)), V)
            else:
                weight = load(b, raw, align=size)
            picked = b.call(permute, [low, b.lshr(places, _all(bits * i)), high])  # reads five bits of each place
            old = [b.load(totals[i % _SUMS]) for totals in sums]
            new = [fma(b, picked, weight, total) for total in old]
            if rows == 2:
                second = b.icmp_signed("!=", b.and_(places, _all(WINDOW << bits * i)), _all(0))
                new = [b.select(second, old[0], new[0]), b.select(second, new[1], old[1])]
            for totals, total in zip(sums, new, strict=True):
                b.store(total, totals[i % _SUMS])
        b.store(at, base)
    for row, totals in enumerate(sums):
        first, *others = (b.load(total) for total in totals)
        for other in others:
            first = b.fadd(first, other)
        store(b, first, b.add(out, i64(row * BYTES)), align=4)


group_of_rows: Any = operation([*[types.int64] * 6, int], _group_of_rows)
"""Write the products of a group of rows: x, advances, blocks, first and end block, out, 1 if values are bfloat16.

Reads WINDOW numbers of x from each base on. Each byte of a block's advance is the distance in STEPs from one slot's
base to the next.
"""


@jit
def _finished(op, slots, out, begin, end):
    """Apply bias, sum, clamp and activation to groups of rows."""
    begin, end = begin * word(op, OUT_ROW) // BYTES, end * word(op, OUT_ROW) // BYTES
    count, first, infinity = LANES * (end - begin), BYTES * begin, np.float32(np.inf)
    add = word(slots, word(op, k.ADD)) + word(op, k.ADD_AT) + first if word(op, k.ADD) else 0
    clamped_sum(out, out, word(op, BIAS) + first, -infinity, infinity, count)
    clamped_sum(out, out, add, real(op + 8 * k.LOW, 0), real(op + 8 * k.HIGH, 0), count)
    if word(op, k.ACTIVATE):
        call(word(op, k.ACTIVATE), (out, 1, 0, 0, 1, end - begin, 0))


@summing
def _row(x, pairs, begin, end):
    total = np.float32(0)
    for i in range(begin, end):
        total += real(x + small(pairs, 2 * i), 0) * real(pairs, 2 * i + 1)
    return total


@cached(cfunc, OPERATION)
def by_rows(op, slots, scratch, chunk):
    _, begin, end, out = chunk_of(op, slots, chunk)
    x, starts = input_of(op, slots, 0, 0), word(op, STARTS)
    rows = word(op, OUT_ROW) // 4
    for row in range(rows * begin, rows * end):
        put_real(out, row - rows * begin, _row(x, word(op, PAIRS), small(starts, row), small(starts, row + 1)))
    _finished(op, slots, out, begin, end)


@cache
def by_slots(half: bool) -> Any | None:
    """The kernel for slots, with bfloat16 values if `half`; None without AVX-512."""
    if not has("avx512f"):
        return None
    kind = int(half)

    def run(op, slots, scratch, chunk):
        _, begin, end, out = chunk_of(op, slots, chunk)
        x, starts = input_of(op, slots, 0, 0), word(op, STARTS)
        for g in range(begin, end):
            first, last, to = small(starts, g), small(starts, g + 1), out + (g - begin) * word(op, OUT_ROW)
            group_of_rows(x, word(op, ADVANCES), word(op, BLOCKS), first, last, to, kind)
        _finished(op, slots, out, begin, end)

    return cached(cfunc, OPERATION)(run)
