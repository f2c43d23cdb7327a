"""Calls and memory access by raw address, for tables of kernels."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sparsight.numerics.kernels.llvm import F32, I32, I64, function, i64

_INT, _REAL = types.int64, types.float32


def operation(kinds: Sequence[Any], do: Callable[..., Any], result: Any = types.void) -> Any:
    """An intrinsic that emits LLVM code by `do(builder, *values)`.

    It takes values of the numba types `kinds`. The kind `int` is a compile-time constant, which `do` gets as a number.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        known = [getattr(kind, "literal_value", value) for kind, value in zip(signature.args, args, strict=True)]
        found = do(b, *known)
        return context.get_dummy_value() if result is types.void else found

    def typed(typing_context: Any, *given: Any) -> Any:
        if any(kind is int and not isinstance(x, types.IntegerLiteral) for kind, x in zip(kinds, given, strict=True)):
            return None
        return result(*(x if kind is int else kind for kind, x in zip(kinds, given, strict=True))), codegen

    names = ["typing_context", *(f"x{i}" for i in range(len(kinds)))]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(typed)


def _call_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    words = cgutils.unpack_tuple(b, args[1])
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(words))
    b.call(b.inttoptr(args[0], kind.as_pointer()), words)
    return context.get_dummy_value()


def _call(typing_context: Any, address: Any, words: Any) -> Any:
    return types.void(types.int64, words), _call_codegen


def _yield(b: Any) -> None:
    if os.name == "posix":
        b.call(function(b, "sched_yield", I32), [])


def _at(b: Any, address: Any, i: Any, kind: Any) -> Any:
    return b.gep(b.inttoptr(address, kind.as_pointer()), [i])


def _peek(b: Any, address: Any) -> Any:
    return b.load_atomic(b.inttoptr(address, I64.as_pointer()), "acquire", 8)


def _take(b: Any, address: Any) -> Any:
    return b.atomic_rmw("add", b.inttoptr(address, I64.as_pointer()), i64(1), "seq_cst")


call: Any = intrinsic(_call)
"""Call the C function at an address with a tuple of int64 values; it returns nothing."""
at: Any = operation([_INT], lambda b, address: b.inttoptr(address, ir.IntType(8).as_pointer()), types.voidptr)
"""An address as a pointer, for `numba.carray`."""
peek: Any = operation([_INT], _peek, _INT)
"""The int64 at an address, which another thread may be changing."""
take: Any = operation([_INT], _take, _INT)
"""Atomically increment the int64 at an address; returns the old value, so no two threads get the same."""
give_way: Any = operation([], _yield)
"""Yield the processor to another thread."""
word: Any = operation([_INT, _INT], lambda b, address, i: b.load(_at(b, address, i, I64)), _INT)
"""The i-th int64 from an address."""
put: Any = operation([_INT] * 3, lambda b, address, i, value: b.store(value, _at(b, address, i, I64)))
"""Write the i-th int64 from an address."""
real: Any = operation([_INT, _INT], lambda b, address, i: b.load(_at(b, address, i, F32)), _REAL)
"""The i-th float32 from an address."""
put_real: Any = operation([_INT, _INT, _REAL], lambda b, address, i, value: b.store(value, _at(b, address, i, F32)))
"""Write the i-th float32 from an address."""
as_real: Any = operation([types.uint32], lambda b, bits: b.bitcast(bits, F32), _REAL)
"""32 bits as a float32."""
small: Any = operation([_INT, _INT], lambda b, address, i: b.sext(b.load(_at(b, address, i, I32)), I64), _INT)
"""The i-th int32 from an address, as an int64."""
