"""Operations on single vectors of 16 floats at an address: code for LLVM. `planes` and `panels` loop over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.calls import operation
from sparsight.numerics.kernels.tile_llvm import LANES

_I1, _I32, _I64, _F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
_V, _VI, _VB = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, _I1))
_ZERO = ir.Constant(_V, [0.0] * LANES)


def _splat(value: float) -> Any:
    return ir.Constant(_V, [value] * LANES)


def _load(b: Any, address: Any) -> Any:
    return b.load(b.inttoptr(address, _V.as_pointer()), align=64)


def _store(b: Any, value: Any, address: Any) -> None:
    b.store(value, b.inttoptr(address, _V.as_pointer()), align=64)


# -- lanes of neighbours -----------------------------------------------------------------------------------------


def _from_lane(lane: int, columns: int, step: tuple[int, int]) -> int:
    """The lane that holds the block `step` away in a grid of so many columns, or LANES if that is no block."""
    row, col = lane // columns + step[0], lane % columns + step[1]
    return row * columns + col if 0 <= row < LANES // columns and 0 <= col < columns else LANES


def _neighbour_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    columns, down, right = (a.literal_value for a in signature.args[2:])
    if not columns:
        _store(b, _ZERO, args[0])
        return context.get_dummy_value()
    lanes = [_from_lane(lane, columns, (down, right)) for lane in range(LANES)]
    _store(b, b.shuffle_vector(_load(b, args[1]), _ZERO, ir.Constant(_VI, lanes)), args[0])
    return context.get_dummy_value()


@intrinsic
def neighbour(typing_context: Any, out: Any, x: Any, columns: Any, down: Any, right: Any) -> Any:
    """In each lane what x has in the lane of the block `down` and `right` of its own, or 0 beyond the grid.

    `columns` of the grid, 0 if lanes are images: then always 0.
    """
    if not all(isinstance(a, types.IntegerLiteral) for a in (columns, down, right)):
        return None
    return types.void(types.int64, types.int64, columns, down, right), _neighbour_codegen


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


def _largest_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    out, x, *taps, border = args
    none = ir.Constant(_VB, [0] * LANES)
    nan = cgutils.alloca_once_value(b, none)  # apart, lest the next tap waits for the comparison
    b.store(none, nan)
    edge = signature.args[-1] != types.none

    def join(top: Any, at: Any) -> Any:
        value = _load(b, b.add(x, at))
        if edge:
            value = b.fadd(value, _load(b, b.add(border, at)))
        b.store(b.or_(b.load(nan), b.fcmp_unordered("uno", value, value)), nan)
        return b.select(b.fcmp_ordered(">", top, value), top, value)

    top = _window(b, tuple(taps), _splat(float("-inf")), join)
    _store(b, b.select(b.load(nan), _splat(float("nan")), top), out)
    return context.get_dummy_value()


@intrinsic
def largest(typing_context: Any, out: Any, x: Any, rows: Any, cols: Any, down: Any, right: Any, border: Any) -> Any:
    """out = the largest x + border under a window, lane by lane; a NaN wins.

    A border of -inf leaves a lane out; None: there is no border here.
    """
    return types.void(*[types.int64] * 6, border), _largest_codegen


def _summed(b: Any, out: Any, x: Any, *taps: Any) -> None:
    _store(b, _window(b, taps, _ZERO, lambda total, at: b.fadd(total, _load(b, b.add(x, at)))), out)


def _kept(b: Any, out: Any, bits: Any) -> None:
    there = b.load(b.inttoptr(bits, ir.IntType(LANES).as_pointer()), align=2)
    _store(b, b.select(b.bitcast(there, _VB), _load(b, out), _ZERO), out)


_INT = types.int64
summed: Any = operation([_INT] * 6, _summed)
"""out = the sum of x under a window, lane by lane: out, x, and the window's rows, columns, bytes down and right."""
kept: Any = operation([_INT, _INT], _kept)
"""0 in the lanes of out whose bit is 0."""
scaled: Any = operation([_INT, _INT], lambda b, out, x: _store(b, b.fmul(_load(b, out), _load(b, x)), out))
"""out *= x."""
