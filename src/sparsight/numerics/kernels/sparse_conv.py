"""A chunk of a sparse convolution or linear layer: some output channels of one group of images, tile by tile.

Channels are planes of vectors of 16 lanes (`deploy.runtime.layout`). The loops, outermost first: tiles, blocks of input
channels, output channels. A block's planes stay in the L1 cache while every row of the chunk reads them.
"""

from __future__ import annotations

from numba import cfunc

from sparsight.numerics.kernels import planes as k
from sparsight.numerics.kernels import tile
from sparsight.numerics.kernels.calls import call, put, word
from sparsight.numerics.kernels.jit import cached
from sparsight.numerics.kernels.planes import OPERATION, chunk_of, finish, input_of

SUMS = 256  # bytes of scratch before the partial sums: the words of a tile's job
assert 8 * tile.WORDS <= SUMS

# BASE: bytes between blocks of x, 0 if offsets count from the first one. KEEP: lanes in the image, 16 bits per vector.
STREAM, STARTS, ORDER, CHANNELS, BLOCKS, BIAS, KEEP, KEEP_PITCH, TILES, TILE_COUNT, BASE = range(k.MORE, k.MORE + 11)
TILE = 5  # words of a tile: its kernel's address, then offsets in x, out, add and keep


@cached(cfunc, OPERATION)
def conv(op, slots, scratch, chunk):
    group, begin, end, out = chunk_of(op, slots, chunk)
    channels, blocks, tiles = word(op, CHANNELS), word(op, BLOCKS), word(op, TILES)
    x, add_row = input_of(op, slots, group, 0), word(op, k.ADD_ROW)
    add = word(slots, word(op, k.ADD)) + word(op, k.ADD_AT) + group * word(op, k.ADD_GROUP) + begin * add_row
    put(scratch, tile.PITCH, word(op, k.X_PITCH))
    put(scratch, tile.STREAM, word(op, STREAM))
    put(scratch, tile.COUNT, end - begin)
    put(scratch, tile.SCRATCH, scratch + SUMS)
    put(scratch, tile.BIAS, word(op, BIAS) + 4 * begin)
    put(scratch, tile.OUT_ROW, word(op, k.OUT_ROW))
    put(scratch, tile.OUT_PITCH, word(op, k.OUT_PITCH))
    put(scratch, tile.ADD_ROW, add_row)
    put(scratch, tile.ADD_PITCH, word(op, k.ADD_PITCH))
    put(scratch, tile.LOW, word(op, k.LOW))
    put(scratch, tile.HIGH, word(op, k.HIGH))
    put(scratch, tile.KEEP_PITCH, word(op, KEEP_PITCH))
    for t in range(word(op, TILE_COUNT)):
        at = TILE * t
        put(scratch, tile.OUT, out + word(tiles, at + 2))
        put(scratch, tile.ADD, add + word(tiles, at + 3) if word(op, k.ADD) else 0)
        put(scratch, tile.KEEP, word(op, KEEP) + word(tiles, at + 4))
        for block in range(blocks):
            put(scratch, tile.X, x + word(tiles, at + 1) + block * word(op, BASE))
            put(scratch, tile.STARTS, word(op, STARTS) + 4 * (block * channels + begin))
            put(scratch, tile.ORDER, word(op, ORDER) + 4 * (block * channels + begin))
            put(scratch, tile.FIRST, block == 0)
            put(scratch, tile.LAST, block == blocks - 1)
            call(word(tiles, at), (scratch,))
    finish(op, out, end - begin)
