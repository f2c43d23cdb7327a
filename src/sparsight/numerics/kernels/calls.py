"""Calling compiled code by its address, and memory that threads share: what a table of kernels needs."""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _call_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    words = cgutils.unpack_tuple(b, args[1])
    kind = ir.FunctionType(ir.VoidType(), [_I64] * len(words))
    b.call(b.inttoptr(args[0], kind.as_pointer()), words)
    return context.get_dummy_value()


@intrinsic
def call(typing_context: Any, address: Any, words: Any) -> Any:
    """Call a C function that takes int64 values and returns nothing."""
    return types.void(types.int64, words), _call_codegen


def _peek_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    return b.load_atomic(b.inttoptr(args[0], _I64.as_pointer()), "acquire", 8)


@intrinsic
def peek(typing_context: Any, address: Any) -> Any:
    """The int64 at an address, which another thread may be changing."""
    return types.int64(types.int64), _peek_codegen


def _yield_codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    if os.name == "posix":
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32, []), "sched_yield"), [])
    return context.get_dummy_value()


@intrinsic
def give_way(typing_context: Any) -> Any:
    """Let another thread have the processor."""
    return types.void(), _yield_codegen


def _get(kind: Any) -> Any:
    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        at = b.gep(b.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return b.load(at)

    return codegen


def _set(kind: Any) -> Any:
    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        b.store(args[2], b.gep(b.inttoptr(args[0], kind.as_pointer()), [args[1]]))
        return context.get_dummy_value()

    return codegen


@intrinsic
def word(typing_context: Any, address: Any, i: Any) -> Any:
    """The i-th int64 from an address."""
    return types.int64(types.int64, types.int64), _get(_I64)


@intrinsic
def put(typing_context: Any, address: Any, i: Any, value: Any) -> Any:
    """Write the i-th int64 from an address."""
    return types.void(types.int64, types.int64, types.int64), _set(_I64)


@intrinsic
def real(typing_context: Any, address: Any, i: Any) -> Any:
    """The i-th float32 from an address."""
    return types.float32(types.int64, types.int64), _get(ir.FloatType())


@intrinsic
def put_real(typing_context: Any, address: Any, i: Any, value: Any) -> Any:
    """Write the i-th float32 from an address."""
    return types.void(types.int64, types.int64, types.float32), _set(ir.FloatType())


@intrinsic
def as_real(typing_context: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def small(typing_context: Any, address: Any, i: Any) -> Any:
    """The i-th int32 from an address, as an int64."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.sext(_get(_I32)(context, b, signature, args), _I64)

    return types.int64(types.int64, types.int64), codegen
