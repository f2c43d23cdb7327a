"""Fixed splits of a data set with balanced classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

_KEY = 20230501  # any fixed number: the split must not depend on the seed of a run


def stratified(labels: Int64[Tensor, " n"], sizes: Sequence[int]) -> list[Int64[Tensor, " part"]]:
    """Indices of disjoint parts of the given sizes, then of the rest; each part in ascending order.

    Sample i gets the i-th 64-bit number of numpy's PCG64 with a fixed key, a stream that numpy promises not to change.
    Within a class, samples fill the parts in the order of their numbers. A class with n_c of n samples has
    floor(size * n_c / n) places in a part; the remaining places go to the classes with the largest remainders, lower
    class first. The result depends only on labels and sizes.

    Raises: ValueError unless every part, and the rest, has at least one sample.
    """
    n = len(labels)
    if any(size < 1 for size in sizes) or sum(sizes) >= n:
        raise ValueError(f"cannot take parts of {list(sizes)} from {n} samples: each, and the rest, must be at least 1")
    y = labels.numpy(force=True)
    keys = np.random.PCG64(_KEY).random_raw(n)
    classes = (np.flatnonzero(y == label) for label in np.unique(y))
    by_class = [members[np.argsort(keys[members], kind="stable")] for members in classes]
    parts = []
    for size in sizes:
        places = _places(size, [len(members) for members in by_class])
        parts.append(np.concatenate([m[:k] for m, k in zip(by_class, places, strict=True)]))
        by_class = [m[k:] for m, k in zip(by_class, places, strict=True)]
    parts.append(np.concatenate(by_class))
    return [torch.from_numpy(np.sort(part)) for part in parts]


def _places(size: int, counts: list[int]) -> list[int]:
    """Places per class by largest remainders; `counts` are the remaining samples of each class."""
    n = sum(counts)
    places = [size * count // n for count in counts]
    order = sorted(range(len(counts)), key=lambda c: (-(size * counts[c] % n), c))
    for c in order[: size - sum(places)]:
        places[c] += 1
    return places
