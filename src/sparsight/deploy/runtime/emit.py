"""Turns the steps of a plan into the table of operations for the compiled loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from sparsight.deploy.runtime import stream as streams
from sparsight.deploy.runtime import tables
from sparsight.deploy.runtime.graph import Conv, Mean, Pool, Resample, Sum
from sparsight.deploy.runtime.layout import IMAGES
from sparsight.deploy.runtime.plan import Buffer, Plan, Step
from sparsight.deploy.runtime.tables import ARENA, Pixels, Place, Table, Words
from sparsight.numerics.kernels import matvec
from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels import rows as lines
from sparsight.numerics.kernels import sparse_conv as conv
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.tile import tile

Weights = dict[tuple[Any, ...], Any]
"""Prepared weights, by their source."""

_SUMS = 18 << 14  # at most this many bytes of partial sums in a chunk: each block passes over them once


@dataclass
class Emitter:
    """Writes a plan's operations, step by step. Buffers are at `addresses` in the arena, by identity.

    `half`: weights are stored in bfloat16.
    """

    plan: Plan
    addresses: dict[int, int]
    weights: Weights
    half: bool = False
    table: Table = field(default_factory=Table)

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
        bits = tables.inside(out)
        masked = int(not (bits == tables.ALL).all())
        words |= self.source(step.x, -operation.padding[0], -operation.padding[1])
        words |= {conv.STREAM: made.nonzeros, conv.STARTS: made.starts, conv.ORDER: made.order}
        words |= {conv.BASE: block * x.plane if half else 0, conv.BLOCKS: made.blocks, conv.CHANNELS: weight.shape[0]}
        words |= {conv.BIAS: operation.bias.astype(np.float32), conv.KEEP: bits, conv.KEEP_PITCH: 2 * bits.shape[1]}
        words |= self.added(step.add, operation.activation)
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
        words |= self.added(step.add, operation.activation)
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
            border = tables.lanes(np.where(x.inside(), 0.0, -np.inf))
            start = x.at(-operation.padding[0], -operation.padding[1])
            words |= {k.BORDER: self.table.address(border) + start, k.KEEP: tables.inside(out)}
            words[k.EDGES] = tables.edges(operation, border, x, out)
            self.table.add(k.max_pool, chunks, words)
        else:
            words[k.BORDER] = tables.shares(operation, x, out)
            self.table.add(k.average_pool, chunks, words)

    def mean(self, step: Step) -> None:
        chunks, words = self.output(step.out)
        words |= self.source(step.x) | {k.BORDER: np.full(LANES, 1 / math.prod(step.x.size), np.float32)}
        self.table.add(k.mean, chunks, words)

    def sum(self, activation: str, step: Step) -> None:
        flat = step.x.whole.layout is None  # plain features are adjacent: one row of vectors, in one chunk
        chunks, words = self.output(step.out, activation, np.array([0, 1], np.int32) if flat else None)
        if flat:
            words |= {k.ROWS: 1, k.COLS: -(-step.x.channels // LANES)}
        words |= self.source(step.x) | self.added(step.add, activation)
        self.table.add(k.total, chunks, words)

    # -- changes of layout ---------------------------------------------------------------------------------------

    def move(self, x: Buffer, out: Buffer, pixels: Pixels | None = None) -> None:
        """Convert x to the layout of out, taking each pixel from itself or another one.

        Layouts are torch's rows, blocks of one image, lanes of images, and single features.
        """
        images = self.plan.images
        if images > 1 and (x.whole.rows is not None or out.whole.rows is not None):
            self._move_rows(x, out)
            return
        place, cuts = self.place(out), self.cuts(x.channels)
        words: Words = {k.OUT: place.slot, k.OUT_AT: place.at, k.OUT_GROUP: place.group}
        words |= {k.OUT_ROW: place.row * (out.channels // x.channels), k.PARTS: len(cuts) - 1, k.BOUNDS: cuts}
        words |= self.source(x) | {k.X_AT: self.place(x).at}  # whole planes, with their halo
        if images == 1 and pixels is None and math.prod(x.size) >= LANES and x.in_planes != out.in_planes:
            table = tables.strips_of(x.planes if x.in_planes else out.planes, inward=out.in_planes)
            words |= {lines.STRIPS: table, lines.STRIP_COUNT: len(table)}
            kernel = lines.to_blocks if out.in_planes else lines.from_blocks
        else:
            index = tables.index_of(x, out, pixels)
            words |= {k.INDEX: index, k.COUNT: len(index)}
            kernel = k.gather
        self.table.add(kernel, (len(cuts) - 1) * self.plan.groups, words)

    def _move_rows(self, x: Buffer, out: Buffer) -> None:
        """Convert between torch's rows of images and lanes of images."""
        inward, flat = x.whole.rows is not None, int(out.size == (1, 1))
        chunks, words = self.output(out)
        words |= self.source(x)
        words |= {lines.IMAGE: 4 * x.channels * math.prod(x.size), lines.IMAGES: self.plan.images}
        words |= {lines.WIDE: self.plan.wide, lines.FLAT: flat}
        if not inward:
            words[k.OUT_GROUP] = 0
        elif not flat:
            words[k.COLS] = out.size[1]
        self.table.add(lines.to_lanes if inward else lines.from_lanes, chunks, words)

    # -- words common to operations ------------------------------------------------------------------------------

    def place(self, b: Buffer) -> Place:
        whole = b.whole
        if whole.rows is not None:
            pixels = 4 * math.prod(b.size)
            return Place(ARENA + 1 + whole.rows, 0, 0, pixels)
        row = 4 if whole.layout is None else whole.layout.plane
        return Place(ARENA, self.addresses[id(whole)] + b.first * row, whole.channels * row, row)

    def cuts(self, channels: int, work: np.ndarray | None = None, least: int = 1) -> np.ndarray:
        """Where to cut a group's channels into at least `least` chunks of about the same work (int32)."""
        threads = torch.get_num_threads()
        parts = 1 if threads == 1 else -(-2 * threads // self.plan.groups)
        return streams.bounds(np.ones(channels) if work is None else work, min(channels, max(parts, least)))

    def output(self, b: Buffer, activation: str = "", cuts: np.ndarray | None = None) -> tuple[int, Words]:
        """Chunks, and the first words of every operation."""
        place = self.place(b)
        cuts = self.cuts(b.channels) if cuts is None else cuts
        words: Words = {k.OUT: place.slot, k.OUT_AT: place.at, k.OUT_GROUP: place.group, k.OUT_ROW: place.row}
        words |= {k.PARTS: len(cuts) - 1, k.BOUNDS: cuts}
        if activation not in k.CLAMPS:
            words[k.ACTIVATE] = k.activation(activation).address
        if b.in_planes:
            layout = b.planes
            words |= {k.OUT_AT: place.at + layout.at(0, 0), k.OUT_PITCH: layout.pitch}
            words |= zip((k.ROWS, k.COLS), layout.block, strict=True)
            if layout.halo:
                words |= {k.HALO: layout.halo, k.FILL: k.halo(0 if layout.grid == IMAGES else layout.grid[1]).address}
        return (len(cuts) - 1) * self.plan.groups, words

    def source(self, b: Buffer, row: int = 0, col: int = 0) -> Words:
        place = self.place(b)
        words: Words = {k.X: place.slot, k.X_AT: place.at, k.X_GROUP: place.group, k.X_ROW: place.row}
        if b.in_planes:
            words |= {k.X_AT: place.at + b.planes.at(row, col), k.X_PITCH: b.planes.pitch}
            words |= zip((k.X_ROWS, k.X_COLS), b.planes.block, strict=True)
        return words

    def added(self, b: Buffer | None, activation: str) -> Words:
        """The place of the summand, if any, and the limits of the sum."""
        words: Words = {} if b is None else self.source(b)
        low, high = k.CLAMPS.get(activation, k.CLAMPS[""])
        return {k.LOW: low, k.HIGH: high} | {k.ADD + i: words.get(k.X + i, 0) for i in range(5)}

    def once(self, make: Callable[[], Any], *what: Any) -> Any:
        """The result of `make`, cached for other programs."""
        if what not in self.weights:
            self.weights[what] = make()
        return self.weights[what]
