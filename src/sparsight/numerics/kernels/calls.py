"""Calling compiled code by its address, and memory that threads share: what a table of kernels needs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INT, _REAL = types.int64, types.float32


def operation(kinds: Sequence[Any], do: Callable[..., Any], result: Any = types.void) -> Any:
    """An intrinsic that takes numbers of these kinds, with the LLVM code that `do(builder, *values)` writes."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        found = do(b, *args)
        return context.get_dummy_value() if result is types.void else found

    def typed(typing_context: Any, *given: Any) -> Any:
        return result(*kinds), codegen

    names = ["typing_context", *(f"x{i}" for i in range(len(kinds)))]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(typed)


def _call_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    words = cgutils.unpack_tuple(b, args[1])
    kind = ir.FunctionType(ir.VoidType(), [_I64] * len(words))
    b.call(b.inttoptr(args[0], kind.as_pointer()), words)
    return context.get_dummy_value()


@intrinsic
def call(typing_context: Any, address: Any, words: Any) -> Any:
    """Call a C function that takes int64 values and returns nothing."""
    return types.void(types.int64, words), _call_codegen


def _yield(b: Any) -> None:
    if os.name == "posix":
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32, []), "sched_yield"), [])


def _at(b: Any, address: Any, i: Any, kind: Any) -> Any:
    return b.gep(b.inttoptr(address, kind.as_pointer()), [i])


def _peek(b: Any, address: Any) -> Any:
    return b.load_atomic(b.inttoptr(address, _I64.as_pointer()), "acquire", 8)


peek: Any = operation([_INT], _peek, _INT)
"""The int64 at an address, which another thread may be changing."""
give_way: Any = operation([], _yield)
"""Let another thread have the processor."""
word: Any = operation([_INT, _INT], lambda b, address, i: b.load(_at(b, address, i, _I64)), _INT)
"""The i-th int64 from an address."""
put: Any = operation([_INT] * 3, lambda b, address, i, value: b.store(value, _at(b, address, i, _I64)))
"""Write the i-th int64 from an address."""
real: Any = operation([_INT, _INT], lambda b, address, i: b.load(_at(b, address, i, _F32)), _REAL)
"""The i-th float32 from an address."""
put_real: Any = operation([_INT, _INT, _REAL], lambda b, address, i, value: b.store(value, _at(b, address, i, _F32)))
"""Write the i-th float32 from an address."""
as_real: Any = operation([types.uint32], lambda b, bits: b.bitcast(bits, _F32), _REAL)
"""The float32 of 32 bits."""
small: Any = operation([_INT, _INT], lambda b, address, i: b.sext(b.load(_at(b, address, i, _I32)), _I64), _INT)
"""The i-th int32 from an address, as an int64."""
