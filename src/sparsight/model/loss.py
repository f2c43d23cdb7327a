"""What is minimised, and which labels count: for the training loop and for scorers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from sparsight.model.batch import ASK, labels_of, own_loss, predict, scores_of
from sparsight.types import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
"""The mean loss over the samples of a batch, as a scalar."""

LossName = Literal["task", "cross-entropy", "binary-cross-entropy", "mse", "mae"]
"""The losses that have a name; "task" is `task_loss`."""

IGNORED = -100
"""The label that does not count, neither in the loss nor in the accuracy."""


def task_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the model itself returns, `output.loss` or `output["loss"]`, else its cross-entropy: the default.

    Works for batches `(x, y)` and dictionaries (see `predict`), and for models that return class scores, or something
    with `logits` or a `loss`. Errors: those of `cross_entropy`; ValueError for a loss that is no single number.
    """
    output = predict(model, batch)
    loss = own_loss(output)
    if loss is None:
        return entropy(*fitting(output, batch))
    if loss.numel() != 1:
        raise ValueError(f"the loss that the model returns has shape {tuple(loss.shape)}, expected one number: {ASK}")
    return loss.reshape(())


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over the labels that count.

    The network returns class scores [N, C, ...], one set of C for each of the labels [N, ...]; with the classes last
    ([N, ..., C]) where labels fit only so. Labels are class indices of any integer dtype, of which -100 does not count
    ([N, 1] for scores [N, C] as well), or class probabilities of the shape of the scores. NaN if no label counts.
    ValueError for labels that do not fit the scores, and for floating ones of a single score.
    """
    return entropy(*scored(model, batch))


def binary_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of single scores and labels of 0 and 1 (or probabilities): `with_logits`, any fitting shapes.

    ValueError for labels that have not as many elements as the scores.
    """
    scores, y = paired(model, batch)
    return functional.binary_cross_entropy_with_logits(scores, y)


def mse(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error over all elements. ValueError for targets that have not as many elements as the output."""
    return functional.mse_loss(*paired(model, batch))


def mae(model: nn.Module, batch: Batch) -> Tensor:
    """Mean absolute error over all elements. ValueError for targets that have not as many elements as the output."""
    return functional.l1_loss(*paired(model, batch))


_NAMED: Mapping[str, Loss] = {
    "task": task_loss, "cross-entropy": cross_entropy, "binary-cross-entropy": binary_cross_entropy, "mse": mse,
    "mae": mae,
}  # fmt: skip


def named_loss(loss: LossName | Loss) -> Loss:
    """The loss of that name; a function as it is. ValueError for an unknown name, TypeError for anything else."""
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise ValueError(f"unknown loss {loss!r}, expected one of {', '.join(get_args(LossName))}, or a function")
        return _NAMED[loss]
    if not callable(loss):
        raise TypeError(f"a loss must be a name or callable as loss(model, batch), got {loss!r:.60}")
    return loss


_SINGLE = "for one score and labels of 0 and 1 there is the loss binary-cross-entropy, for a regression mse and mae"


# -- scores and labels -----------------------------------------------------------------------------------------


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class scores and labels of a batch; with the errors of `cross_entropy` for those that do not fit each other."""
    return fitting(predict(model, batch), batch)


def paired(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the network puts out and what it should, of one shape. ValueError if they have not as many elements."""
    output = predict(model, batch)
    scores, y = scores_of(output), labels_of(batch)
    if scores is None or not isinstance(y, Tensor):
        raise ValueError(f"expected an output and targets as tensors, got {_kinds(output, y)}; {ASK}")
    if scores.numel() != y.numel() or (scores.shape != y.shape and _flat(scores.shape) != _flat(y.shape)):
        raise ValueError(
            f"targets of shape {tuple(y.shape)} do not fit an output of shape {tuple(scores.shape)}; {ASK}"
        )
    return scores, y.reshape(scores.shape).to(scores.dtype)


def _flat(shape: Any) -> list[int]:
    return [n for n in shape if n != 1]


def _kinds(output: Any, y: Any) -> str:
    return f"{type(output).__name__} and {type(y).__name__}"


def fitting(output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class scores and labels of a batch that has been run through; errors as of `scored`."""
    scores, y = scores_of(output), labels_of(batch)
    if not isinstance(scores, Tensor) or not isinstance(y, Tensor):
        raise ValueError(f"cross-entropy needs class scores and labels as tensors, got {_kinds(output, y)}; {ASK}")
    shape, whole = tuple(scores.shape), not y.is_floating_point()
    indices = (*shape[:1], *shape[2:])
    if whole and tuple(y.shape) == (*indices, 1):
        y = y.squeeze(-1)
    elif whole and tuple(y.shape) == shape[:-1] != indices:
        scores = scores.movedim(-1, 1)
    if len(shape) < 2 or (scores.shape[1] < 2 and not whole):
        raise ValueError(
            f"cross-entropy needs a score for each of two classes or more, got an output of shape {shape} and "
            f"{y.dtype} labels; {_SINGLE}; otherwise {ASK}"
        )
    if tuple(y.shape) != ((scores.shape[0], *scores.shape[2:]) if whole else shape):
        raise ValueError(
            f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit an output of shape {shape}, whose dimension 1 "
            f"holds the classes: expected class indices of shape {indices} or floating probabilities of shape {shape}; "
            f"otherwise {ASK}"
        )
    return scores, y if y.is_floating_point() else y.long()


def entropy(
    scores: Tensor, y: Tensor, reduction: Literal["mean", "sum"] = "mean", ignore_index: int = IGNORED
) -> Tensor:
    """Cross-entropy of what `scored` returns. ValueError for a class that the network does not score."""
    try:
        return functional.cross_entropy(scores, y, reduction=reduction, ignore_index=ignore_index)
    except IndexError as error:
        classes = scores.shape[1]
        raise ValueError(
            f"a label is no class of the network: {str(error).rstrip('.')}; it scores {classes} classes, so labels "
            f"must be 0 to {classes - 1}, or {ignore_index} for what does not count"
            + (f"; {_SINGLE}" if classes == 1 else "")
        ) from error
