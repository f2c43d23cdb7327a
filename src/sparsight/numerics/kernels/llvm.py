"""LLVM's types for vectors of 16 floats, and helpers of hand-written code to load and store them."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16
BYTES = 4 * LANES  # per vector

I1, I16, I32, I64, F32 = (*(ir.IntType(bits) for bits in (1, 16, 32, 64)), ir.FloatType())
V, VI, VB = (ir.VectorType(kind, LANES) for kind in (F32, I32, I1))
ZERO = ir.Constant(V, [0.0] * LANES)


def i64(number: int) -> Any:
    return ir.Constant(I64, number)


def load(b: Any, address: Any, kind: Any = V, align: int = BYTES) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def store(b: Any, value: Any, address: Any, align: int = BYTES) -> None:
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)


def function(b: Any, name: str, result: Any, *kinds: Any) -> Any:
    """Declare a function that LLVM or the process has under this name."""
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, kinds), name)


def fma(b: Any, x: Any, y: Any, total: Any) -> Any:
    """x y + total, rounded once if the processor can."""
    return b.call(function(b, f"llvm.fmuladd.v{LANES}f32", V, V, V, V), [x, y, total])
