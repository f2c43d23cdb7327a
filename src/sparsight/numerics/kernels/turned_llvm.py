"""16 x 16 floats turned over in registers: from rows, as torch has them, to lanes and back: code for LLVM."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from sparsight.numerics.kernels.calls import operation
from sparsight.numerics.kernels.tile_llvm import BYTES, LANES

_I1, _I16, _I32, _I64, _F32 = (*(ir.IntType(n) for n in (1, 16, 32, 64)), ir.FloatType())
_V, _VI, _VB = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, _I1))
_ZERO = ir.Constant(_V, [0.0] * LANES)

STRIP = 2 + LANES + LANES // 2
"""int32 numbers of a strip: its place among vectors (bytes), how many of them (at most 16), for each lane where its row
is (bytes), and for each lane 16 bits: which of the row's numbers there are."""


def _load(b: Any, address: Any, align: int = 64) -> Any:
    return b.load(b.inttoptr(address, _V.as_pointer()), align=align)


def _store(b: Any, value: Any, address: Any, align: int = 64) -> None:
    b.store(value, b.inttoptr(address, _V.as_pointer()), align=align)


def _transpose(b: Any, rows: list[Any]) -> list[Any]:
    """Of 16 vectors of 16, in four rounds of pairs."""
    step = 1
    while step < LANES:
        low = [k if not k & step else LANES + k - step for k in range(LANES)]
        high = [k + step if not k & step else LANES + k for k in range(LANES)]
        new = list(rows)
        for i in range(LANES):
            if not i & step:
                for to, lanes in ((i, low), (i + step, high)):
                    new[to] = b.shuffle_vector(rows[i], rows[i + step], ir.Constant(_VI, lanes))
        rows, step = new, 2 * step
    return rows


def _transposed(b: Any, out: Any, out_row: Any, x: Any, x_row: Any) -> None:
    rows = [_load(b, b.add(x, b.mul(x_row, ir.Constant(_I64, i))), align=4) for i in range(LANES)]
    for i, row in enumerate(_transpose(b, rows)):
        _store(b, row, b.add(out, b.mul(out_row, ir.Constant(_I64, i))), align=4)


transposed: Any = operation([types.int64] * 4, _transposed)
"""16 x 16 floats from x, transposed to out: out, bytes from row to row, x, bytes from row to row."""


class _Strip:
    """The numbers of a strip at an address."""

    def __init__(self, b: Any, address: Any):
        self.b = b
        self.words, self.bits = (b.inttoptr(address, kind.as_pointer()) for kind in (_I32, _I16))

    def word(self, i: int) -> Any:
        return self.b.sext(self.b.load(self.b.gep(self.words, [ir.Constant(_I64, i)])), _I64)

    def row(self, lane: int, base: Any) -> tuple[Any, Any]:
        """Pointer to a lane's row, and which of its numbers there are."""
        bits = self.b.load(self.b.gep(self.bits, [ir.Constant(_I64, 2 * (2 + LANES) + lane)]))
        pointer = self.b.inttoptr(self.b.add(base, self.word(2 + lane)), _V.as_pointer())
        return pointer, self.b.bitcast(bits, _VB)


def _masked(b: Any, name: str, result: Any, *kinds: Any) -> Any:
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, kinds), f"llvm.masked.{name}.v16f32.p0")


def _inward(b: Any, out: Any, x: Any, address: Any) -> None:
    strip = _Strip(b, address)
    load = _masked(b, "load", _V, _V.as_pointer(), _I32, _VB, _V)
    rows = [strip.row(lane, x) for lane in range(LANES)]
    columns = _transpose(b, [b.call(load, [p, ir.Constant(_I32, 4), bits, _ZERO]) for p, bits in rows])
    count, place = strip.word(1), b.add(out, strip.word(0))
    for i, column in enumerate(columns):
        with b.if_then(b.icmp_signed(">", count, ir.Constant(_I64, i))):
            _store(b, column, b.add(place, ir.Constant(_I64, BYTES * i)))


def _outward(b: Any, out: Any, x: Any, address: Any) -> None:
    strip = _Strip(b, address)
    store = _masked(b, "store", ir.VoidType(), _V, _V.as_pointer(), _I32, _VB)
    count, place = strip.word(1), b.add(x, strip.word(0))
    columns = []
    for i in range(LANES):
        there = b.icmp_signed(">", count, ir.Constant(_I64, i))
        at = b.select(there, ir.Constant(_I64, BYTES * i), ir.Constant(_I64, 0))  # what is not there is masked below
        columns.append(_load(b, b.add(place, at)))
    for lane, row in enumerate(_transpose(b, columns)):
        pointer, bits = strip.row(lane, out)
        b.call(store, [row, pointer, ir.Constant(_I32, 4), bits])


strip_in: Any = operation([types.int64] * 3, _inward)
"""Write the vectors of a strip to out, from its rows in x: numbers that are not there are 0."""
strip_out: Any = operation([types.int64] * 3, _outward)
"""Write the rows of a strip to out, from its vectors in x, only the numbers that are there."""
