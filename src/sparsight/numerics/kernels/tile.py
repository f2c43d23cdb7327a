"""One tile of output vectors for many rows of a sparse matrix, with accumulators in registers, compiled per shape.

A row is a run of nonzeros. Each is an offset in bytes (int32) and a weight (float32). In half the memory, it is one
32-bit word: an offset in vectors (high half) and a bfloat16 weight (low half). For output row o, with T = rows x cols
vectors of 16 lanes,

    tile[r, c] = bias[o] + sum over nonzeros of weight * x[offset + down * r * pitch + 64 * right * c]

Convolutions and linear layers differ in the meaning of offsets. Vectors always have 16 lanes; LLVM splits them if the
machine's are narrower.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.core.errors import NumbaError

from sparsight.numerics.kernels.calls import as_real, operation, put_real, real, small, word
from sparsight.numerics.kernels.jit import cached, jit
from sparsight.numerics.kernels.llvm import BYTES, F32, I32, I64, LANES, VB, VI, ZERO, V, fma, i64, load, store

KERNEL = types.void(types.int64)
Shape = tuple[int, int, int, int, int, int, int, int]
"""Rows, columns, strides, sets, pitch, masked and half, as in `tile_rows`."""

# The words of a job, int64 each.
WORDS = 20
(
    X,  # address that offsets are added to, for the tile's first vector
    PITCH,  # of x, in bytes
    STREAM,  # address of the nonzeros
    STARTS,  # address of int32: start of the first run, end of the first and start of the second, ...
    COUNT,  # number of rows
    ORDER,  # address of int32: the row of each run
    SCRATCH,  # address: partial sums of rows between blocks, T vectors each
    FIRST,  # 1: sums begin with the bias; 0: with the partial sums
    LAST,  # 1: finish the tile and store it in out; 0: store partial sums
    BIAS,  # address of the first row's bias
    OUT,  # address of the tile in the first row's plane
    OUT_ROW,  # bytes from row to row
    OUT_PITCH,  # bytes from line to line
    ADD,  # the same three for what to add to the finished tile; address 0: nothing
    ADD_ROW,
    ADD_PITCH,
    LOW,  # finished values are clamped to this and
    HIGH,  # this: float32 in the low bits
    KEEP,  # address of the lanes inside the image, 16 bits per vector
    KEEP_PITCH,  # bytes from line to line
) = range(WORDS)


class _Tile:
    """State that the loops below share: the tile's shape, the job's words, and access to memory."""

    def __init__(self, b: Any, job: Any, shape: tuple[int, ...]):
        self.b = b
        self.rows, self.cols, self.down, self.right, self.sets, self.pitch, self.masked, self.half = shape
        words = b.inttoptr(job, I64.as_pointer())
        self.word = [b.load(b.gep(words, [i64(i)])) for i in range(WORDS)]
        self.places = [(r, c) for r in range(self.rows) for c in range(self.cols)]

    def nonzero(self, at: Any) -> tuple[Any, Any]:
        """Offset in bytes and weight, in all lanes, of the nonzero at an address."""
        b, first = self.b, load(self.b, at, I32, 4)
        if not self.half:
            return b.sext(first, I64), self.splat(load(b, self.plus(at, 4), F32, 4))
        sixteen = ir.Constant(I32, 16)
        vectors = b.zext(b.lshr(first, sixteen), I64)
        return b.mul(vectors, i64(BYTES)), self.splat(b.bitcast(b.shl(first, sixteen), F32))

    @property
    def size(self) -> int:
        """Bytes per nonzero."""
        return 4 if self.half else 8

    def splat(self, value: Any) -> Any:
        one = self.b.insert_element(ir.Constant(V, ir.Undefined), value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(one, one, ir.Constant(VI, [0] * LANES))

    def real(self, word: int) -> Any:
        return self.splat(self.b.bitcast(self.b.trunc(self.word[word], I32), F32))

    def plus(self, *terms: Any) -> Any:
        total = terms[0]
        for term in terms[1:]:
            total = self.b.add(total, term if isinstance(term, ir.Value) else i64(term))
        return total

    def line(self, pitch: int, r: int) -> Any:
        """Bytes to line r. A pitch known at compile time needs no register."""
        if pitch == PITCH and self.pitch:
            return i64(r * self.down * self.pitch)
        return self.b.mul(self.word[pitch], i64(r * (self.down if pitch == PITCH else 1)))


def _phi(b: Any, *incoming: tuple[Any, Any]) -> Any:
    """A phi node: from pairs of values and blocks, the value for the block that led here."""
    made = b.phi(incoming[0][0].type)
    for value, block in incoming:
        made.add_incoming(value, block)
    return made


def _nonzeros(t: _Tile, begin: Any, end: Any, sets: list[list[Any]], lines: list[Any]) -> list[list[Any]]:
    """The loop over a run, `len(sets)` nonzeros at a time; the first set takes the remainder."""
    b, size = t.b, len(sets)
    flat = [acc for accs in sets for acc in accs]

    def loop(begin: Any, end: Any, values: list[Any], step: int) -> tuple[Any, list[Any]]:
        before, head, body, after = b.block, *(b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        p, phis = _phi(b, (begin, before)), [_phi(b, (value, before)) for value in values]
        b.cbranch(b.icmp_signed("<=", t.plus(p, t.size * step), end), body, after)
        b.position_at_end(body)
        new = list(phis)
        for s in range(step):
            offset, weight = t.nonzero(t.plus(p, t.size * s) if s else p)
            base = t.plus(t.word[X], offset)
            for i, (r, c) in enumerate(t.places):
                x = load(b, t.plus(base, lines[r], BYTES * t.right * c))
                k = s * len(t.places) + i
                new[k] = fma(b, x, weight, new[k])
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
    out, add = t.plus(w[OUT], b.mul(o, w[OUT_ROW])), t.plus(w[ADD], b.mul(o, w[ADD_ROW]))
    low, high = t.real(LOW), t.real(HIGH)
    before = b.block
    adding, clamping = b.append_basic_block("adding"), b.append_basic_block("clamping")
    b.cbranch(b.icmp_signed("!=", w[ADD], i64(0)), adding, clamping)
    b.position_at_end(adding)
    summed = []
    for (r, c), acc in zip(t.places, accs, strict=True):
        summed.append(b.fadd(acc, load(b, t.plus(add, t.line(ADD_PITCH, r), BYTES * c))))
    b.branch(clamping)
    b.position_at_end(clamping)
    values = [_phi(b, (acc, before), (total, adding)) for acc, total in zip(accs, summed, strict=True)]
    for (r, c), value in zip(t.places, values, strict=True):
        value = b.select(b.fcmp_ordered(">", low, value), low, value)
        value = b.select(b.fcmp_ordered("<", high, value), high, value)
        if t.masked:
            bits = load(b, t.plus(w[KEEP], t.line(KEEP_PITCH, r), 2 * c), ir.IntType(LANES), 2)
            value = b.select(b.bitcast(bits, VB), value, ZERO)
        store(b, value, t.plus(out, t.line(OUT_PITCH, r), BYTES * c))


def _tile_rows(b: Any, job: Any, *shape: int) -> None:
    t = _Tile(b, job, shape)
    w, n = t.word, len(t.places)
    lines = [t.line(PITCH, r) for r in range(t.rows)]
    first = b.icmp_signed("!=", w[FIRST], i64(0))
    last = b.icmp_signed("!=", w[LAST], i64(0))
    with cgutils.for_range(b, w[COUNT]) as rows:
        place = b.mul(rows.index, i64(4))
        starts = t.plus(w[STARTS], place)
        o = b.sext(load(b, t.plus(w[ORDER], place), I32, 4), I64)
        begin, end = (
            t.plus(w[STREAM], b.mul(b.sext(load(b, t.plus(starts, k), I32, 4), I64), i64(t.size))) for k in (0, 4)
        )
        scratch = t.plus(w[SCRATCH], b.mul(o, i64(BYTES * n)))
        with b.if_else(first) as (then, other):
            with then:
                biased = t.splat(load(b, t.plus(w[BIAS], b.mul(o, i64(4))), F32, 4))
                from_bias = b.block
            with other:
                partial = [load(b, t.plus(scratch, BYTES * i)) for i in range(n)]
                from_scratch = b.block
        accs = [_phi(b, (biased, from_bias), (value, from_scratch)) for value in partial]
        sets = [accs, *([ZERO] * n for _ in range(t.sets - 1))]
        sets = _nonzeros(t, begin, end, sets, lines)
        while len(sets) > 1:
            half = len(sets) // 2
            sets = [[b.fadd(x, y) for x, y in zip(sets[i], sets[i + half], strict=True)] for i in range(half)]
        with b.if_else(last) as (then, other):
            with then:
                _finish(t, o, sets[0])
            with other:
                for i, acc in enumerate(sets[0]):
                    store(b, acc, t.plus(scratch, BYTES * i))


tile_rows: Any = operation([types.int64, *[int] * 8], _tile_rows)
"""Compute a tile for a job (the address of its words): job, rows, cols, down, right, sets, pitch, masked, half.

