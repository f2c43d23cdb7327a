"""One tile of output vectors for many rows of a sparse matrix, its accumulators in registers: code for LLVM.

A row is a run of non-zeros, each an offset in bytes (int32) and a weight (float32); or, in half the memory, in one
32-bit word an offset in vectors (high half) and a bfloat16 weight (low half). For output row o, with T = rows x cols
vectors of 16 lanes,

    tile[r, c] = bias[o] + sum over non-zeros of weight * x[offset + down * r * pitch + 64 * right * c]

Convolutions and linear layers differ in what the offsets mean. Vectors always have 16 lanes; LLVM splits them where
the machine's are narrower.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
BYTES = 4 * LANES  # of a vector
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_V = ir.VectorType(_F32, LANES)
_MASK = ir.IntType(LANES)
_ZERO = ir.Constant(_V, [0.0] * LANES)

# The words of a job, int64 each.
WORDS = (
    "x",  # address that offsets are from, for the tile's first vector
    "pitch",  # of x, in bytes
    "stream",  # address of the non-zeros
    "starts",  # address of int32: where the first row's run begins, where it ends and the second's begins, ...
    "count",  # of rows
    "order",  # address of int32: which row each run is of
    "scratch",  # address: partial sums of rows between blocks, T vectors each
    "first",  # 1: sums begin with the bias; 0: with what scratch holds
    "last",  # 1: the tile is finished and goes to out; 0: back to scratch
    "bias",  # address of the first row's
    "out", "out_row", "out_pitch",  # address of the tile in the first row's plane; bytes from row to row, line to line
    "add", "add_row", "add_pitch",  # the same of what is added to the finished tile; address 0: nothing
    "low", "high",  # finished values are clamped to these: float32 in the low bits
    "keep", "keep_pitch",  # address of the lanes that lie in the image, 16 bits a vector; bytes from line to line
)  # fmt: skip


def _literal(value: Any) -> bool:
    return isinstance(value, types.IntegerLiteral)


class _Tile:
    """What the loops below share: the tile's shape, the words of the job, and how memory is read."""

    def __init__(self, b: Any, job: Any, shape: tuple[int, ...]):
        self.b = b
        self.rows, self.cols, self.down, self.right, self.sets, self.pitch, self.masked, self.half = shape
        words = b.inttoptr(job, _I64.as_pointer())
        self.word = {name: b.load(b.gep(words, [ir.Constant(_I64, i)])) for i, name in enumerate(WORDS)}
        self.places = [(r, c) for r in range(self.rows) for c in range(self.cols)]

    def pointer(self, address: Any, kind: Any = _V) -> Any:
        return self.b.inttoptr(address, kind.as_pointer())

    def load(self, address: Any, kind: Any = _V, align: int = 64) -> Any:
        return self.b.load(self.pointer(address, kind), align=align)

    def nonzero(self, at: Any) -> tuple[Any, Any]:
        """Offset in bytes and weight, in all lanes, of the non-zero at an address."""
        b, first = self.b, self.load(at, _I32, 4)
        if not self.half:
            return b.sext(first, _I64), self.splat(self.load(self.plus(at, 4), _F32, 4))
        sixteen = ir.Constant(_I32, 16)
        vectors = b.zext(b.lshr(first, sixteen), _I64)
        return b.mul(vectors, ir.Constant(_I64, BYTES)), self.splat(b.bitcast(b.shl(first, sixteen), _F32))

    @property
    def size(self) -> int:
        """Bytes of a non-zero."""
        return 4 if self.half else 8

    def splat(self, value: Any) -> Any:
        zero = ir.Constant(_I32, 0)
        one = self.b.insert_element(ir.Constant(_V, ir.Undefined), value, zero)
        return self.b.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def real(self, name: str) -> Any:
        return self.splat(self.b.bitcast(self.b.trunc(self.word[name], _I32), _F32))

    def plus(self, *terms: Any) -> Any:
        total = terms[0]
        for term in terms[1:]:
            total = self.b.add(total, term if isinstance(term, ir.Value) else ir.Constant(_I64, term))
        return total

    def line(self, pitch: str, r: int) -> Any:
        """Bytes to line r. A pitch known when compiling costs no register."""
        if pitch == "pitch" and self.pitch:
            return ir.Constant(_I64, r * self.down * self.pitch)
        return self.b.mul(self.word[pitch], ir.Constant(_I64, r * (self.down if pitch == "pitch" else 1)))


