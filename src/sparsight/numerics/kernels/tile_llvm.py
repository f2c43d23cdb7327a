"""One tile of output vectors for many rows of a sparse matrix, its accumulators in registers: code for LLVM.

A row is a run of non-zeros, each an offset in bytes (int32) and a weight (float32); or, in half the memory, in one
32-bit word an offset in vectors (high half) and a bfloat16 weight (low half). For output row o, with T = rows x cols
vectors of 16 lanes,

    tile[r, c] = bias[o] + sum over non-zeros of weight * x[offset + down * r * pitch + 64 * right * c]

Convolutions and linear layers differ in what the offsets mean. Vectors always have 16 lanes; LLVM splits them where
the machine's are narrower.
"""

from __future__ import annotations

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


def _nonzeros(t: _Tile, begin: Any, end: Any, sets: list[list[Any]], lines: list[Any]) -> list[list[Any]]:
    """The loop over a run, `len(sets)` non-zeros at a time; what it leaves over goes to the first set."""
    b = t.b
    kind = ir.FunctionType(_V, [_V] * 3)
    fma = cgutils.get_or_insert_function(b.module, kind, f"llvm.fmuladd.v{LANES}f32")
    size = len(sets)
    flat = [acc for accs in sets for acc in accs]

    def loop(begin: Any, end: Any, values: list[Any], step: int) -> tuple[Any, list[Any]]:
        before, head, body, after = b.block, *(b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        p = b.phi(_I64)
        p.add_incoming(begin, before)
        phis = []
        for value in values:
            phi = b.phi(_V)
            phi.add_incoming(value, before)
            phis.append(phi)
        b.cbranch(b.icmp_signed("<=", t.plus(p, t.size * step), end), body, after)
        b.position_at_end(body)
        new = list(phis)
        for s in range(step):
            offset, weight = t.nonzero(t.plus(p, t.size * s) if s else p)
            base = t.plus(t.word["x"], offset)
            for i, (r, c) in enumerate(t.places):
                x = t.load(t.plus(base, lines[r], BYTES * t.right * c))
                k = s * len(t.places) + i
                new[k] = b.call(fma, [x, weight, new[k]])
        p.add_incoming(t.plus(p, t.size * step), b.block)
        for phi, value in zip(phis, new, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        return p, phis

    p, flat = loop(begin, end, flat, size)
    n = len(t.places)
    if size > 1:
        _, flat[:n] = loop(p, end, flat[:n], 1)
    return [flat[i : i + n] for i in range(0, len(flat), n)]


def _finish(t: _Tile, o: Any, accs: list[Any]) -> None:
    """Add, clamp, clear the lanes outside the image, and store a finished tile."""
    b, w = t.b, t.word
    out, add = t.plus(w["out"], b.mul(o, w["out_row"])), t.plus(w["add"], b.mul(o, w["add_row"]))
    low, high = t.real("low"), t.real("high")
    zero = ir.Constant(_V, [0.0] * LANES)
    before = b.block
    adding, clamping = b.append_basic_block("adding"), b.append_basic_block("clamping")
    b.cbranch(b.icmp_signed("!=", w["add"], ir.Constant(_I64, 0)), adding, clamping)
    b.position_at_end(adding)
    summed = []
    for (r, c), acc in zip(t.places, accs, strict=True):
        summed.append(b.fadd(acc, t.load(t.plus(add, t.line("add_pitch", r), BYTES * c))))
    b.branch(clamping)
    b.position_at_end(clamping)
    values = []
    for acc, total in zip(accs, summed, strict=True):
        phi = b.phi(_V)
        phi.add_incoming(acc, before)
        phi.add_incoming(total, adding)
        values.append(phi)
    for (r, c), value in zip(t.places, values, strict=True):
        value = b.select(b.fcmp_ordered(">", low, value), low, value)
        value = b.select(b.fcmp_ordered("<", high, value), high, value)
        if t.masked:
            bits = t.load(t.plus(w["keep"], t.line("keep_pitch", r), 2 * c), _MASK, 2)
            value = b.select(b.bitcast(bits, ir.VectorType(ir.IntType(1), LANES)), value, zero)
        b.store(value, t.pointer(t.plus(out, t.line("out_pitch", r), BYTES * c)), align=64)


def _codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
    t = _Tile(b, args[0], tuple(a.literal_value for a in signature.args[1:]))
    w, n = t.word, len(t.places)
    lines = [t.line("pitch", r) for r in range(t.rows)]
    zero = ir.Constant(_V, [0.0] * LANES)
    first = b.icmp_signed("!=", w["first"], ir.Constant(_I64, 0))
    last = b.icmp_signed("!=", w["last"], ir.Constant(_I64, 0))
    with cgutils.for_range(b, w["count"]) as rows:
        place = b.mul(rows.index, ir.Constant(_I64, 4))
        starts = t.plus(w["starts"], place)
        o = b.sext(t.load(t.plus(w["order"], place), _I32, 4), _I64)
        begin, end = (
            t.plus(w["stream"], b.mul(b.sext(t.load(t.plus(starts, k), _I32, 4), _I64), ir.Constant(_I64, t.size)))
            for k in (0, 4)
        )
        scratch = t.plus(w["scratch"], b.mul(o, ir.Constant(_I64, BYTES * n)))
        with b.if_else(first) as (then, other):
            with then:
                biased = t.splat(t.load(t.plus(w["bias"], b.mul(o, ir.Constant(_I64, 4))), _F32, 4))
                from_bias = b.block
            with other:
                partial = [t.load(t.plus(scratch, BYTES * i)) for i in range(n)]
                from_scratch = b.block
        accs = []
        for value in partial:
            phi = b.phi(_V)
            phi.add_incoming(biased, from_bias)
            phi.add_incoming(value, from_scratch)
            accs.append(phi)
        sets = [accs, *([zero] * n for _ in range(t.sets - 1))]
        sets = _nonzeros(t, begin, end, sets, lines)
        while len(sets) > 1:
            half = len(sets) // 2
            sets = [[b.fadd(x, y) for x, y in zip(sets[i], sets[i + half], strict=True)] for i in range(half)]
        with b.if_else(last) as (then, other):
            with then:
                _finish(t, o, sets[0])
            with other:
                for i, acc in enumerate(sets[0]):
                    b.store(acc, t.pointer(t.plus(scratch, BYTES * i)), align=64)
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
