"""The fixed samples on which a run measures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from sparsight.model.batch import batch_size as samples_of
from sparsight.model.batch import on_tensors
from sparsight.numerics.checks import check_whole
from sparsight.numerics.seeds import derive, reseeded, seeded
from sparsight.numerics.stratified import stratified
from sparsight.types import Batch, Split


@dataclass(frozen=True, eq=False)
class Probe:
    """Samples to measure on, as batches in a fixed order, with their indices in the split."""

    indices: Int64[Tensor, " samples"]  # ascending, on the CPU
    batches: tuple[Batch, ...]
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def digest(self) -> str:
        """SHA-256 of the indices: runs with the same digest used the same samples of a split."""
        return hashlib.sha256(self.indices.numpy().astype("<i8").tobytes()).hexdigest()


MOST = 1024
"""Default number of samples of a probe."""


def probe(split: Split | Iterable[Batch], count: int | None = None, *, seed: int = 0, batch_size: int = 256) -> Probe:
    """`count` samples of a split, drawn from `seed`, without augmentation and always in the same order.

    The default is 1024, or all if there are fewer.

    A `Split` with integer labels is stratified: class c gets count n_c / n places, rounded by largest remainders
    (`data.stratified`). Other iterables of batches are read once, to the end, and `count` samples are drawn uniformly.
    The draw depends only on the seed, the labels and the number of samples; it does not use the global random state.
    Raises: ValueError unless 1 <= count <= samples.
    """
    check_whole(1, batch_size=batch_size)
    if not isinstance(split, Split):
        return _streamed(split, count, seed, batch_size)
    count = min(MOST, len(split)) if count is None else count
    _enough(count, len(split))
    order = np.argsort(_keys(seed, 0, len(split)), kind="stable")
    drawn = order[:count]
    if count < len(split) and split.y.dim() == 1 and not split.y.is_floating_point():
        part, _ = stratified(split.y.cpu()[torch.from_numpy(order)].long(), [count])
        drawn = order[part.numpy()]
    indices = torch.from_numpy(np.sort(drawn))
    parts = [part.to(split.x.device) for part in indices.split(batch_size)]
    return Probe(indices, tuple((split.x.index_select(0, p), split.y.index_select(0, p)) for p in parts), seed)


def _enough(count: int, samples: int) -> None:
    if not 1 <= count <= samples:
        raise ValueError(f"probe must be 1 to {samples:,}, the number of samples, got {count:,}")


def _keys(seed: int, start: int, count: int) -> np.ndarray:
    """The random numbers of samples start, start + 1, ..., from a stream that numpy keeps stable."""
    stream = np.random.PCG64(derive(seed, "probe"))
    return stream.advance(start).random_raw(count)


def _streamed(batches: Iterable[Batch], given: int | None, seed: int, size: int) -> Probe:
    """The samples with the smallest keys, in one pass that holds at most these and one batch."""
    count = MOST if given is None else given
    keys, places, kept, start = np.empty(0, np.uint64), np.empty(0, np.int64), None, 0
    place = derive(seed, "probe loader")
    with seeded(place), reseeded(batches, place):
        for batch in batches:
            n = samples_of(batch)
            keys = np.concatenate((keys, _keys(seed, start, n)))
            places = np.concatenate((places, np.arange(start, start + n)))
            kept, start = batch if kept is None else on_tensors(lambda *parts: torch.cat(parts), kept, batch), start + n
            best = np.sort(np.argsort(keys, kind="stable")[:count])
            keys, places, kept = keys[best], places[best], _taken(kept, torch.from_numpy(best))
    count = min(count, start) if given is None else count
    _enough(count, start)
    parts = torch.arange(count).split(size)
    return Probe(torch.from_numpy(places), tuple(_taken(kept, part) for part in parts), seed)


def _taken(batch: Batch, index: Tensor) -> Batch:
    return on_tensors(lambda x: x.index_select(0, index.to(x.device)), batch)
