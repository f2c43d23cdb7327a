"""What is minimised, and how many samples a batch has: known to the training loop and to scorers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sparsight.types import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
"""The mean loss over the samples of a batch, as a scalar."""


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of `(x, y)`: the default loss."""
    x, y = batch
    return functional.cross_entropy(model(x), y)


def batch_size(batch: Batch) -> int:
    """Samples of a batch: the length of its first tensor. ValueError if there is none, or it is empty."""
    first = next(_tensors(batch), None)
    if first is None or first.dim() == 0 or not len(first):
        got = type(batch).__name__ if first is None else f"a first tensor of shape {tuple(first.shape)}"
        raise ValueError(f"cannot tell the samples of a batch: got {got}, allowed is (x, y) with at least one sample")
    return len(first)


def on_tensors(do: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The batch with `do` of its tensors, in tuples, lists and mappings too; the rest as it is."""
    if isinstance(batch, Tensor):
        return do(batch)
    if isinstance(batch, Mapping):
        return {key: on_tensors(do, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(on_tensors(do, value) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(on_tensors(do, value) for value in batch)
    return batch


def copied(batch: Any) -> Any:
    """The batch with tensors of its own, for models that write to their input."""
    return on_tensors(Tensor.clone, batch)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _tensors(value)
