"""Largest and sum of the products of one row with each of four others, in 16 lanes, read once: code for LLVM.

A maximum does not vectorise by itself, since NaN makes its order matter; here every lane keeps its own. Lanes are
joined in a fixed order, so the bits do not depend on the width of the machine's vectors.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.power_sums_llvm import LANES, larger, reduced

_ROWS = 4  # one load of the row serves so many others
_I64 = ir.IntType(64)


def _codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    double = signature.args[0].dtype == types.float64
    real, width = (ir.DoubleType(), 8) if double else (ir.FloatType(), 4)
    lanes = ir.VectorType(real, LANES)
    zero = ir.Constant(lanes, [0.0] * LANES)
    a, r = (context.make_array(t)(context, b, v).data for t, v in zip(signature.args[:2], args[:2], strict=True))
    first, *others, n = args[2:]
    row, rows = b.gep(a, [first]), [b.gep(r, [other]) for other in others]
    top = [cgutils.alloca_once_value(b, zero) for _ in rows]
    total = [cgutils.alloca_once_value(b, zero) for _ in rows]

    def read(pointer: Any, at: Any) -> Any:
        vector = b.load(b.bitcast(b.gep(pointer, [at]), lanes.as_pointer()))
        vector.parent.instructions[-1].align = width
        return vector

    four = ir.Constant(_I64, 4)
    with cgutils.for_range(b, b.lshr(n, four)) as loop:
        at = b.shl(loop.index, four)
        x = read(row, at)
        for other, largest, added in zip(rows, top, total, strict=True):
            product = b.fmul(x, read(other, at))
            b.store(larger(b)(product, b.load(largest)), largest)
            b.store(b.fadd(b.load(added), product), added)
    out = [reduced(b, b.load(v), larger(b)) for v in top] + [reduced(b, b.load(v), b.fadd) for v in total]
    return context.make_tuple(b, signature.return_type, out)


@intrinsic
def four_rows(typing_context: Any, a: Any, r: Any, first: Any, r0: Any, r1: Any, r2: Any, r3: Any, n: Any) -> Any:
    """Largest (four values) and sum (four) of a[first + i] * r[rj + i] over i < n, n cut to a multiple of 16.

    Products are nonnegative: a largest of nothing is 0.
    """
    out = types.UniTuple(a.dtype, 2 * _ROWS)
    return out(a, r, *[types.intp] * 6), _codegen
