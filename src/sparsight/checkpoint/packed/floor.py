"""The entropy floor of a tensor: the fewest bytes that could store it if words are coded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from sparsight.checkpoint.entry import Entry
from sparsight.checkpoint.packed.chunks import Layout
from sparsight.checkpoint.packed.head import LAYOUTS
from sparsight.checkpoint.packed.write import spans_of, values_of
from sparsight.numerics.kernels import sparse_words as kernels
from sparsight.numerics.kernels.jit import each


@dataclass(frozen=True)
class Content:
    """A tensor's number of values, of nonzero values, and its floor in bytes."""

    count: int
    alive: int  # -0.0 is a zero here
    floor: float
    minus: int = 0  # zeros that are -0.0, which are stored as values


def content(entry: Entry) -> Content:
    """Count a tensor's zeros and its floor. With the empirical entropy H, d words take d H bits to tell +0.0, -0.0 and
    others apart. Each of the n others takes its sign, its mantissa, and H(exponent) bits.

    Without -0.0 the first term is d H(n/d). As in a packed file, chunks of 2^20 weights are coded separately, and a
    tensor of equal words is one word. Raises: CheckpointError for a tensor that cannot be packed.
    """
    with ExitStack() as stack:
        values, layout = values_of(entry, None, stack), LAYOUTS[entry.dtype]
        spans = spans_of(entry.count)
        found = each(lambda i: _chunk(values.words(*spans[i]), layout), len(spans))
    alike, alive, minus, bits = zip(*found, strict=True) if found else ((), (), (), ())
    if alike and alike[0] is not None and len({*alike}) == 1:
        return Content(entry.count, sum(alive), layout.size)
    return Content(entry.count, sum(alive), sum(bits) / 8, sum(minus))


def _chunk(words: np.ndarray, layout: Layout) -> tuple[int | None, int, int, float]:
    """The word if all are equal, otherwise None; the number of nonzero ones, and of -0.0; bits."""
    value = int(words[0]) if (words == words[0]).all() else None
    bits = 8 * layout.size - (layout.width > 0)  # without the sign of a float
    alive = words[(words & ((1 << bits) - 1)) != 0]
    stored, exponents = int(np.count_nonzero(words)), np.zeros(1 << layout.width, np.int64)
    if layout.width:
        kernels.histogram(alive, layout.low, exponents)
    one = 8 * layout.size - layout.width + entropy(exponents)
    which = entropy([len(words) - stored, stored - len(alive), len(alive)])
    return value, len(alive), stored - len(alive), len(words) * which + len(alive) * one


def entropy(counts: Sequence[int] | np.ndarray) -> float:
    """Bits per symbol, for symbols with these counts; 0.0 without any."""
    share = np.asarray(counts, float)
    share = share[share > 0] / max(share.sum(), 1)
    return float(-(share * np.log2(share)).sum()) + 0.0
