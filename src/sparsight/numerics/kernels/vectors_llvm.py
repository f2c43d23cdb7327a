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


def _pointer(b: Any, address: Any, offset: int = 0) -> Any:
    return b.inttoptr(b.add(address, ir.Constant(_I64, offset)) if offset else address, _V.as_pointer())


def _load(b: Any, address: Any, offset: int = 0, align: int = 64) -> Any:
    return b.load(_pointer(b, address, offset), align=align)


def _store(b: Any, value: Any, address: Any, offset: int = 0, align: int = 64) -> None:
    b.store(value, _pointer(b, address, offset), align=align)


def _call(b: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(_V, [_V] * len(args))
    return b.call(cgutils.get_or_insert_function(b.module, kind, f"llvm.{name}.v{LANES}f32"), args)


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


# -- activations -------------------------------------------------------------------------------------------------


def _polynomial(b: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    total = _splat(coefficients[0])
    for c in coefficients[1:]:
        total = _call(b, "fmuladd", total, x, _splat(c))
    return total


def _exp(b: Any, x: Any) -> Any:
    """e^x to 2 units in the last place: 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2]; NaN stays."""
    low, high = _splat(-87.0), _splat(88.0)
    x = b.select(b.fcmp_ordered("<", x, low), low, x)
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    k = _call(b, "rint", b.fmul(x, _splat(1.4426950408889634)))
    r = _call(b, "fmuladd", k, _splat(-0.693145751953125), x)
    r = _call(b, "fmuladd", k, _splat(-1.42860682030941723e-06), r)
    p = _polynomial(b, r, (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0))
    number = b.fcmp_ordered("ord", k, k)  # a NaN has no integer
    power = b.fptosi(b.select(number, k, _ZERO), _VI)
    power = b.shl(b.add(power, ir.Constant(_VI, [127] * LANES)), ir.Constant(_VI, [23] * LANES))
    return b.fmul(p, b.bitcast(power, _V))


def _sigmoid(b: Any, x: Any) -> Any:
    return b.fdiv(_splat(1.0), b.fadd(_splat(1.0), _exp(b, b.fneg(x))))


def _erf(b: Any, x: Any) -> Any:
    """Abramowitz and Stegun 7.1.26, 1.5e-7 at the worst."""
    size = _call(b, "fabs", x)
    t = b.fdiv(_splat(1.0), _call(b, "fmuladd", size, _splat(0.3275911), _splat(1.0)))
    p = _polynomial(b, t, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0))
    value = b.fsub(_splat(1.0), b.fmul(p, _exp(b, b.fneg(b.fmul(size, size)))))
    return _call(b, "copysign", value, x)


def _silu(b: Any, x: Any) -> Any:
    return b.fmul(x, _sigmoid(b, x))


def _gelu(b: Any, x: Any) -> Any:
    half = b.fmul(x, _splat(0.5))
    return _call(b, "fmuladd", half, _erf(b, b.fmul(x, _splat(0.5**0.5))), half)


def _gelu_tanh(b: Any, x: Any) -> Any:
    inner = b.fmul(x, _call(b, "fmuladd", b.fmul(x, x), _splat(0.044715), _splat(1.0)))
    return b.fmul(x, _sigmoid(b, b.fmul(inner, _splat(2 * 0.7978845608028654))))


def _elementwise(function: Callable[[Any, Any], Any]) -> Any:
    return operation([types.int64], lambda b, x: _store(b, function(b, _load(b, x)), x))


silu: Any = _elementwise(_silu)
gelu: Any = _elementwise(_gelu)
gelu_tanh: Any = _elementwise(_gelu_tanh)


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


def _every(b: Any, value: Any) -> Any:
    one = b.insert_element(_ZERO, value, ir.Constant(_I32, 0))
    return b.shuffle_vector(one, one, ir.Constant(_VI, [0] * LANES))


def _clamped(b: Any, x: Any, low: Any, high: Any) -> None:
    value = _load(b, x)
    for limit, sign in ((_every(b, low), "<"), (_every(b, high), ">")):
        value = b.select(b.fcmp_ordered(sign, value, limit), limit, value)
    _store(b, value, x)


_INT, _REAL = types.int64, types.float32
summed: Any = operation([_INT] * 6, _summed)
"""out = the sum of x under a window, lane by lane: out, x, and the window's rows, columns, bytes down and right."""
kept: Any = operation([_INT, _INT], _kept)
"""0 in the lanes of out whose bit is 0."""
added: Any = operation([_INT, _INT], lambda b, out, x: _store(b, b.fadd(_load(b, out), _load(b, x)), out))
"""out += x."""
scaled: Any = operation([_INT, _INT], lambda b, out, x: _store(b, b.fmul(_load(b, out), _load(b, x)), out))
"""out *= x."""
fill: Any = operation([_INT, _REAL], lambda b, out, value: _store(b, _every(b, value), out))
"""out = value in every lane."""
clamped: Any = operation([_INT, _REAL, _REAL], _clamped)
"""x between low and high in every lane; NaN stays."""
