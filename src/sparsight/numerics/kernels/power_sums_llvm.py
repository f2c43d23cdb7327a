"""Sums of |x|^0.5, |x| and x^2 over a short array, in 16 lanes, read once: code for LLVM.

Sums are float64 and run in 16 fixed lanes, joined in a fixed order, so the bits depend neither on the width
of the machine's vectors nor on which of the three sums are asked for.

A square root in float32 is rounded by up to 2^-24 / m, m in [1, 2) being its significand, and the same way
wherever a weight repeats, so that sums of ties would be off by as much. With s = sqrtf(x), the residual x - s*s
is exact in one fused multiply-add, and (x - s*s) / (2s) is what the rounding took away. The 1/s in it may be
crude: (a constant - the bits of s) is within 0.043 of 1/m, which leaves 2.6e-9 at the very worst.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_AHEAD = 1024  # weights; the processor's own prefetching is too timid for one thread to read at full speed
_RECIPROCAL = 0x7F000000 - 719_700  # minus the bits of s: about 1/s, its error spread evenly over [1, 2]
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()

# numba passes an intrinsic's first argument itself
# pyright: reportCallIssue=false


def _prefetch(b: Any, pointer: Any) -> None:
    """Ask for memory that is needed soon; the processor ignores it where there is none."""
    t = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(b.module, t, "llvm.prefetch.p0i8")
    read, keep, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
    b.call(function, [b.bitcast(pointer, _I8.as_pointer()), read, keep, data])


def _lanes(t: Any) -> Any:
    return ir.VectorType(t, LANES)


def _splat(t: Any, value: Any) -> Any:
    return ir.Constant(_lanes(t), [value] * LANES)


def _call(builder: Any, name: str, t: Any, *args: Any) -> Any:
    """An LLVM intrinsic on 16 lanes."""
    suffix = f"v{LANES}f{32 if t is _F32 else 64}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_lanes(t), [_lanes(t)] * len(args)), f"llvm.{name}.{suffix}"
    )
    return builder.call(function, args)


def _magnitude_bits(b: Any, raw: Any, dtype: types.Type) -> Any:
    """Bits of |x| in float32 (float64 stays), for 16 raw values. uint16 stands for bfloat16."""
    if dtype == types.float64:
        return b.and_(raw, _splat(_I64, 2**63 - 1))
    if dtype == types.float32:
        return b.and_(raw, _splat(_I32, 2**31 - 1))
    wide = b.and_(b.zext(raw, _lanes(_I32)), _splat(_I32, 2**15 - 1))
    if dtype == types.uint16:
        return b.shl(wide, _splat(_I32, 16))
    normal = b.add(b.shl(wide, _splat(_I32, 13)), _splat(_I32, 112 << 23))  # float16: rebias the exponent
    small = b.fmul(b.uitofp(wide, _lanes(_F32)), _splat(_F32, 2.0**-24))
    small = b.bitcast(small, _lanes(_I32))
    finite = b.select(b.icmp_unsigned("<", wide, _splat(_I32, 0x400)), small, normal)
    return b.select(b.icmp_unsigned("<", wide, _splat(_I32, 0x7C00)), finite, _splat(_I32, 0x7F800000))


def reduced(b: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Halve until one lane is left: a fixed order."""
    n = LANES
    while n > 1:
        n //= 2
        low, high = ([ir.Constant(_I32, i + j) for i in range(n)] for j in (0, n))
        halves = [b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_I32, n), h)) for h in (low, high)]
        vector = combine(*halves)
    return b.extract_element(vector, ir.Constant(_I32, 0))


def larger(b: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y)


def _smaller(b: Any) -> Callable[[Any, Any], Any]:
    return lambda x, y: b.select(b.fcmp_ordered("<", x, y), x, y)


def _aligned(access: Any, width: int = 64) -> Any:
    """A vector's load or store, of which nothing is known but that a number of `width` bits may stand there."""
    access.align = width // 8
    return access