def _nonzeros(t: _Tile, begin: Any, count: Any, sets: list[list[Any]], lines: list[Any]) -> None:
    """The loop over a run, `len(sets)` non-zeros at a time; what it leaves over goes to the first set."""
    b = t.b
    kind = ir.FunctionType(_V, [_V] * 3)
    fma = cgutils.get_or_insert_function(b.module, kind, f"llvm.fmuladd.v{LANES}f32")

    def loop(begin: Any, count: Any, sets: list[list[Any]]) -> None:
        with cgutils.for_range(b, count) as turn:
            at = t.plus(begin, b.mul(turn.index, ir.Constant(_I64, t.size * len(sets))))
            for s, accs in enumerate(sets):
                offset, weight = t.nonzero(t.plus(at, t.size * s) if s else at)
                base = t.plus(t.word["x"], offset)
                for (r, c), acc in zip(t.places, accs, strict=True):
                    x = t.load(t.plus(base, lines[r], BYTES * t.right * c))
                    b.store(b.call(fma, [x, weight, b.load(acc)]), acc)

    whole = b.sdiv(count, ir.Constant(_I64, len(sets)))
    loop(begin, whole, sets)
    if len(sets) > 1:
        done = b.mul(whole, ir.Constant(_I64, len(sets)))
        loop(t.plus(begin, b.mul(done, ir.Constant(_I64, t.size))), b.sub(count, done), sets[:1])


def _finish(t: _Tile, o: Any, accs: list[Any]) -> None:
    """Add, clamp, clear the lanes outside the image, and store a finished tile."""
    b, w = t.b, t.word
    out, add = t.plus(w["out"], b.mul(o, w["out_row"])), t.plus(w["add"], b.mul(o, w["add_row"]))
    low, high = t.real("low"), t.real("high")
    with b.if_then(b.icmp_signed("!=", w["add"], ir.Constant(_I64, 0))):
        for (r, c), acc in zip(t.places, accs, strict=True):
            b.store(b.fadd(b.load(acc), t.load(t.plus(add, t.line("add_pitch", r), BYTES * c))), acc)
    for (r, c), acc in zip(t.places, accs, strict=True):
        value = b.load(acc)
        value = b.select(b.fcmp_ordered(">", low, value), low, value)
        value = b.select(b.fcmp_ordered("<", high, value), high, value)
        if t.masked:
            bits = t.load(t.plus(w["keep"], t.line("keep_pitch", r), 2 * c), _MASK, 2)
            value = b.select(b.bitcast(bits, ir.VectorType(ir.IntType(1), LANES)), value, _ZERO)
        b.store(value, t.pointer(t.plus(out, t.line("out_pitch", r), BYTES * c)), align=64)


def _codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    t = _Tile(b, args[0], tuple(a.literal_value for a in signature.args[1:]))
    w, n = t.word, len(t.places)
    lines = [t.line("pitch", r) for r in range(t.rows)]
    first = b.icmp_signed("!=", w["first"], ir.Constant(_I64, 0))
    last = b.icmp_signed("!=", w["last"], ir.Constant(_I64, 0))
    sets = [[cgutils.alloca_once(b, _V) for _ in range(n)] for _ in range(t.sets)]  # LLVM puts them in registers
    with cgutils.for_range(b, w["count"]) as rows:
        place = b.mul(rows.index, ir.Constant(_I64, 4))
        o = b.sext(t.load(t.plus(w["order"], place), _I32, 4), _I64)
        begin, end = (b.sext(t.load(t.plus(w["starts"], place, k), _I32, 4), _I64) for k in (0, 4))
        scratch = t.plus(w["scratch"], b.mul(o, ir.Constant(_I64, BYTES * n)))
        with b.if_else(first) as (then, other):
            with then:
                bias = t.splat(t.load(t.plus(w["bias"], b.mul(o, ir.Constant(_I64, 4))), _F32, 4))
                for acc in sets[0]:
                    b.store(bias, acc)
            with other:
                for i, acc in enumerate(sets[0]):
                    b.store(t.load(t.plus(scratch, BYTES * i)), acc)
        for acc in chain(*sets[1:]):
            b.store(_ZERO, acc)
        _nonzeros(t, t.plus(w["stream"], b.mul(begin, ir.Constant(_I64, t.size))), b.sub(end, begin), sets, lines)
        half = t.sets // 2
        while half:
            for into, more in zip(chain(*sets[:half]), chain(*sets[half : 2 * half]), strict=True):
                b.store(b.fadd(b.load(into), b.load(more)), into)
            half //= 2
        with b.if_else(last) as (then, other):
            with then:
                _finish(t, o, sets[0])
            with other:
                for i, acc in enumerate(sets[0]):
                    b.store(b.load(acc), t.pointer(t.plus(scratch, BYTES * i)), align=64)
    return context.get_dummy_value()


@intrinsic
def tile_rows(
    typing_context: Any,
    job: Any,
    rows: Any,
    cols: Any,
    down: Any,
    right: Any,
    sets: Any,
    pitch: Any,
    masked: Any,
    half: Any,
) -> Any:
    """Compute a tile of rows x cols vectors, `down` and `right` apart in x, for a job (the address of its `WORDS`).

    `sets`, a power of two, is how many non-zeros go on at once, each with accumulators of its own; `pitch` is that of
    x in bytes, or 0 if only the job knows it; `masked` is 1 if some lanes lie outside the image, `half` if non-zeros
    are words.
    """
    if not all(map(_literal, (rows, cols, down, right, sets, pitch, masked, half))):
        return None
    return types.void(types.int64, rows, cols, down, right, sets, pitch, masked, half), _codegen
