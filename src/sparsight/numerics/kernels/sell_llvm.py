"""Rows of a sparse matrix times a vector, 16 rows at once (windowed SELL-16): code for AVX-512.

A slot holds at most one non-zero of each of 16 rows, all within 32 columns from its base: five bits say which column
each row takes, and one permutation of two vectors of x picks them. Six slots are a block.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.tile_llvm import BYTES, LANES

WINDOW = 2 * LANES
STEP = 8  # columns that bases lie apart at least: unaligned vectors of x lie in two lines of the cache less often
BLOCK = 6  # slots, whose places of five bits fill words of 32
_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_V, _VI, _VH = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES), ir.VectorType(_I16, LANES)
_SUMS = 3  # that go on side by side


def _load(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _i64(number: int) -> Any:
    return ir.Constant(_I64, number)


def _all(number: int) -> Any:
    return ir.Constant(_VI, [number] * LANES)


def _codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    x, advances, blocks, begin, end, out = args[:6]
    half = signature.args[6].literal_value
    permute = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(_V, [_V, _VI, _V]), "llvm.x86.avx512.vpermi2var.ps.512"
    )
    fma = cgutils.get_or_insert_function(b.module, ir.FunctionType(_V, [_V] * 3), f"llvm.fmuladd.v{LANES}f32")
    size = BYTES // 2 if half else BYTES
    sums = [cgutils.alloca_once_value(b, ir.Constant(_V, [0.0] * LANES)) for _ in range(_SUMS)]
    for total in sums:
        b.store(ir.Constant(_V, [0.0] * LANES), total)
    base = cgutils.alloca_once_value(b, x)
    b.store(x, base)

    with cgutils.for_range(b, b.sub(end, begin)) as loop:
        number = b.add(begin, loop.index)
        advance = _load(b, b.add(advances, b.mul(number, _i64(8))), _I64, 8)
        block = b.add(blocks, b.mul(number, _i64(BYTES + BLOCK * size)))
        places = _load(b, block, _VI, BYTES)
        at = b.load(base)
        for i in range(BLOCK):
            step = b.and_(b.lshr(advance, _i64(8 * i)), _i64(255))
            at = b.add(at, b.mul(step, _i64(4 * STEP)))
            low, high = (_load(b, b.add(at, _i64(k)), _V, 4) for k in (0, BYTES))
            raw = b.add(block, _i64(BYTES + i * size))
            if half:
                weight = b.bitcast(b.shl(b.zext(_load(b, raw, _VH, size), _VI), _all(16)), _V)
            else:
                weight = _load(b, raw, _V, size)
            picked = b.call(permute, [low, b.lshr(places, _all(5 * i)), high])  # which reads five bits of each
            total = sums[i % _SUMS]
            b.store(b.call(fma, [picked, weight, b.load(total)]), total)
        b.store(at, base)
    first, *others = (b.load(total) for total in sums)
    for other in others:
        first = b.fadd(first, other)
    b.store(first, b.inttoptr(out, _V.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def sixteen_rows(
    typing_context: Any, x: Any, advances: Any, blocks: Any, begin: Any, end: Any, out: Any, half: Any
) -> Any:
    """Write the products of 16 rows, blocks `begin` to `end`. `half` 1: values are bfloat16.

    x is read WINDOW numbers from each base on. A byte of a block's advance is how many STEPs a slot's base lies after
    the one before.
    """
    if not isinstance(half, types.IntegerLiteral):
        return None
    return types.void(*[types.int64] * 6, half), _codegen
