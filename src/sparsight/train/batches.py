"""Going through a split: the fast path for tensors in memory, and any iterable of batches as it is."""

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
"""Samples in a training step where no number is given: of a large split in memory, and of a small one."""

LEAST_STEPS = 40
"""Steps in an epoch below which a split in memory is small."""


def step_size(split: Split | Iterable[Batch], batch_size: int | None) -> int:
    """Samples in a training step: `batch_size`, or for None 250, and 32 where that makes fewer than 40 steps an epoch.

    An iterable of batches keeps its own size, whatever is given.
    """
    if batch_size is not None:
        return batch_size
    return SMALL if isinstance(split, Split) and len(split) <= USUAL * (LEAST_STEPS - 1) else USUAL


def to_device(split: Split | Iterable[Batch], device: torch.device | str) -> Split | Iterable[Batch]:
    """The split with its tensors on `device`, once for all epochs. Anything but a `Split` stays as it is."""
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

    Of a `Split`: with a generator the order is `torch.randperm` of it and `augment` is applied, which draws
    from the same generator; without one, batches come in order and as they are. The last, smaller batch is
    kept unless `drop_last`. Any other iterable passes through: it has its own batch size, order and end.
    With `device`, each batch is moved there; move a `Split` beforehand with `to_device`, and this is free.
    ValueError if batch_size < 1.
    """
    check_whole(1, batch_size=batch_size)
    stream = _in_memory(split, batch_size, generator, drop_last) if isinstance(split, Split) else iter(split)
    return stream if device is None else (move(batch, device) for batch in stream)


def move(batch: Any, device: torch.device | str) -> Any:
    """The batch with its tensors on `device`, in tuples, lists and mappings too; the rest as it is."""
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
    # Drawn on the generator's device: one seed gives the same order on every device of the tensors.
    order = torch.randperm(n, generator=generator, device=generator.device).to(split.x.device)
    for start in range(0, end, batch_size):
        index = order[start : start + batch_size]
        yield _picked(split, index, generator)  # not held here: the next batch may lie where this one did


def _picked(split: Split, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    x, y = split.x.index_select(0, index), split.y.index_select(0, index)
    return (x if split.augment is None else split.augment(x, generator)), y


def own_part(batch: Batch, split: Any, runtime: Runtime) -> tuple[Batch, float]:
    """This process's part of a batch held in memory, and the weight that makes the averaged gradient the whole's.

    Batches of a foreign loader are taken as they are: it shards itself.
    """
    if runtime.world == 1 or not isinstance(split, Split):
        return batch, 1.0
    x, y = batch
    mine = slice(runtime.rank, None, runtime.world) if len(x) > runtime.rank else slice(0, 1)
    share = len(x[mine]) if len(x) > runtime.rank else 0
    return (x[mine], y[mine]), share * runtime.world / len(x)


def check_parts(data: Data, batch_size: int | None, runtime: Runtime) -> None:
    """ValueError unless every process has a part of the training batches, and the main one all of the other splits."""
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
                f"the training loaders of the {runtime.world} processes have {', '.join(map(str, lengths))} batches, "
                "expected the same number in each: they take a step together"
            )
        return
    size = min(step_size(data.train, batch_size), len(data.train))
    if size < runtime.world:
        raise ValueError(
            f"a batch of {size} cannot be shared among {runtime.world} processes, expected at least one sample for "
            "each: give a greater batch size, or start fewer processes"
        )


def check_apart(batch: Batch, split: Any, runtime: Runtime) -> None:
    """ValueError if two processes were given the same batch by loaders of their own: nothing would be gained."""
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
    """Batches of an epoch, or None for an iterable that does not tell."""
    if isinstance(split, Split):
        return -(-len(split) // batch_size)
    try:
        return len(split)
    except TypeError:
        return None


def sample_count(batch: Batch) -> int:
    """Samples of a batch, to weight its loss by: the length of the first tensor inside; 1 if there is none."""
    first = next(tensors_of(batch), None)
    return 1 if first is None or not first.dim() else len(first)
