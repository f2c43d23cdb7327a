"""The words that operations share: places of buffers, division into chunks, finishing of planes; changes of layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sparsight.deploy.runtime import stream as streams
from sparsight.deploy.runtime.layout import IMAGES
from sparsight.deploy.runtime.plan import Buffer, Plan
from sparsight.deploy.runtime.tables import ARENA, Pixels, Place, Table, Words, index_of, strips_of
from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels import rows as lines
from sparsight.numerics.kernels.llvm import LANES

Weights = dict[tuple[Any, ...], Any]
"""Prepared weights, by their source."""


@dataclass
class Writer:
    """What all operations of a plan need: buffers are at `addresses` in the arena, by identity.

    `half`: weights are stored in bfloat16.
    """

    plan: Plan
    addresses: dict[int, int]
    weights: Weights
    half: bool = False
    table: Table = field(default_factory=Table)

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

    def added(self, b: Buffer | None, first: int) -> Words:
        """Five words, from `first` on: the place of the tensor to add, if any."""
        words: Words = {} if b is None else self.source(b)
        return {first + i: words.get(n, 0) for i, n in enumerate((k.X, k.X_AT, k.X_GROUP, k.X_ROW, k.X_PITCH))}

    def once(self, make: Callable[[], Any], *what: Any) -> Any:
        """The result of `make`, cached for other programs."""
        if what not in self.weights:
            self.weights[what] = make()
        return self.weights[what]

    def move(self, x: Buffer, out: Buffer, pixels: Pixels | None = None) -> None:
        """From layout to layout, taking each pixel from itself or from another one.

        There are torch's rows, blocks of one image, lanes of images, and single features.
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
            table = strips_of(x.planes if x.in_planes else out.planes, inward=out.in_planes)
            words |= {lines.STRIPS: table, lines.STRIP_COUNT: len(table)}
            kernel = lines.to_blocks if out.in_planes else lines.from_blocks
        else:
            index = index_of(x, out, pixels)
            words |= {k.INDEX: index, k.COUNT: len(index)}
            kernel = k.gather
        self.table.add(kernel, (len(cuts) - 1) * self.plan.groups, words)

    def _move_rows(self, x: Buffer, out: Buffer) -> None:
        """Between torch's rows of images and lanes of images."""
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
