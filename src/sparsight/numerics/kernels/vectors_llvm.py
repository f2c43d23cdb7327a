"""LLVM code for operations on vectors of 16 floats in memory, one or 16 at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from sparsight.numerics.kernels import llvm
from sparsight.numerics.kernels.calls import operation
from sparsight.numerics.kernels.llvm import BYTES, LANES, ZERO, load, store

_INT = types.int64


def _splat(value: float) -> Any:
    return ir.Constant(llvm.V, [value] * LANES)


# -- neighbouring blocks -----------------------------------------------------------------------------------------


def _from_lane(lane: int, columns: int, step: tuple[int, int]) -> int:
    """The lane of the block `step` away in a grid of this many columns, or LANES beyond the grid."""
    row, col = lane // columns + step[0], lane % columns + step[1]
    return row * columns + col if 0 <= row < LANES // columns and 0 <= col < columns else LANES


def _neighbour(b: Any, out: Any, x: Any, columns: int, down: int, right: int) -> None:
    moved = ZERO
    if columns:
        lanes = [_from_lane(lane, columns, (down, right)) for lane in range(LANES)]
        moved = b.shuffle_vector(load(b, x), ZERO, ir.Constant(llvm.VI, lanes))
    store(b, moved, out)


neighbour: Any = operation([_INT, _INT, int, int, int], _neighbour)
"""For each lane's block, copy from x the value of the block `down` and `right` of it, or 0 beyond the grid.

Takes out, x, `columns` of the grid (0 if lanes are images: the result is 0), `down` and `right`.
"""

# -- pooling, sums -----------------------------------------------------------------------------------------------


def _window(b: Any, taps: tuple[Any, ...], begin: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Join the vectors under a window (rows, columns, bytes from row to row and from column to column) into one."""
    rows, cols, down, right = taps
    total = cgutils.alloca_once_value(b, begin)
    b.store(begin, total)
    with cgutils.for_range(b, rows) as line:
        at_line = b.mul(line.index, down)
        with cgutils.for_range(b, cols) as column:
            at = b.add(at_line, b.mul(column.index, right))
            b.store(join(b.load(total), at), total)
    return b.load(total)


def _largest(b: Any, out: Any, x: Any, rows: Any, cols: Any, down: Any, right: Any, border: Any = None) -> None:
    none = ir.Constant(llvm.VB, [0] * LANES)
    nan = cgutils.alloca_once_value(b, none)  # separate, or the next tap would wait for the comparison
    b.store(none, nan)

    def join(top: Any, at: Any) -> Any:
        value = load(b, b.add(x, at))
        if border is not None:
            value = b.fadd(value, load(b, b.add(border, at)))
        b.store(b.or_(b.load(nan), b.fcmp_unordered("uno", value, value)), nan)
        return b.select(b.fcmp_ordered(">", top, value), top, value)

    top = _window(b, (rows, cols, down, right), _splat(float("-inf")), join)
    store(b, b.select(b.load(nan), _splat(float("nan")), top), out)


def _summed(b: Any, out: Any, x: Any, *taps: Any) -> None:
    store(b, _window(b, taps, ZERO, lambda total, at: b.fadd(total, load(b, b.add(x, at)))), out)


def _kept(b: Any, out: Any, bits: Any) -> None:
    there = load(b, bits, ir.IntType(LANES), 2)
    store(b, b.select(b.bitcast(there, llvm.VB), load(b, out), ZERO), out)


largest: Any = operation([_INT] * 6, _largest)
"""out = the largest x under a window, lane by lane; NaN wins. Takes out, x, and the window as in `summed`."""
largest_at_border: Any = operation([_INT] * 7, _largest)
"""`largest` of x + border, the last argument. A border of -inf excludes a lane."""
summed: Any = operation([_INT] * 6, _summed)
"""out = the sum of x under a window, lane by lane. Takes out, x, the window's rows, columns, bytes down and right."""
kept: Any = operation([_INT, _INT], _kept)
"""Clear the lanes of out where the bit is 0."""
scaled: Any = operation([_INT, _INT], lambda b, out, x: store(b, b.fmul(load(b, out), load(b, x)), out))
"""out *= x."""

