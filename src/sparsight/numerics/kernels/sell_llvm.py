"""Groups of rows of a sparse matrix times a vector (windowed SELL-16): code for AVX-512.

A slot holds at most one non-zero for each of 16 lanes, all within 32 columns from its base: five bits say which column
a lane takes, by one permutation of two vectors of x. In fp32 a lane has two rows, and a sixth bit says whose number it
is: fewer slots have empty places, and memory is what takes the time. With weights in bfloat16 it has one.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.tile_llvm import BYTES, LANES

WINDOW = 2 * LANES
STEP = 8  # columns that bases lie apart at least: unaligned vectors of x lie in two lines of the cache less often


class Slots(NamedTuple):
    """How the slots of a group of rows are written: lane l has the rows l, LANES + l, ..."""

    rows: int  # of a lane
    bits: int  # of a place
    block: int  # slots, whose places fit words of 32 bits


EXACT, HALF = Slots(2, 6, 5), Slots(1, 5, 6)
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
    rows, bits, count = HALF if half else EXACT
    permute = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(_V, [_V, _VI, _V]), "llvm.x86.avx512.vpermi2var.ps.512"
    )
    fma = cgutils.get_or_insert_function(b.module, ir.FunctionType(_V, [_V] * 3), f"llvm.fmuladd.v{LANES}f32")
    size = BYTES // 2 if half else BYTES
    zeros = ir.Constant(_V, [0.0] * LANES)
    sums = [[cgutils.alloca_once_value(b, zeros) for _ in range(_SUMS)] for _ in range(rows)]
    for total in chain(*sums):
        b.store(zeros, total)
    base = cgutils.alloca_once_value(b, x)
    b.store(x, base)

    with cgutils.for_range(b, b.sub(end, begin)) as loop:
        number = b.add(begin, loop.index)
        advance = _load(b, b.add(advances, b.mul(number, _i64(8))), _I64, 8)
        block = b.add(blocks, b.mul(number, _i64(BYTES + count * size)))
        places = _load(b, block, _VI, size)
        at = b.load(base)
        for i in range(count):
            step = b.and_(b.lshr(advance, _i64(8 * i)), _i64(255))
            at = b.add(at, b.mul(step, _i64(4 * STEP)))
            low, high = (_load(b, b.add(at, _i64(k)), _V, 4) for k in (0, BYTES))
            raw = b.add(block, _i64(BYTES + i * size))
            if half:
                weight = b.bitcast(b.shl(b.zext(_load(b, raw, _VH, size), _VI), _all(16)), _V)
            else:
                weight = _load(b, raw, _V, size)
            picked = b.call(permute, [low, b.lshr(places, _all(bits * i)), high])  # which reads five bits of each
            old = [b.load(totals[i % _SUMS]) for totals in sums]
            new = [b.call(fma, [picked, weight, total]) for total in old]
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
        b.store(first, b.inttoptr(b.add(out, _i64(row * BYTES)), _V.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def group_of_rows(
    typing_context: Any, x: Any, advances: Any, blocks: Any, begin: Any, end: Any, out: Any, half: Any
) -> Any:
    """Write the products of a group of rows, blocks `begin` to `end`. `half` 1: values are bfloat16.

    x is read WINDOW numbers from each base on. A byte of a block's advance is how many STEPs a slot's base lies after
    the one before.
    """
    if not isinstance(half, types.IntegerLiteral):
        return None
    return types.void(*[types.int64] * 6, half), _codegen
