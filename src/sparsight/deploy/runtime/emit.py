"""Turns the steps of a plan into the table of operations for the compiled loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from sparsight.deploy.runtime import stream as streams
from sparsight.deploy.runtime.graph import Conv, Mean, Pool, Resample, Sum
from sparsight.deploy.runtime.plan import Step
from sparsight.deploy.runtime.tables import ALL, Words, edges, inside, lanes, shares
from sparsight.deploy.runtime.writer import Writer
from sparsight.numerics.kernels import matvec
from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels import sparse_conv as conv
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.tile import tile

_SUMS = 18 << 14  # at most this many bytes of partial sums in a chunk: each block passes over them once


def _limits(activation: str) -> tuple[float, float]:
    """Between which finished values are clamped before the activation."""
    return k.CLAMPS.get(activation, k.CLAMPS[""])


@dataclass
class Emitter(Writer):
    """Writes a plan's operations, step by step."""

    def emit(self, step: Step) -> None:
        match step.operation:
            case None:
                self.move(step.x, step.out)
            case Conv() as operation if step.x.whole.layout is None:
                self.matvec(operation, step)
            case Conv() as operation:
                self.conv(operation, step)
            case Pool() as operation:
                self.pool(operation, step)
            case Mean():
                self.mean(step)
            case Sum(_, _, activation):
                self.sum(activation, step)
            case Resample(_, rows, cols):
                self.move(step.x, step.out, (rows, cols))

    # -- convolution ---------------------------------------------------------------------------------------------

    def conv(self, operation: Conv, step: Step) -> None:
        x, out, weight = step.x.planes, step.out.planes, operation.weight
        cut = streams.tiles(out.block)
        block = streams.channels_at_once(weight, cut[0][2:], operation.stride, operation.dilation)
        if operation.groups > 1 and weight.shape[1] <= block:  # each row reads few channels
            block = operation.x.shape[0]
        half = self.half and streams.fits_words(x, 1)
        while half and not streams.fits_words(x, block):
            block = -(-block // 2)
        size = max(r * c for _, _, r, c in cut) * BYTES
        cuts = self.cuts(len(weight), weight.counts(), -(-len(weight) * size // _SUMS))
        make = partial(streams.stream, weight, operation.groups, x, operation.dilation, block, cuts, half)
        made = self.once(make, id(operation), x.plane, x.pitch, half, block, *cuts)
        chunks, words = self.output(step.out, operation.activation, cuts)
        bits = inside(out)
        masked = int(not (bits == ALL).all())
        source = self.source(step.x, -operation.padding[0], -operation.padding[1])
        for own, given in ((conv.X, k.X), (conv.X_AT, k.X_AT), (conv.X_GROUP, k.X_GROUP), (conv.X_PITCH, k.X_PITCH)):
            words[own] = source[given]
        words |= {conv.STREAM: made.nonzeros, conv.STARTS: made.starts, conv.ORDER: made.order}
        words |= {conv.BASE: block * x.plane if half else 0, conv.BLOCKS: made.blocks, conv.CHANNELS: weight.shape[0]}
        words |= {conv.BIAS: operation.bias.astype(np.float32), conv.KEEP: bits, conv.KEEP_PITCH: 2 * bits.shape[1]}
        words |= zip((conv.LOW, conv.HIGH), _limits(operation.activation), strict=True)
        words |= self.added(step.add, conv.ADD)
        words |= self.tiles(cut, operation, step, (masked, int(half)), bits.shape[1])
        rows = int(np.diff(cuts).max())
        self.table.scratch = max(self.table.scratch, conv.SUMS + rows * size)
        self.table.add(conv.conv, chunks, words)

    def tiles(
        self, cut: list[tuple[int, int, int, int]], operation: Conv, step: Step, kind: tuple[int, int], width: int
    ) -> Words:
        x, out = step.x.planes, step.out.planes
        add = step.add.planes if step.add is not None else out
        down, right = operation.stride
        rows = []
        for i, j, r, c in cut:
            pitch = x.pitch if r > 2 else 0
            kernel = tile((r, c, down, right, streams.sets(r * c), pitch, *kind))
            self.table.keep.append(kernel)
            places = i * down * x.pitch + j * right * BYTES, *(i * of.pitch + j * BYTES for of in (out, add))
            rows.append([kernel.address, *places, 2 * (i * width + j)])
        return {conv.TILES: np.array(rows, np.int64), conv.TILE_COUNT: len(rows)}

    def matvec(self, operation: Conv, step: Step) -> None:
        weight, group = operation.weight, matvec.group(self.half)
        groups = -(-len(weight) // group)
        rows = groups * group
        row, column, _ = weight.taken_apart(operation.groups)
        cuts = self.cuts(groups, np.bincount(row // group, minlength=groups))
        chunks, words = self.output(step.out, operation.activation, cuts)
        bias = np.pad(operation.bias, (0, rows - len(weight))).astype(np.float32)
        words |= self.source(step.x) | {k.OUT_ROW: 4 * group, matvec.BIAS: bias}
        words |= zip((matvec.LOW, matvec.HIGH), _limits(operation.activation), strict=True)
        if step.add is not None:
            add = self.place(step.add)
            words |= {matvec.ADD: add.slot, matvec.ADD_AT: add.at}
        kernel = matvec.by_slots(self.half)
        if kernel is None:
            kernel = matvec.by_rows
            pairs = np.stack([4 * column.astype(np.int32), weight.values.view(np.int32)], 1)
            starts = np.searchsorted(row, np.arange(rows + 1)).astype(np.int32)
            words |= {matvec.PAIRS: pairs, matvec.STARTS: starts}
        else:
            shape = rows, operation.x.shape[0]
            make = partial(matvec.slots, shape, row, column, weight.values, self.half)
            made = self.once(make, id(operation), self.half)
            words |= zip((matvec.ADVANCES, matvec.BLOCKS, matvec.STARTS), made, strict=True)
        self.table.add(kernel, chunks, words)

    # -- the rest ------------------------------------------------------------------------------------------------

    def pool(self, operation: Pool, step: Step) -> None:
        x, out = step.x.planes, step.out.planes
        chunks, words = self.output(step.out)
        words |= self.source(step.x, -operation.padding[0], -operation.padding[1])
        own = (k.KERNEL_ROWS, k.KERNEL_COLS, k.STRIDE_ROWS, k.STRIDE_COLS, k.DILATION)
        words |= zip(own, (*operation.kernel, *operation.stride, operation.dilation), strict=True)
        if operation.kind == "max":
            border = lanes(np.where(x.inside(), 0.0, -np.inf))
            start = x.at(-operation.padding[0], -operation.padding[1])
            words |= {k.BORDER: self.table.address(border) + start, k.KEEP: inside(out)}
            words[k.EDGES] = edges(operation, border, x, out)
            self.table.add(k.max_pool, chunks, words)
        else:
            words[k.BORDER] = shares(operation, x, out)
            self.table.add(k.average_pool, chunks, words)

    def mean(self, step: Step) -> None:
        chunks, words = self.output(step.out)
        words |= self.source(step.x) | {k.BORDER: np.full(LANES, 1 / math.prod(step.x.size), np.float32)}
        self.table.add(k.mean, chunks, words)

    def sum(self, activation: str, step: Step) -> None:
        flat = step.x.whole.layout is None  # plain features lie side by side: one row of vectors, in one chunk
        chunks, words = self.output(step.out, activation, np.array([0, 1], np.int32) if flat else None)
        if flat:
            words |= {k.ROWS: 1, k.COLS: -(-step.x.channels // LANES)}
        words |= self.source(step.x) | self.added(step.add, k.ADD)
        words |= zip((k.SCALE_LOW, k.SCALE_HIGH), _limits(activation), strict=True)
        self.table.add(k.total, chunks, words)