class _Ring:
    """Magnitudes and roots of two vectors of float32, which go through memory.

    A processor takes long for a root and can do other work meanwhile, if only what needs the root is not next in
    line. And widening to float64 what comes from memory is cheaper than what is in a register.
    """

    def __init__(self, b: Any):
        self.b = b
        self.slots = cgutils.alloca_once(b, ir.ArrayType(_lanes(_F32), 4))
        b.store(ir.Constant(ir.ArrayType(_lanes(_F32), 4), None), self.slots)
        pointer = _lanes(_F32).as_pointer()
        self.base = b.bitcast(self.slots, pointer)
        hidden = ir.InlineAsm(ir.FunctionType(pointer, [pointer]), "", "=r,0,~{memory}", side_effect=True)
        self.read = b.call(hidden, [self.base])  # lest LLVM sees that it is the same memory, and keeps registers

    def put(self, turn: Any, *vectors: Any) -> None:
        for i, vector in enumerate(vectors):
            self.b.store(vector, self.b.gep(self.base, [self._at(turn, i)]))

    def before(self, turn: Any) -> list[Any]:
        other = self.b.xor(turn, ir.Constant(_I64, 1))
        return [self.b.load(self.b.gep(self.read, [self._at(other, i)])) for i in range(2)]

    def _at(self, turn: Any, i: int) -> Any:
        """Which of the four: two of an even turn, two of an odd one."""
        odd = self.b.and_(turn, ir.Constant(_I64, 1))
        return self.b.add(self.b.shl(odd, ir.Constant(_I64, 1)), ir.Constant(_I64, i))


class _Chunk:
    """Code of one chunk's loop: the accumulators, and what 16 more weights do to them."""

    def __init__(self, b: Any, dtype: types.Type, half: bool, two: bool):
        self.b, self.dtype, self.half, self.two = b, dtype, half, two
        self.double = dtype == types.float64
        self.bits, self.real = (_I64, _F64) if self.double else (_I32, _F32)
        self.largest, self.smallest = self._new(self.real, 0.0), self._new(self.real, float("inf"))
        self.half_sum, self.sum, self.square_sum = (self._new(_F64, 0.0) for _ in range(3))
        self.lost = self._new(_F32, 0.0)
        self.count = cgutils.alloca_once_value(b, ir.Constant(_I64, 0))

    def _new(self, t: Any, value: Any) -> Any:
        return cgutils.alloca_once_value(self.b, _splat(t, value))

    def _accumulate(self, where: Any, term: Any) -> None:
        self.b.store(self.b.fadd(self.b.load(where), term), where)

    def add(self, raw: Any, keep: Any = None) -> None:
        """Take in 16 raw values; `keep` (16 bits) says which of them are there."""
        x = self._magnitudes(raw, keep)
        self._sum(x, self._root(x) if self.half else None)

    def add_later(self, raw: Any, ring: _Ring, turn: Any) -> None:
        """The same in two halves, of which the second is that of the 16 values before."""
        x = self._magnitudes(raw)
        ring.put(turn, x, self._root(x))
        self._sum(*ring.before(turn))

    def add_last(self, ring: _Ring, turn: Any) -> None:
        self._sum(*ring.before(turn))

    def _magnitudes(self, raw: Any, keep: Any = None) -> Any:
        b = self.b
        bits = floor = _magnitude_bits(b, raw, self.dtype)
        if keep is not None:
            here = b.sext(keep, _lanes(self.bits))
            bits = b.and_(bits, here)
            floor = b.or_(bits, b.not_(here))  # NaN, smaller than nothing, where nothing is
            ones = b.zext(b.bitcast(keep, _I16), _I64)
            ctpop = cgutils.get_or_insert_function(b.module, ir.FunctionType(_I64, [_I64]), "llvm.ctpop.i64")
            b.store(b.add(b.load(self.count), b.call(ctpop, [ones])), self.count)
        x, low = (b.bitcast(v, _lanes(self.real)) for v in (bits, floor))
        b.store(larger(b)(x, b.load(self.largest)), self.largest)
        b.store(_smaller(b)(low, b.load(self.smallest)), self.smallest)
        return x

    def _root(self, x: Any) -> Any:
        """Square roots; what their rounding took away is added up."""
        b = self.b
        root = _call(b, "sqrt", self.real, x)
        if not self.double:
            residual = _call(b, "fma", _F32, b.fneg(root), root, x)
            inverse = b.sub(_splat(_I32, _RECIPROCAL), b.bitcast(root, _lanes(_I32)))
            inverse = b.bitcast(inverse, _lanes(_F32))
            b.store(_call(b, "fma", _F32, residual, inverse, b.load(self.lost)), self.lost)
        return root

    def _sum(self, x: Any, root: Any) -> None:
        b, wide = self.b, (lambda v: v if self.double else self.b.fpext(v, _lanes(_F64)))
        self._accumulate(self.sum, wide(x))
        if self.two:
            square = _call(b, "fma", _F64, wide(x), wide(x), b.load(self.square_sum))
            b.store(square, self.square_sum)
        if root is not None:
            self._accumulate(self.half_sum, wide(root))

    def result(self) -> list[Any]:
        """Sums of |x|^0.5, |x| and x^2, the largest and the smallest magnitude."""
        b = self.b
        plus = b.fadd
        wide = (lambda v: v) if self.double else (lambda v: b.fpext(v, _F64))
        lost = b.fpext(reduced(b, b.load(self.lost), plus), _F64)
        half = plus(reduced(b, b.load(self.half_sum), plus), b.fmul(lost, ir.Constant(_F64, 0.5)))
        return [
            half,
            *(reduced(b, b.load(s), plus) for s in (self.sum, self.square_sum)),
            wide(reduced(b, b.load(self.largest), larger(b))),
            wide(reduced(b, b.load(self.smallest), _smaller(b))),
        ]


