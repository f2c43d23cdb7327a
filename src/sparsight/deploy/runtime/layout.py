"""The memory layout of an activation: planes of vectors of 16 lanes.

With images as lanes, a vector holds one pixel of 16 images. For a single image, its plane is cut into a grid of blocks,
and a vector holds one pixel of each block: every tap of a convolution is then a whole, aligned vector. Each block has a
halo of its neighbours' pixels, zero beyond the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsight.numerics.kernels.llvm import BYTES

Pair = tuple[int, int]
GRIDS = ((4, 4), (8, 2), (2, 8), (16, 1), (1, 16))
IMAGES = (1, 1)
_SETS = 64  # lines between addresses that share a set of the L1 cache
_CLEAR = 1.1  # an existing layout with up to this many times the minimum waste is good enough


@dataclass(frozen=True)
class Layout:
    """Image size, grid of blocks (`IMAGES`: lanes are images), pixels of a block, and width of the halo around it."""

    size: Pair
    grid: Pair
    block: Pair
    halo: int = 0

    @property
    def pitch(self) -> int:
        """Bytes from line to line."""
        return BYTES * (self.block[1] + 2 * self.halo)

    @property
    def plane(self) -> int:
        """Bytes from channel to channel, padded if all planes would share the same cache sets."""
        vectors = (self.pitch // BYTES) * (self.block[0] + 2 * self.halo)
        return BYTES * (vectors if vectors % _SETS else vectors + 5)

    def at(self, row: int, col: int) -> int:
        """Bytes from a channel's start to a pixel of the block."""
        return (row + self.halo) * self.pitch + (col + self.halo) * BYTES

    @property
    def bare(self) -> Layout:
        return replace(self, halo=0)

    @property
    def covers(self) -> bool:
        """Whether every pixel is in a block: a window may leave the last ones to the halo."""
        return all(g * b >= n for g, b, n in zip(self.grid, self.block, self.size, strict=True)) or self.grid == IMAGES

    @property
    def waste(self) -> float:
        """Computed lanes per pixel of the image; 1 without waste."""
        return float(np.prod(self.grid) * np.prod(self.block) / np.prod(self.size))

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in the image of each lane of each vector, halo included: (rows, cols, lanes of the grid)."""
        (gr, gc), (br, bc), h = self.grid, self.block, self.halo
        lanes = np.arange(gr * gc)
        rows = (lanes // gc) * br + np.arange(-h, br + h)[:, None, None]
        cols = (lanes % gc) * bc + np.arange(-h, bc + h)[None, :, None]
        shape = (br + 2 * h, bc + 2 * h, gr * gc)
        return np.broadcast_to(rows, shape), np.broadcast_to(cols, shape)

    def inside(self) -> np.ndarray:
        """Which lanes are inside the image: (rows, cols, lanes)."""
        rows, cols = self.pixels()
        return (rows >= 0) & (rows < self.size[0]) & (cols >= 0) & (cols < self.size[1])


def covering(size: Pair, grid: Pair) -> Layout:
    """The smallest blocks of a grid that cover an image."""
    rows, cols = (-(-n // g) for n, g in zip(size, grid, strict=True))
    return Layout(size, grid, (rows, cols))


def for_window(size: Pair, stride: Pair, x: Layout | None) -> Layout:
    """The layout of a window operation's result: on x's grid if that wastes little, otherwise on the best one."""
    best = min((covering(size, grid) for grid in GRIDS), key=lambda layout: layout.waste)
    if x is None or x.block[0] % stride[0] or x.block[1] % stride[1]:
        return best
    same = Layout(size, x.grid, (x.block[0] // stride[0], x.block[1] // stride[1]))
    return same if same.covers and same.waste <= _CLEAR * best.waste else best
