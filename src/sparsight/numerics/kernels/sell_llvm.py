"""Rows of a sparse matrix times a vector, 16 rows at once (windowed SELL-16): code for AVX-512.

A slot holds at most one non-zero of each of 16 rows, all within 32 columns from its base: 16 bytes say which column
each row takes, and one permutation of two vectors of x picks them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.tile_llvm import LANES

WINDOW = 2 * LANES
_I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_V, _VI = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_AT_ONCE = 4  # sums that go on side by side
_ZERO = ir.Constant(_V, [0.0] * LANES)


def _load(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _times(b: Any, number: int) -> Any:
    return ir.Constant(_I64, number)


def _codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    x, bases, places, values, begin, end, out = args[:7]
    half = signature.args[7].literal_value
    permute = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(_V, [_V, _VI, _V]), "llvm.x86.avx512.vpermi2var.ps.512"
    )
    fma = cgutils.get_or_insert_function(b.module, ir.FunctionType(_V, [_V] * 3), f"llvm.fmuladd.v{LANES}f32")

    def slot(at: Any, total: Any) -> Any:
        base = b.sext(_load(b, b.add(bases, b.mul(at, _times(b, 4))), _I32, 4), _I64)
        picked = b.add(x, b.mul(base, _times(b, 4)))
        low, high = (_load(b, b.add(picked, _times(b, k)), _V, 4) for k in (0, 4 * LANES))
        place = _load(b, b.add(places, b.mul(at, _times(b, LANES))), ir.VectorType(_I8, LANES), 1)
        if half:
            kind = ir.VectorType(_I16, LANES)
            raw = _load(b, b.add(values, b.mul(at, _times(b, 2 * LANES))), kind, 2)
            weight = b.bitcast(b.shl(b.zext(raw, _VI), ir.Constant(_VI, [16] * LANES)), _V)
        else:
            weight = _load(b, b.add(values, b.mul(at, _times(b, 4 * LANES))), _V, 4)
        return b.call(fma, [b.call(permute, [low, b.zext(place, _VI), high]), weight, total])

    sums = [cgutils.alloca_once_value(b, _ZERO) for _ in range(_AT_ONCE)]
    for total in sums:
        b.store(_ZERO, total)
    count = b.sub(end, begin)
    many = b.sdiv(count, _times(b, _AT_ONCE))
    with cgutils.for_range(b, many) as loop:
        at = b.add(begin, b.mul(loop.index, _times(b, _AT_ONCE)))
        for i, total in enumerate(sums):
            b.store(slot(b.add(at, _times(b, i)), b.load(total)), total)
    done = b.mul(many, _times(b, _AT_ONCE))
    with cgutils.for_range(b, b.sub(count, done)) as loop:
        at = b.add(begin, b.add(done, loop.index))
        b.store(slot(at, b.load(sums[0])), sums[0])
    pairs = [b.fadd(b.load(sums[i]), b.load(sums[i + 2])) for i in (0, 1)]
    b.store(b.fadd(*pairs), b.inttoptr(out, _V.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def sixteen_rows(
    typing_context: Any, x: Any, bases: Any, places: Any, values: Any, begin: Any, end: Any, out: Any, half: Any
) -> Any:
    """Write the products of 16 rows, slots `begin` to `end`. `half` 1: values are bfloat16.

    x is read WINDOW numbers from each base on.
    """
    if not isinstance(half, types.IntegerLiteral):
        return None
    return types.void(*[types.int64] * 7, half), _codegen
