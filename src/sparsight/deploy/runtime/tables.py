"""The table of operations for the compiled loop, and the arrays that operations read besides weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparsight.deploy.runtime.graph import Pool
from sparsight.deploy.runtime.layout import IMAGES, Layout
from sparsight.deploy.runtime.plan import Buffer
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.vectors_llvm import STRIP
from sparsight.numerics.kernels.walk import aligned_copy

Pixels = tuple[tuple[int, ...], tuple[int, ...]]
"""Lines and columns."""

ALL = 2**LANES - 1
"""Bits of all lanes."""

Words = dict[int, int | float | np.ndarray]
"""An operation's words by their numbers. A float stands for the bits of its float32, an array for its address."""

ARENA = 1
"""Slot of the arena; inputs and outputs follow, and 0 means none."""


@dataclass
class Table:
    """Operations as (kernel's address, chunks, address of its words), and the arrays they point to."""

    rows: list[tuple[int, int, int]] = field(default_factory=list)
    keep: list[Any] = field(default_factory=list)
    scratch: int = 4096  # bytes per thread

    def address(self, array: np.ndarray) -> int:
        """The address of an array aligned to a cache line, copied if necessary."""
        if not array.flags.c_contiguous or array.ctypes.data % BYTES:
            array = aligned_copy(array)
        self.keep.append(array)
        return array.ctypes.data

    def add(self, kernel: Any, chunks: int, words: Words) -> None:
        values = np.zeros(40, np.int64)
        for number, value in words.items():
            if isinstance(value, np.ndarray):
                value = self.address(value)
            values[number] = np.float32(value).view(np.int32) if isinstance(value, float) else value
        self.keep.append(kernel)
        self.rows.append((kernel.address, chunks, self.address(values)))


@dataclass(frozen=True)
class Place:
    """A buffer's place: slot, offset of its first channel, bytes from group to group and from channel to channel."""

    slot: int
    at: int
    group: int
    row: int


def inside(layout: Layout) -> np.ndarray:
    """For each vector of a block, the bits of the lanes inside the image, (rows, cols) uint16."""
    inside = layout.bare.inside()
    if layout.grid == IMAGES:
        return np.full(inside.shape[:2], ALL, np.uint16)
    return (inside * (1 << np.arange(LANES))).sum(2).astype(np.uint16)


def lanes(values: np.ndarray) -> np.ndarray:
    """Float32 vectors of 16 lanes; one lane stands for all if lanes are images."""
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], LANES)).astype(np.float32))


def edges(operation: Pool, border: np.ndarray, x: Layout, out: Layout) -> np.ndarray:
    """Whether each vector of a block has any lane with a tap beyond the image, (rows, cols) int32."""
    top, left = (x.halo - padding for padding in operation.padding)
    span = [operation.dilation * (n - 1) + 1 for n in operation.kernel]
    (down, right), apart = operation.stride, operation.dilation
    windows = sliding_window_view(np.any(border < 0, axis=2)[top:, left:], span)
    rows, cols = out.block
    return np.max(windows[::down, ::right, ::apart, ::apart], axis=(2, 3))[:rows, :cols].astype(np.int32)


def shares(operation: Pool, x: Layout, out: Layout) -> np.ndarray:
    """1 / how many pixels count in each window's mean; 0 for lanes beyond the image."""
    rows, cols = out.bare.pixels()
    counts = []
    for at, size, kernel, stride, padding in zip(
        (rows, cols), x.size, operation.kernel, operation.stride, operation.padding, strict=True
    ):
        first = at * stride - padding
        most = size + padding if operation.padded else size
        least = -padding if operation.padded else 0
        counts.append(np.clip(first + kernel, least, most) - np.clip(first, least, most))
    count = counts[0] * counts[1]
    return lanes(np.where(out.bare.inside() & (count > 0), 1 / np.maximum(count, 1), 0.0))


def _elements(b: Buffer) -> np.ndarray:
    """The index of each pixel in a channel, in floats: (height, width); with images as lanes, for the first image."""
    h, w = b.size
    if not b.in_planes:
        return np.arange(h * w).reshape(h, w)
    layout = b.planes
    assert layout.covers
    rows, cols = layout.bare.pixels()
    inside = layout.bare.inside()
    i, j, lane = np.ogrid[tuple(map(slice, inside.shape))]
    found = np.empty((h, w), np.int64)
    found[rows[inside], cols[inside]] = (layout.at(0, 0) // 4 + i * (layout.pitch // 4) + j * LANES + lane)[inside]
    return found


def index_of(x: Buffer, out: Buffer, pixels: Pixels | None) -> np.ndarray:
    """For each float of an output plane, its index in the input plane, or -1 (int32)."""
    index = _elements(x)
    if pixels is not None:
        rows, cols = np.array(pixels[0])[:, None], np.array(pixels[1])[None, :]
        index = np.where((rows >= 0) & (cols >= 0), index[rows, cols], -1)
    if out.in_planes and out.size == index.shape:
        rows, cols = out.planes.pixels()
        inside, elements = out.planes.inside(), index
        index = np.full(inside.shape, -1, np.int64)
        index[inside] = elements[rows[inside], cols[inside]]
    index = index.reshape(-1, 1)
    if x.in_planes and x.planes.grid == IMAGES:
        index = np.where(index >= 0, index + np.arange(LANES), -1)
    return index.reshape(-1).astype(np.int32)


def strips_of(layout: Layout, inward: bool) -> np.ndarray:
    """Strips of up to 16 vectors of a plane, with its halo if they are written (inward), each with its lanes' rows."""
    halo = layout.halo if inward else 0
    (br, bc), (h, w) = layout.block, layout.size
    firsts = range(-halo, bc + halo, LANES)
    table = np.zeros((br + 2 * halo, len(firsts), STRIP), np.int32)
    bits = table.view(np.uint16)[..., 2 * (2 + LANES) :]
    lane = np.arange(LANES)
    top, left = lane // layout.grid[1] * br, lane % layout.grid[1] * bc
    for i in range(-halo, br + halo):
        for j, first in enumerate(firsts):
            count = min(LANES, bc + halo - first)
            rows, cols = top + i, (left + first)[:, None] + np.arange(LANES)
            there = (cols >= 0) & (cols < w) & (np.arange(LANES) < count) & ((rows >= 0) & (rows < h))[:, None]
            strip = table[i + halo, j]
            strip[0], strip[1] = layout.at(i, first), count
            strip[2 : 2 + LANES] = 4 * (rows * w + left + first)
            bits[i + halo, j] = (there * (1 << np.arange(LANES))).sum(1)
    return table.reshape(-1, STRIP)