def _take_in(b: Any, code: _Chunk, sources: list[Any], first: Any, n: Any) -> None:
    """Code of one loop over n weights from `first`, and over which of them are there, if there is a second source."""
    sources = [(b.gep(pointer, [first]), t) for pointer, t in sources]

    def read(pointer: Any, t: Any, at: Any) -> Any:
        return _aligned(b.load(b.bitcast(b.gep(pointer, [at]), _lanes(t).as_pointer())), t.width)

    def take(vectors: list[Any], there: Any = None) -> None:
        keep = there
        if len(vectors) > 1:
            alive = b.icmp_unsigned("!=", vectors[1], _splat(_I8, 0))
            keep = alive if there is None else b.and_(alive, there)
        code.add(vectors[0], keep)

    whole = b.lshr(n, ir.Constant(_I64, 4))
    ring = _Ring(b) if code.half and not code.double and len(sources) == 1 else None

    def add(index: Any, turn: Any) -> None:
        at = b.shl(index, ir.Constant(_I64, 4))
        for pointer, _ in sources:
            _prefetch(b, b.gep(pointer, [b.add(at, ir.Constant(_I64, _AHEAD))]))
        vectors = [read(pointer, t, at) for pointer, t in sources]
        if ring:
            code.add_later(vectors[0], ring, turn)
        else:
            take(vectors)

    even, odd = (ir.Constant(_I64, n) for n in (0, 1))
    pairs = b.lshr(whole, odd)
    with cgutils.for_range(b, pairs) as loop:
        first_of_two = b.shl(loop.index, odd)
        add(first_of_two, even)
        add(b.or_(first_of_two, odd), odd)
    with b.if_then(b.trunc(whole, _I1)):
        add(b.shl(pairs, odd), even)
    if ring:
        code.add_last(ring, whole)
    if len(sources) == 1:
        b.store(b.shl(whole, ir.Constant(_I64, 4)), code.count)
    rest = b.and_(n, ir.Constant(_I64, 15))
    with b.if_then(b.icmp_unsigned("!=", rest, ir.Constant(_I64, 0))):
        start = b.sub(n, rest)
        buffers = [cgutils.alloca_once_value(b, _splat(t, 0)) for _, t in sources]
        for (pointer, t), buffer in zip(sources, buffers, strict=True):
            flat = b.bitcast(buffer, t.as_pointer())
            b.store(_splat(t, 0), buffer)
            with cgutils.for_range(b, rest) as loop:
                b.store(b.load(b.gep(pointer, [b.add(start, loop.index)])), b.gep(flat, [loop.index]))
        lane = ir.Constant(_lanes(_I64), list(range(LANES)))
        limit = b.insert_element(_splat(_I64, 0), rest, ir.Constant(_I32, 0))
        limit = b.shuffle_vector(limit, limit, _splat(_I32, 0))
        take([b.load(buffer) for buffer in buffers], b.icmp_unsigned("<", lane, limit))


_SUMS = [types.float64] * 5
_INTP = types.intp


def _data(context: Any, b: Any, t: Any, value: Any, item: Any) -> Any:
    return b.bitcast(context.make_array(t)(context, b, value).data, item.as_pointer())


def _raw(dtype: types.Type) -> Any:
    return {types.float64: _I64, types.float32: _I32}.get(dtype, _I16)


def _vector_sums(half: bool, two: bool) -> Any:
    """`sums(x, mask, start, n)` of x[start : start + n], where `mask`, unless it is None, is True."""

    @intrinsic
    def sums(typing_context: Any, x: Any, mask: Any, start: Any, n: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            types_, raw = signature.args, _raw(signature.args[0].dtype)
            sources = [(_data(context, b, types_[0], args[0], raw), raw)]
            if types_[1] != types.none:
                sources.append((_data(context, b, types_[1], args[1], _I8), _I8))
            code = _Chunk(b, types_[0].dtype, half, two)
            _take_in(b, code, sources, *args[2:])
            return context.make_tuple(b, signature.return_type, [*code.result(), b.load(code.count)])

        return types.Tuple([*_SUMS, types.int64])(x, mask, _INTP, _INTP), codegen

    return sums


half_and_one = _vector_sums(half=True, two=False)
one_and_two = _vector_sums(half=False, two=True)
half_one_two = _vector_sums(half=True, two=True)
