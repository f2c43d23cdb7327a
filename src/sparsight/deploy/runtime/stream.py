"""A weight's nonzeros in the order in which kernels read them, and the division of its work into tiles and chunks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sparsight.deploy.runtime.layout import Layout
from sparsight.deploy.runtime.weight import Weight
from sparsight.numerics.kernels.jit import has
from sparsight.numerics.kernels.llvm import BYTES
from sparsight.numerics.kernels.matvec import bfloat16
from sparsight.numerics.kernels.walk import aligned

_LAST = 2**31 - 1
_ENOUGH = 6  # nonzeros of a row in a block: fewer would not repay moving its sums


@dataclass(frozen=True)
class Machine:
    """Vectors of 16 lanes that fit into registers, and bytes of a core's L1 cache."""

    vectors: int
    cache: int


@cache
def machine() -> Machine:
    try:
        size = Path("/sys/devices/system/cpu/cpu0/cache/index0/size").read_text().strip()
        first = int(size.removesuffix("K")) * 1024
    except (OSError, ValueError):
        first = 32 * 1024
    return Machine(14 if has("avx512f") else 6, first)


@dataclass(frozen=True, eq=False)
class Stream:
    """Nonzeros in runs, one for each row in each block of input channels.

    They are offsets and weights (n, 2) int32, or words (n) of an offset from the block and a bfloat16 weight.

    Runs of a block and part are sorted by length, because the processor predicts loops of equal length. `order` has the
    row of each run, `starts` its first nonzero.
    """

    nonzeros: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    blocks: int


def stream(
    weight: Weight, groups: int, x: Layout, dilation: tuple[int, int], block: int, cuts: np.ndarray, half: bool = False
) -> Stream:
    """The stream of a weight (out, in / groups, height, width), its rows cut into parts.

    Raises:
        ValueError: the input's planes take over 2 GiB.
    """
    rows, channels, width = len(weight), weight.shape[1] * groups, weight.shape[3]
    if channels * x.plane > _LAST:
        raise ValueError(f"{channels} channels of {x.size} pixels take over 2 GiB")
    row, channel, tap = weight.taken_apart(groups)
    blocks = max(1, -(-channels // block))
    counts = np.bincount((channel // block) * rows + row, minlength=blocks * rows).reshape(blocks, rows)
    part = np.searchsorted(cuts, np.arange(rows), side="right") - 1
    ordered = np.lexsort((np.broadcast_to(np.arange(rows), counts.shape), counts, np.broadcast_to(part, counts.shape)))
    rank = np.empty_like(ordered)
    np.put_along_axis(rank, ordered, np.arange(rows)[None, :], 1)
    run = (channel // block) * rows + rank[channel // block, row]
    order = np.argsort(run, kind="stable")
    taps = (tap // width) * (dilation[0] * x.pitch) + (tap % width) * (dilation[1] * BYTES)
    if half:
        nonzeros = aligned(4 * len(order)).view(np.uint32)
        offset = ((channel % block) * x.plane + taps) // BYTES
        nonzeros[:] = (offset[order].astype(np.uint32) << 16) | bfloat16(weight.values[order])
    else:
        nonzeros = aligned(8 * len(order)).view(np.int32).reshape(-1, 2)
        nonzeros[:, 0] = (channel * x.plane + taps)[order]
        nonzeros[:, 1] = weight.values[order].view(np.int32)
    starts = np.zeros(blocks * rows + 1, np.int32)
    np.cumsum(np.take_along_axis(counts, ordered, 1).reshape(-1), out=starts[1:])
    return Stream(nonzeros, starts, (ordered - cuts[part][None, :]).astype(np.int32), blocks)


def fits_words(x: Layout, block: int) -> bool:
    """Whether offsets within a block of this many channels fit into 16 bits."""
    return block * x.plane // BYTES <= 2**16


def evenly(n: int, most: int) -> list[int]:
    """n in as few parts of at most `most` as possible, as equal as possible."""
    parts = -(-n // most)
    return [n // parts + (i < n % parts) for i in range(parts)]


def tiles(block: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """First row, first column, rows and columns of the tiles of an output block."""
    most = machine().vectors
    cols = evenly(block[1], min(7, most))
    rows = evenly(block[0], max(1, most // cols[0]))
    first = np.cumsum([0, *rows])
    left = np.cumsum([0, *cols])
    return [(int(first[i]), int(left[j]), r, c) for i, r in enumerate(rows) for j, c in enumerate(cols)]


def sets(vectors: int) -> int:
    """Nonzeros to process at once, so a tile of few vectors does not wait for its own sums."""
    return 8 if vectors == 1 else 4 if vectors <= 3 else 2 if vectors < 7 else 1


def channels_at_once(weight: Weight, tile: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> int:
    """Input channels with a part under a tile that fits into the L1 cache."""
    kernel = weight.shape[2:]
    lines = [(t - 1) * s + d * (k - 1) + 1 for t, s, d, k in zip(tile, stride, dilation, kernel, strict=True)]
    share = 1.5 if lines[0] == 1 else 1.1  # consecutive lines are prefetched
    fitting = int(share * machine().cache) // (BYTES * lines[0] * lines[1])
    return max(1, fitting, int(_ENOUGH / max(weight.density * kernel[0] * kernel[1], 1e-3)))


def bounds(work: np.ndarray, parts: int) -> np.ndarray:
    """Where to cut channels into parts of about the same work (int32)."""
    total = np.concatenate([[0], np.cumsum(work.astype(np.float64) + 1)])
    cuts = np.searchsorted(total, total[-1] * np.arange(1, parts) / parts)
    return np.concatenate([[0], cuts, [len(work)]]).astype(np.int32)
