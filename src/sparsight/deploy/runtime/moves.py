"""Converts activations between layouts: torch's rows, blocks of one image, lanes of images, single features."""

from __future__ import annotations

import math

from sparsight.deploy.runtime.plan import Buffer
from sparsight.deploy.runtime.tables import Pixels, index_of, strips_of
from sparsight.deploy.runtime.writer import Writer
from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels import rows as lines
from sparsight.numerics.kernels.llvm import LANES


def move(writer: Writer, x: Buffer, out: Buffer, pixels: Pixels | None = None) -> None:
    """From layout to layout, taking each pixel from itself or from another one."""
    if writer.plan.images > 1 and (x.whole.rows is not None or out.whole.rows is not None):
        _rows(writer, x, out)
        return
    if writer.plan.images == 1 and pixels is None and math.prod(x.size) >= LANES and _strips(writer, x, out):
        return
    index = index_of(x, out, pixels)
    channels = min(x.channels, out.channels)
    place = writer.place(out)
    cuts = writer.cuts(channels)
    parts = len(cuts) - 1
    row = place.row if x.channels == out.channels else place.row * (out.channels // x.channels)
    words = {k.OUT: place.slot, k.OUT_AT: place.at, k.OUT_GROUP: place.group, k.OUT_ROW: row}
    words |= {k.PARTS: parts, k.BOUNDS: writer.table.address(cuts)}
    words |= {k.INDEX: writer.table.address(index), k.COUNT: len(index)}
    source = writer.place(x)
    words |= {k.X: source.slot, k.X_AT: source.at, k.X_GROUP: source.group, k.X_ROW: source.row}
    writer.table.add(k.gather, parts * writer.plan.groups, words)


def _strips(writer: Writer, x: Buffer, out: Buffer) -> bool:
    """Between rows and blocks of one image, if that is the conversion."""
    rows = [b.whole.rows is not None or b.whole.layout is None for b in (x, out)]
    if rows[0] == rows[1]:
        return False
    blocks = out.planes if rows[0] else x.planes
    table = strips_of(blocks, inward=rows[0])
    cuts, place, source = writer.cuts(x.channels), writer.place(out), writer.place(x)
    row = place.row * out.channels // x.channels if not rows[0] else place.row
    words = {k.OUT: place.slot, k.OUT_AT: place.at, k.OUT_GROUP: place.group, k.OUT_ROW: row}
    words |= {k.PARTS: len(cuts) - 1, k.BOUNDS: writer.table.address(cuts)}
    words |= {k.X: source.slot, k.X_AT: source.at, k.X_GROUP: source.group, k.X_ROW: source.row}
    words |= {lines.STRIPS: writer.table.address(table), lines.STRIP_COUNT: len(table)}
    writer.table.add(lines.to_blocks if rows[0] else lines.from_blocks, len(cuts) - 1, words)
    return True


def _rows(writer: Writer, x: Buffer, out: Buffer) -> None:
    """Between torch's rows of images and lanes of images."""
    inward = x.whole.rows is not None
    flat = int(out.size == (1, 1))
    chunks, words = writer.output(out)
    words |= writer.source(x)
    words |= {lines.IMAGE: 4 * x.channels * math.prod(x.size), lines.IMAGES: writer.plan.images}
    words |= {lines.WIDE: writer.plan.wide, lines.FLAT: flat}
    if not inward:
        words[k.OUT_GROUP] = 0
    elif not flat:
        words[k.COLS] = out.size[1]
    writer.table.add(lines.to_lanes if inward else lines.from_lanes, chunks, words)
