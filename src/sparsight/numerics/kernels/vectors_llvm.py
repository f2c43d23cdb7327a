"""Operations on single vectors of 16 floats at an address, and on 16 of them: code for LLVM."""

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


# -- lanes of neighbours -----------------------------------------------------------------------------------------


def _from_lane(lane: int, columns: int, step: tuple[int, int]) -> int:
    """The lane that holds the block `step` away in a grid of so many columns, or LANES if that is no block."""
    row, col = lane // columns + step[0], lane % columns + step[1]
    return row * columns + col if 0 <= row < LANES // columns and 0 <= col < columns else LANES


def _neighbour(b: Any, out: Any, x: Any, columns: int, down: int, right: int) -> None:
    moved = ZERO
    if columns:
        lanes = [_from_lane(lane, columns, (down, right)) for lane in range(LANES)]
        moved = b.shuffle_vector(load(b, x), ZERO, ir.Constant(llvm.VI, lanes))
    store(b, moved, out)


neighbour: Any = operation([_INT, _INT, int, int, int], _neighbour)
"""In each lane what x has in the lane of the block `down` and `right` of its own, or 0 beyond the grid.

Takes out, x, `columns` of the grid (0 if lanes are images: then always 0), `down` and `right`.
"""

# -- pooling, sums -----------------------------------------------------------------------------------------------


def _window(b: Any, taps: tuple[Any, ...], begin: Any, join: Callable[[Any, Any], Any]) -> Any:
    """One vector from those under a window: lines, columns, bytes from line to line and from column to column."""
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
    nan = cgutils.alloca_once_value(b, none)  # apart, lest the next tap waits for the comparison
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
"""out = the largest x under a window, lane by lane; a NaN wins: out, x, and the window as in `summed`."""
largest_at_border: Any = operation([_INT] * 7, _largest)
"""The same of x + border, the last value. A border of -inf leaves a lane out."""
summed: Any = operation([_INT] * 6, _summed)
"""out = the sum of x under a window, lane by lane: out, x, and the window's rows, columns, bytes down and right."""
kept: Any = operation([_INT, _INT], _kept)
"""0 in the lanes of out whose bit is 0."""
scaled: Any = operation([_INT, _INT], lambda b, out, x: store(b, b.fmul(load(b, out), load(b, x)), out))
"""out *= x."""

# -- 16 x 16 floats turned over in registers: from rows, as torch has them, to lanes and back ----------------------

STRIP = 2 + LANES + LANES // 2
"""int32 numbers of a strip: its place among vectors (bytes), how many of them (at most 16), for each lane where its row
is (bytes), and for each lane 16 bits: which of the row's numbers there are."""


def _transpose(b: Any, rows: list[Any]) -> list[Any]:
    """Of 16 vectors of 16, in four rounds of pairs."""
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
        """Pointer to a lane's row, and which of its numbers there are."""
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
        at = b.select(there, llvm.i64(BYTES * i), llvm.i64(0))  # what is not there is masked below
        columns.append(load(b, b.add(place, at)))
    for lane, row in enumerate(_transpose(b, columns)):
        pointer, bits = strip.row(lane, out)
        b.call(masked, [row, pointer, ir.Constant(llvm.I32, 4), bits])


transposed: Any = operation([_INT] * 4, _transposed)
"""16 x 16 floats from x, transposed to out: out, bytes from row to row, x, bytes from row to row."""
strip_in: Any = operation([_INT] * 3, _inward)
"""Write the vectors of a strip to out, from its rows in x: numbers that are not there are 0."""
strip_out: Any = operation([_INT] * 3, _outward)
"""Write the rows of a strip to out, from its vectors in x, only the numbers that are there."""