It has rows x cols vectors, `down` and `right` apart in x. `sets`, a power of two, is the number of nonzeros processed
at once, each with its own accumulators. `pitch` is x's in bytes, or 0 if only the job knows it. `masked` is 1 if some
lanes are outside the image, and `half` is 1 if nonzeros are words.
"""

# -- kernels by shape, and their plain twins -----------------------------------------------------------------------


@cache
def tile(shape: Shape) -> Any:
    """The compiled kernel of a shape; call its `address` with the address of a job's words."""
    rows, cols, down, right, sets, pitch, masked, half = shape

    def kernel(job):
        tile_rows(job, rows, cols, down, right, sets, pitch, masked, half)

    try:
        return cached(cfunc, KERNEL)(kernel)
    except (NumbaError, RuntimeError, NotImplementedError) as error:
        warnings.warn(f"a kernel does not compile here, its slower twin serves: {error}", RuntimeWarning, 2)
        return tile_plainly(shape)


@jit
def nonzero(stream, k, half):
    """Offset in bytes and weight of a nonzero."""
    if not half:
        return small(stream, 2 * k), real(stream, 2 * k + 1)
    both = np.uint32(small(stream, k))
    return np.int64(both >> np.uint32(16)) * BYTES, as_real(both << np.uint32(16))


