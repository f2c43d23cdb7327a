"""The words that operations share: places of buffers, division into chunks, finishing of planes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sparsight.deploy.runtime import stream as streams
from sparsight.deploy.runtime.layout import IMAGES, Layout
from sparsight.deploy.runtime.plan import Buffer, Plan
from sparsight.deploy.runtime.tables import ARENA, Place, Table
from sparsight.numerics.kernels import planes as k

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

    def output(self, b: Buffer, activation: str = "", cuts: np.ndarray | None = None) -> tuple[int, dict[int, int]]:
        """Chunks, and the first words of every operation."""
        place = self.place(b)
        cuts = self.cuts(b.channels) if cuts is None else cuts
        parts = len(cuts) - 1
        words = {k.OUT: place.slot, k.OUT_AT: place.at, k.OUT_GROUP: place.group, k.OUT_ROW: place.row}
        words |= {k.PARTS: parts, k.BOUNDS: self.table.address(cuts)}
        if activation not in k.CLAMPS:
            words[k.ACTIVATE] = k.activation(activation).address
        if b.whole.rows is None and b.whole.layout is not None:
            layout = b.planes
            words[k.OUT_AT] += layout.at(0, 0)
            words |= {k.OUT_PITCH: layout.pitch, k.ROWS: layout.block[0], k.COLS: layout.block[1]}
            if layout.halo:
                words |= {k.HALO: layout.halo, k.FILL: self.halo(layout).address}
        return parts * self.plan.groups, words

    def halo(self, layout: Layout) -> Any:
        return k.halo(0 if layout.grid == IMAGES else layout.grid[1])

    def source(self, b: Buffer, row: int = 0, col: int = 0) -> dict[int, int]:
        place = self.place(b)
        words = {k.X: place.slot, k.X_AT: place.at, k.X_GROUP: place.group, k.X_ROW: place.row}
        if b.whole.rows is None and b.whole.layout is not None:
            layout = b.planes
            words[k.X_AT] += layout.at(row, col)
            words |= {k.X_PITCH: layout.pitch, k.X_ROWS: layout.block[0], k.X_COLS: layout.block[1]}
        return words

    def added(self, b: Buffer | None, first: int) -> dict[int, int]:
        """Five words, from `first` on: the place of the tensor to add, if any."""
        words = {} if b is None else self.source(b)
        return {first + i: words.get(n, 0) for i, n in enumerate((k.X, k.X_AT, k.X_GROUP, k.X_ROW, k.X_PITCH))}

    def once(self, make: Callable[[], Any], *what: Any) -> Any:
        """The result of `make`, cached for other programs."""
        if what not in self.weights:
            self.weights[what] = make()
        return self.weights[what]
