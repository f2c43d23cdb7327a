"""Selection in one pass: a sample brackets the threshold, and what falls between is collected and ranked.

As Floyd and Rivest's SELECT (1975) does it, but that the bracket is collected and nothing is moved. What is
collected has a fixed bound; where it does not suffice (many ties, an unlucky sample) the caller has another way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sparsight.numerics.kernels.jit import each
from sparsight.numerics.kernels.pieces import CompiledPiece

_RUN = 64  # neighbours that are sampled together: reaching a place in memory costs more than reading there
_LEAST, _MOST = 1 << 18, 1 << 22  # size of a sample ...
_SHARE = 512  # ... and between these, one entry in so many
_ROOM = 1 << 21  # entries that may be collected
_DEVIATIONS = 4.0  # of the sample's rank, on either side


def prune_bracketed(pieces: Sequence[CompiledPiece], k: int, alive: int) -> str | None:
    """Write the masks of `pieces`: alive, but for the k smallest (0 < k <= alive), ties in order.

    Returns None where that was done; "missed" where the bracket did not hold the threshold or too much, and
    the masks are not to be used; "nan" where an alive key is a NaN.
    """
    bracket = _bracket(pieces, k, alive)
    if bracket is None:
        return "missed"
    low, high = bracket
    parts = each(lambda i: pieces[i].split(low, high), len(pieces))
    places, keys, whole, below, nan = zip(*parts, strict=True)
    if any(nan):
        return "nan"
    sizes = [len(of) for of in keys]
    rank = k - sum(below)
    if not (all(whole) and sum(sizes) <= _ROOM and 0 < rank <= sum(sizes)):
        return "missed"
    inside = np.concatenate(keys)
    threshold = np.partition(inside, rank - 1)[rank - 1]
    kept = inside > threshold
    ties = np.flatnonzero(inside == threshold)  # in order of pieces and indices
    kept[ties[rank - np.count_nonzero(inside < threshold) :]] = True
    chosen = np.split(kept, np.cumsum(sizes)[:-1])
    each(lambda i: pieces[i].put(places[i], chosen[i]), len(pieces))
    return None


def _bracket(pieces: Sequence[CompiledPiece], k: int, alive: int) -> tuple[int, int] | None:
    """Keys between which the k-th smallest very likely is; None if the sample says nothing."""
    total = sum(piece.score.numel() for piece in pieces)
    step = max(_RUN, _RUN * total // min(max(_LEAST, total // _SHARE), _MOST))
    starts, position = [], 0
    for piece in pieces:  # the sampled runs are evenly spaced over all pieces together
        starts.append(-position % step)
        position += piece.score.numel()
    seen = np.concatenate(each(lambda i: pieces[i].sample(starts[i], step, _RUN), len(pieces)))
    if not seen.size:
        return None
    share = k / alive
    margin = _DEVIATIONS * math.sqrt(seen.size * share * (1 - share)) + _RUN
    first, last = math.floor(share * seen.size - margin), math.ceil(share * seen.size + margin)
    limit = np.iinfo(seen.dtype)
    ends = [i for i in (first, last) if 0 <= i < seen.size]
    if ends:
        seen.partition(ends)
    low = int(seen[first]) if first in ends else limit.min
    high = int(seen[last]) if last in ends else limit.max
    return low, high
