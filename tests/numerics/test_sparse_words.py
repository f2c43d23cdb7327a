"""Each loop that packs words, beside the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from sparsight.numerics.kernels import sparse_words as kernels

LAYOUTS = [(8, 52, 11), (4, 23, 8), (2, 10, 5), (2, 7, 8), (8, 63, 0), (4, 31, 0), (2, 15, 0), (1, 7, 0)]
SIZES = [0, 1, 2, 7, 8, 9, 2047, 2048, 2049, 5001]


def drawn(bytes_: int, size: int, share: float, seed: int = 0) -> np.ndarray:
    """Random words, of which about `share` are not 0."""
    draw = np.random.default_rng([seed, size])
    words = draw.integers(1, 1 << (8 * bytes_), size, f"u{bytes_}", endpoint=False)
    return words * (draw.random(size) < share).astype(words.dtype)


def gaps_of(words: np.ndarray) -> list[int]:
    found = []
    for gap in np.diff(np.concatenate([[-1], np.flatnonzero(words)])) - 1:
        found += [255] * (int(gap) // 255) + [int(gap) % 255]
    return found


def rests(words: np.ndarray, low: int, width: int) -> list[int]:
    return [(int(w) & ((1 << low) - 1)) | (int(w) >> (low + width)) << low for w in words]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.3, 1.0])
@pytest.mark.parametrize("bytes_", [1, 2, 4, 8])
def test_words_and_their_gaps(bytes_, size, share):
    words = drawn(bytes_, size, share)
    n = int(np.count_nonzero(words))
    assert kernels.count(words) == n
    values, gaps = np.empty(n + 1, words.dtype), np.empty(n + size // 255 + 1, np.uint8)
    gaps = gaps[: kernels.compact(words, values, gaps)]
    values = values[:-1]
    assert values.tolist() == words[words != 0].tolist()
    assert gaps.tolist() == gaps_of(words)
    places, out = np.empty(n, np.uint32), np.ones_like(words)
    assert kernels.walk(gaps, size, places)
    assert places.tolist() == np.flatnonzero(words).tolist()
    kernels.spread(places, values, out)
    assert out.tolist() == words.tolist()
    again, bits = np.empty(n + 1, np.uint32), np.packbits(words != 0, bitorder="little")
    assert kernels.find(bits, size, again)
    assert again[:-1].tolist() == places.tolist()


@pytest.mark.parametrize("gaps", [[0, 3], [255, 255, 0, 0], [0, 0, 0], [254, 254], [255] * 3])
def test_gaps_that_do_not_fit_are_refused(gaps):
    assert not kernels.walk(np.array(gaps, np.uint8), 4, np.empty(2, np.uint32))


@pytest.mark.parametrize(("bits", "size"), [([3], 1), ([7], 8), ([1], 8), ([1, 128], 15)])
def test_bits_that_do_not_fit_are_refused(bits, size):
    assert not kernels.find(np.array(bits, np.uint8), size, np.empty(3, np.uint32))


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize(("bytes_", "low", "width"), LAYOUTS)
def test_words_are_taken_apart_and_put_together(bytes_, low, width, size):
    values = drawn(bytes_, size, 1.0)
    planes = np.empty((-(-(8 * bytes_ - width) // 8), size), np.uint8)
    kernels.split(values, low, width, planes)
    wanted = rests(values, low, width)
    assert [sum(int(p[i]) << (8 * b) for b, p in enumerate(planes)) for i in range(size)] == wanted
    nibbles = np.empty((size + 1) // 2 if width else 0, np.uint8)
    table = escapes = np.empty(0, np.uint16)
    if width:
        exponents = [(int(v) >> low) & ((1 << width) - 1) for v in values]
        counts = np.zeros(1 << width, np.int64)
        kernels.histogram(values, low, counts)
        assert counts.tolist() == np.bincount(exponents, minlength=1 << width).tolist()
        table = np.array(sorted(set(exponents))[:3], np.uint16)
        ranks = np.full(1 << width, kernels.ESCAPE, np.uint8)
        ranks[table] = np.arange(len(table), dtype=np.uint8)
        rare = [e for e in exponents if e not in table]
        escapes = np.empty(len(rare), np.uint16)
        assert kernels.ranked(values, low, ranks, nibbles, escapes) == len(rare)
        assert escapes.tolist() == rare
        halves = [half for n in nibbles.tolist() for half in (n & 15, n >> 4)][:size]
        assert halves == ranks[exponents].tolist()
    out = np.empty_like(values)
    assert kernels.join(nibbles, table, escapes, planes, low, out)
    assert out.tolist() == values.tolist()


class TestWordsThatAreRefused:
    planes = np.array([[1, 2, 3]], np.uint8)  # bfloat16: sign and mantissa
    table = np.array([127], np.uint16)

    def refused(self, nibbles, escapes=(), planes=None, table=None) -> bool:
        planes = self.planes if planes is None else np.array([planes], np.uint8)
        table = self.table if table is None else np.array(table, np.uint16)
        out = np.empty(3, np.uint16)
        return not kernels.join(np.array(nibbles, np.uint8), table, np.array(escapes, np.uint16), planes, 7, out)

    def test_what_is_right_is_not(self):
        assert not self.refused([0, 0])
        assert not self.refused([0xF0, 0], [12])

    def test_a_rank_without_an_exponent(self):
        assert self.refused([1, 0])
        assert self.refused([0, 7])

    def test_too_few_and_too_many_escapes(self):
        assert self.refused([0xFF, 0], [12])
        assert self.refused([0, 0], [12])

    def test_half_a_byte_too_many(self):
        assert self.refused([0, 0x10])

    def test_a_word_that_is_zero(self):
        assert self.refused([0, 0], planes=[1, 0, 3], table=[0])