@cache
def tile_plainly(shape: Shape) -> Any:
    """The plain twin of `tile`, lane by lane."""
    rows, cols, down, right, _, _, masked, half = shape

    def kernel(job):
        low, high = real(job + 8 * LOW, 0), real(job + 8 * HIGH, 0)
        for i in range(word(job, COUNT)):
            begin, end, o = small(word(job, STARTS), i), small(word(job, STARTS), i + 1), small(word(job, ORDER), i)
            for r in range(rows):
                for c in range(cols):
                    x = word(job, X) + down * r * word(job, PITCH) + BYTES * right * c
                    partial = word(job, SCRATCH) + BYTES * (rows * cols * o + cols * r + c)
                    out = word(job, OUT) + o * word(job, OUT_ROW) + r * word(job, OUT_PITCH) + BYTES * c
                    add = word(job, ADD) + o * word(job, ADD_ROW) + r * word(job, ADD_PITCH) + BYTES * c
                    keep = word(word(job, KEEP) + r * word(job, KEEP_PITCH) + 2 * c, 0) if masked else -1
                    for lane in range(LANES):
                        total = real(word(job, BIAS), o) if word(job, FIRST) else real(partial, lane)
                        for k in range(begin, end):
                            at, weight = nonzero(word(job, STREAM), k, half)
                            total += weight * real(x + at, lane)
                        if not word(job, LAST):
                            put_real(partial, lane, total)
                            continue
                        if word(job, ADD):
                            total += real(add, lane)
                        total = low if total < low else high if total > high else total
                        put_real(out, lane, total if (keep >> lane) & 1 else 0.0)

    return cached(cfunc, KERNEL)(kernel)
