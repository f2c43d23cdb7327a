"""Which weights a sample holds, and which counter each of them has: code for LLVM.

In pieces that other loops can have between their own instructions: what is counted while the next weights are on
their way, and while the processor is busy with roots, costs next to nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _n(value: int) -> Any:
    return ir.Constant(_I64, value)


def prefetch(b: Any, pointer: Any) -> None:
    """Ask for memory that is needed soon; the processor ignores it where there is none."""
    t = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(b.module, t, "llvm.prefetch.p0i8")
    read, keep, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
    b.call(function, [b.bitcast(pointer, _I8.as_pointer()), read, keep, data])


def _draw(b: Any, i: Any) -> Any:
    z = b.mul(b.add(i, _n(1)), _n(_GOLDEN))
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        z = b.mul(b.xor(z, b.lshr(z, _n(shift))), _n(factor))
    return b.xor(z, b.lshr(z, _n(31)))


def _bin(b: Any, data: Any, dtype: types.Type, i: Any) -> Any:
    if dtype == types.float64:
        bits = b.load(b.gep(b.bitcast(data, _I64.as_pointer()), [i]))
        return b.and_(b.lshr(bits, _n(45)), _n(0x3FFFF))
    at = b.or_(b.shl(i, _n(1)), _n(1)) if dtype == types.float32 else i
    return b.and_(b.zext(b.load(b.gep(b.bitcast(data, _I16.as_pointer()), [at])), _I64), _n(0x7FFF))


@intrinsic
def draw(typing_context: Any, i: Any) -> Any:
    """64 random bits for a place: the i-th number of SplitMix64."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _draw(b, args[0])

    return types.uint64(types.int64), codegen


@intrinsic
def bin_of(typing_context: Any, x: Any, i: Any) -> Any:
    """The bin of weight i: its magnitude's high 15 bits, of float64 18."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, b, args[0]).data
        return _bin(b, data, signature.args[0].dtype, args[1])

    return types.uint64(x, types.int64), codegen


class Counting:
    """Counts the sample in passing. x[0] is weight `place` of the tensor, one of 2^log2 weights counts for all.

    `counted` is what has been counted, in pairs of blocks that begin with an even one: one for each table.
    """

    def __init__(self, b: Any, data: Any, dtype: types.Type, counted: Any, place: Any, log2: Any, tables: list[Any]):
        self.b, self.data, self.dtype, self.place, self.log2, self.tables = b, data, dtype, place, log2, tables
        self.counted = cgutils.alloca_once_value(b, counted)
        self.every = b.shl(_n(1), log2)
        self.nowhere = cgutils.alloca_once(b, _I32)
        b.store(ir.Constant(_I32, 0), self.nowhere)
        self.next = [cgutils.alloca_once_value(b, self.nowhere) for _ in tables]
        self.drawn = cgutils.alloca_once_value(b, _n(0))  # a byte for each block of an octet that is left
        self._draw_from(counted)

    def up_to(self, limit: Any) -> None:
        """Count what lies before x[limit]."""
        b = self.b
        ask, take, done = (b.append_basic_block(f"counting.{name}") for name in ("ask", "take", "done"))
        b.branch(ask)
        b.position_at_end(ask)
        start = b.load(self.counted)
        stop = b.add(start, b.shl(self.every, _n(1)))
        b.cbranch(b.icmp_signed("<=", stop, limit), take, done)
        b.position_at_end(take)
        self._pair(start)
        b.store(stop, self.counted)
        b.branch(ask)
        b.position_at_end(done)

    def _draw_from(self, start: Any) -> None:
        """Draw for the octet that x[start] is in; what is for the blocks before it is shifted away."""
        b = self.b
        block = b.lshr(b.add(self.place, start), self.log2)
        eight = _draw(b, b.lshr(block, _n(3)))
        b.store(b.lshr(eight, b.shl(b.and_(block, _n(7)), _n(3))), self.drawn)

    def _pair(self, start: Any) -> None:
        b = self.b
        both, within = b.load(self.drawn), b.sub(self.every, _n(1))
        blocks = ((start, both), (b.add(start, self.every), b.lshr(both, _n(8))))
        self.settle()
        for table, counter, (first, drawn) in zip(self.tables, self.next, blocks, strict=True):
            place = b.gep(table, [_bin(b, self.data, self.dtype, b.add(first, b.and_(drawn, within)))])
            prefetch(b, place)
            b.store(place, counter)
        b.store(b.lshr(both, _n(16)), self.drawn)
        stop = b.add(start, b.shl(self.every, _n(1)))
        block = b.lshr(b.add(self.place, stop), self.log2)
        used_up = b.icmp_unsigned("==", b.and_(block, _n(7)), _n(0))
        with b.if_then(b.and_(used_up, b.icmp_unsigned("!=", self.log2, _n(0)))):  # of blocks of one, none is drawn
            self._draw_from(stop)

    def settle(self) -> None:
        """Count those drawn last, whose counters have been fetched by now."""
        b = self.b
        for counter in self.next:
            place = b.load(counter)
            b.store(b.add(b.load(place), b.trunc(self.every, _I32)), place)
