"""Iterates over a split: tensors in memory, or any iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DistributedSampler

from sparsight.model.batch import digest, on_tensors, tensors_of
from sparsight.numerics.checks import check_whole
from sparsight.numerics.seeds import samplers
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Data, Split

USUAL, SMALL = 250, 32
"""Default batch sizes for a large and a small split in memory."""

LEAST_STEPS = 40
"""A split in memory with fewer steps per epoch is small."""


def step_size(split: Split | Iterable[Batch], batch_size: int | None) -> int:
    """Samples per training step: `batch_size`; for None 250, or 32 if 250 gives fewer than 40 steps per epoch.

    An iterable of batches keeps its own size.
    """
    if batch_size is not None:
        return batch_size
    return SMALL if isinstance(split, Split) and len(split) <= USUAL * (LEAST_STEPS - 1) else USUAL


def to_device(split: Split | Iterable[Batch], device: torch.device | str) -> Split | Iterable[Batch]:
    """The split with its tensors on `device`. Anything but a `Split` is returned unchanged."""
    if not isinstance(split, Split):
        return split
    x, y = split.x.to(device), split.y.to(device)
    return split if x is split.x and y is split.y else replace(split, x=x, y=y)


def batches(
    split: Split | Iterable[Batch],
    batch_size: int,
    *,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """One pass over a split, as `(x, y)` batches.

    For a `Split`: with a generator the order is its `torch.randperm`, and `augment` uses the same generator;
    without one, batches come in order and unchanged. `drop_last` drops a smaller last batch. Any other iterable keeps
    its own batch size and order. `device` moves each batch, which is free for a `Split` that `to_device` has moved.

    Raises: ValueError if batch_size < 1.
    """
    check_whole(1, batch_size=batch_size)
    stream = _in_memory(split, batch_size, generator, drop_last) if isinstance(split, Split) else iter(split)
    return stream if device is None else (move(batch, device) for batch in stream)


def move(batch: Any, device: torch.device | str) -> Any:
    """The batch with its tensors, also in tuples, lists and mappings, on `device`."""
    return on_tensors(lambda tensor: tensor.to(device, non_blocking=True), batch)


def _in_memory(
    split: Split, batch_size: int, generator: Generator | None, drop_last: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    n = len(split)
    end = n - n % batch_size if drop_last else n
    if generator is None:
        for start in range(0, end, batch_size):
            stop = min(start + batch_size, n)
            yield split.x[start:stop], split.y[start:stop]
        return
    # Drawn on the generator's device: a seed gives the same order whatever the device of the tensors.
    order = torch.randperm(n, generator=generator, device=generator.device).to(split.x.device)
    for start in range(0, end, batch_size):
        index = order[start : start + batch_size]
        yield _picked(split, index, generator)  # keep no reference: the next batch can reuse the memory


def _picked(split: Split, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    x, y = split.x.index_select(0, index), split.y.index_select(0, index)
    return (x if split.augment is None else split.augment(x, generator)), y


def own_part(batch: Batch, split: Any, runtime: Runtime) -> tuple[Batch, float]:
    """This process's part of an in-memory batch, and the factor on its loss that corrects for unequal parts.

    A loader's batches are not split: it shards the data itself.
    """
    if runtime.world == 1 or not isinstance(split, Split):
        return batch, 1.0
    x, y = batch
    mine = slice(runtime.rank, None, runtime.world) if len(x) > runtime.rank else slice(0, 1)
    share = len(x[mine]) if len(x) > runtime.rank else 0
    return (x[mine], y[mine]), share * runtime.world / len(x)


def check_parts(data: Data, batch_size: int | None, runtime: Runtime) -> None:
    """Raise ValueError unless every process gets training batches, and the main one all of the other splits."""
    if runtime.world == 1:
        return
    for name, split in (("validation", data.validation), ("test", data.test)):
        if any(isinstance(sampler, DistributedSampler) for sampler in samplers(split)):
            raise ValueError(
                f"the {name} loader gives each of {runtime.world} processes a part (DistributedSampler), and process 0 "
                "alone reads it: give it all samples"
            )
    if not isinstance(data.train, Split):
        lengths = runtime.gathered(steps_per_epoch(data.train, USUAL))
        if len({*lengths}) > 1:
            raise ValueError(
                f"the training loaders of the {runtime.world} processes must have the same number of batches, got "
                f"{', '.join(map(str, lengths))}"
            )
        return
    size = min(step_size(data.train, batch_size), len(data.train))
    if size < runtime.world:
        raise ValueError(
            f"a batch of {size} is too small for {runtime.world} processes: raise batch_size, or start fewer processes"
        )


def check_apart(batch: Batch, split: Any, runtime: Runtime) -> None:
    """Raise ValueError if the loaders of two processes give the same batch."""
    if runtime.world == 1 or isinstance(split, Split):
        return
    found = runtime.gathered(digest(batch))
    if found[0] and len({*found}) < len(found):
        raise ValueError(
            f"the training loaders of the {runtime.world} processes give the same batches, expected different ones: "
            "give the DataLoader a torch.utils.data.DistributedSampler(dataset), or start one process"
        )


def channels_last(batch: Batch) -> Batch:
    return on_tensors(lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, batch)


def steps_per_epoch(split: Any, batch_size: int) -> int | None:
    """Batches per epoch; None for an iterable without a length."""
    if isinstance(split, Split):
        return -(-len(split) // batch_size)
    try:
        return len(split)
    except TypeError:
        return None


def sample_count(batch: Batch) -> int:
    """Samples of a batch, the weight of its loss: the length of the first tensor in it; 1 without a tensor."""
    first = next(iter(tensors_of(batch)), None)
    return 1 if first is None or not first.dim() else len(first)