# -- 16 x 16 floats transposed in registers: from torch's rows to lanes and back -----------------------------------

STRIP = 2 + LANES + LANES // 2
"""Number of int32 in a strip: offset of its vectors (bytes), their number (at most 16), for each lane the offset of its
row (bytes), and for each lane 16 bits that mark which of the row's numbers exist."""


def _transpose(b: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 vectors of 16 lanes, in four rounds of pairs."""
    step = 1
    while step < LANES:
        low = [k if not k & step else LANES + k - step for k in range(LANES)]
        high = [k + step if not k & step else LANES + k for k in range(LANES)]
        new = list(rows)
        for i in range(LANES):
            if not i & step:
                for to, lanes in ((i, low), (i + step, high)):
                    new[to] = b.shuffle_vector(rows[i], rows[i + step], ir.Constant(llvm.VI, lanes))
        rows, step = new, 2 * step
    return rows


def _transposed(b: Any, out: Any, out_row: Any, x: Any, x_row: Any) -> None:
    rows = [load(b, b.add(x, b.mul(x_row, llvm.i64(i))), align=4) for i in range(LANES)]
    for i, row in enumerate(_transpose(b, rows)):
        store(b, row, b.add(out, b.mul(out_row, llvm.i64(i))), align=4)


class _Strip:
    """The numbers of a strip at an address."""

    def __init__(self, b: Any, address: Any):
        self.b = b
        self.words, self.bits = (b.inttoptr(address, kind.as_pointer()) for kind in (llvm.I32, llvm.I16))

    def word(self, i: int) -> Any:
        return self.b.sext(self.b.load(self.b.gep(self.words, [llvm.i64(i)])), llvm.I64)

    def row(self, lane: int, base: Any) -> tuple[Any, Any]:
        """Pointer to a lane's row, and the mask of its existing numbers."""
        bits = self.b.load(self.b.gep(self.bits, [llvm.i64(2 * (2 + LANES) + lane)]))
        pointer = self.b.inttoptr(self.b.add(base, self.word(2 + lane)), llvm.V.as_pointer())
        return pointer, self.b.bitcast(bits, llvm.VB)


def _inward(b: Any, out: Any, x: Any, address: Any) -> None:
    strip = _Strip(b, address)
    masked = llvm.function(b, "llvm.masked.load.v16f32.p0", llvm.V, llvm.V.as_pointer(), llvm.I32, llvm.VB, llvm.V)
    rows = [strip.row(lane, x) for lane in range(LANES)]
    columns = _transpose(b, [b.call(masked, [p, ir.Constant(llvm.I32, 4), bits, ZERO]) for p, bits in rows])
    count, place = strip.word(1), b.add(out, strip.word(0))
    for i, column in enumerate(columns):
        with b.if_then(b.icmp_signed(">", count, llvm.i64(i))):
            store(b, column, b.add(place, llvm.i64(BYTES * i)))


def _outward(b: Any, out: Any, x: Any, address: Any) -> None:
    strip = _Strip(b, address)
    masked = llvm.function(
        b, "llvm.masked.store.v16f32.p0", ir.VoidType(), llvm.V, llvm.V.as_pointer(), llvm.I32, llvm.VB
    )
    count, place = strip.word(1), b.add(x, strip.word(0))
    columns = []
    for i in range(LANES):
        there = b.icmp_signed(">", count, llvm.i64(i))
        at = b.select(there, llvm.i64(BYTES * i), llvm.i64(0))  # missing vectors are masked below
        columns.append(load(b, b.add(place, at)))
    for lane, row in enumerate(_transpose(b, columns)):
        pointer, bits = strip.row(lane, out)
        b.call(masked, [row, pointer, ir.Constant(llvm.I32, 4), bits])


transposed: Any = operation([_INT] * 4, _transposed)
"""Transpose 16 x 16 floats from x to out. Takes out, bytes from row to row, x, bytes from row to row."""
strip_in: Any = operation([_INT] * 3, _inward)
"""Write the vectors of a strip to out, from its rows in x; missing numbers are 0."""
strip_out: Any = operation([_INT] * 3, _outward)
"""Write the rows of a strip to out, from its vectors in x, without the missing numbers."""
