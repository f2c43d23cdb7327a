"""What is minimised, which labels count, and how many samples a batch has: for the training loop and for scorers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from sparsight.types import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
"""The mean loss over the samples of a batch, as a scalar."""


Judge = Callable[[nn.Module, Batch], tuple[Tensor | float, Tensor | float, Tensor | int]]
"""(summed loss, right answers, answers counted) of a batch; the accuracy of a split is right / counted."""

IGNORED = -100
"""The label that does not count, neither in the loss nor in the accuracy."""


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of `(x, y)` over the labels that count: the default loss.

    The network returns class scores [N, C, ...], one set of C for each of the labels [N, ...]. Labels are class
    indices of any integer dtype, of which -100 does not count, or class probabilities [N, C, ...]. NaN if no label
    counts. ValueError for labels that do not fit the scores, and for floating ones of a single score.
    """
    return entropy(*scored(model, batch))


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class scores and labels of `(x, y)`; with the errors of `cross_entropy` for those that do not fit each other."""
    x, y = batch
    scores = model(x)
    own = "for another task give the recipe a loss and a judge of your own"
    if not isinstance(scores, Tensor) or not isinstance(y, Tensor):
        got = f"{type(scores).__name__} and {type(y).__name__}"
        raise ValueError(f"cross-entropy needs class scores and labels as tensors, got {got}; {own}")
    shape = tuple(scores.shape)
    if len(shape) < 2 or (y.is_floating_point() and shape[1] < 2):
        got = f"an output of shape {shape} and {y.dtype} labels"
        raise ValueError(f"cross-entropy needs a score for each of two classes or more, got {got}; {own}")
    indices = (*shape[:1], *shape[2:])
    if tuple(y.shape) != (shape if y.is_floating_point() else indices):
        raise ValueError(
            f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit an output of shape {shape}, whose dimension 1 "
            f"holds the classes: expected class indices of shape {indices} or floating probabilities of shape {shape}; "
            f"{own}"
        )
    return scores, y if y.is_floating_point() else y.long()


def entropy(scores: Tensor, y: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Cross-entropy of what `scored` returns. ValueError for a class that the network does not score."""
    try:
        return functional.cross_entropy(scores, y, reduction=reduction)
    except IndexError as error:
        classes = scores.shape[1]
        raise ValueError(
            f"a label is no class of the network: {str(error).rstrip('.')}; it scores {classes} classes, so labels "
            f"must be 0 to {classes - 1}, or {IGNORED} for what does not count"
        ) from error


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
