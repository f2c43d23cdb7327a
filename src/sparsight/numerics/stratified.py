"""Splitting a data set once and for all, with every class in its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

_KEY = 20230501  # any fixed number: the split must not depend on the seed of a run


def stratified(labels: Int64[Tensor, " n"], sizes: Sequence[int]) -> list[Int64[Tensor, " part"]]:
    """Indices of disjoint parts of the given sizes, and last of all the rest; each part in ascending order.

    Sample i has the i-th 64-bit number of numpy's PCG64 with a fixed key (a stream that numpy promises never
    to change). Within a class, samples in the order of their numbers fill the parts one after the other.
    A class of n_c of n samples has floor(size * n_c / n) places in a part; the places left go to the classes
    with the largest remainders, the lower class first. So parts depend on labels and sizes alone.
    ValueError unless every part, and the rest, is at least one sample.
    """
    n = len(labels)
    if any(size < 1 for size in sizes) or sum(sizes) >= n:
        raise ValueError(f"cannot take parts of {list(sizes)} from {n} samples: each, and the rest, must be at least 1")
    y = labels.numpy(force=True)
    keys = np.random.PCG64(_KEY).random_raw(n)
    by_class = [members[np.argsort(keys[members], kind="stable")] for members in _members(y)]
    parts = []
    for size in sizes:
        places = _places(size, [len(members) for members in by_class])
        parts.append(np.concatenate([m[:k] for m, k in zip(by_class, places, strict=True)]))
        by_class = [m[k:] for m, k in zip(by_class, places, strict=True)]
    parts.append(np.concatenate(by_class))
    return [torch.from_numpy(np.sort(part)) for part in parts]


def _members(y: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(y == label) for label in np.unique(y)]


def _places(size: int, counts: list[int]) -> list[int]:
    """Largest remainders, in integers. `counts` are what is left of each class."""
    n = sum(counts)
    places = [size * count // n for count in counts]
    order = sorted(range(len(counts)), key=lambda c: (-(size * counts[c] % n), c))
    for c in order[: size - sum(places)]:
        places[c] += 1
    return places
