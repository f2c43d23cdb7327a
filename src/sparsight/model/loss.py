"""Losses for training and for scorers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional

from sparsight.model.batch import ASK, labels_of, own_loss, predict, scores_of
from sparsight.types import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
"""The mean loss over the samples of a batch, a scalar."""

LossName = Literal["task", "cross-entropy", "binary-cross-entropy", "mse", "mae"]
"""The names of losses; "task" is `task_loss`."""

IGNORED = -100
"""The label that loss and accuracy ignore."""


def task_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The default loss: the model's own, `output.loss` or `output["loss"]`, otherwise the cross-entropy.

    Works for batches `(x, y)` and dictionaries (see `predict`), and for models that return class scores, `logits` or a
    `loss`. Raises: as `cross_entropy`; ValueError for a loss that is not a single number.
    """
    output = predict(model, batch)
    loss = own_loss(output)
    if loss is None:
        return entropy(*fitting(output, batch))
    if loss.numel() != 1:
        raise ValueError(f"the model must return a loss that is one number, got shape {tuple(loss.shape)}: {ASK}")
    return loss.reshape(())


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy over all labels except -100.

    The network returns class scores [N, C, ...] for labels [N, ...]; or [N, ..., C], if labels fit only that. Labels
    are class indices of any integer dtype ([N, 1] for scores [N, C] as well), or class probabilities with the shape of
    the scores. NaN if all labels are -100.

    Raises: ValueError for labels that do not fit the scores, and for floating-point labels with a single score.
    """
    return entropy(*scored(model, batch))


def binary_cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean binary cross-entropy with logits, for labels 0 and 1 (or probabilities).

    Raises: ValueError unless there are as many labels as scores.
    """
    scores, y = paired(model, batch)
    return functional.binary_cross_entropy_with_logits(scores, y)


def mse(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error over all elements. Raises: ValueError unless targets have as many elements as the output."""
    return functional.mse_loss(*paired(model, batch))


def mae(model: nn.Module, batch: Batch) -> Tensor:
    """Mean absolute error over all elements. Raises: ValueError unless targets have as many elements as the output."""
    return functional.l1_loss(*paired(model, batch))


_LOSSES: tuple[Loss, ...] = (task_loss, cross_entropy, binary_cross_entropy, mse, mae)
_NAMED: Mapping[str, Loss] = dict(zip(get_args(LossName), _LOSSES, strict=True))


def named_loss(loss: LossName | Loss) -> Loss:
    """The loss of that name, or the function itself. Raises: ValueError for an unknown name, otherwise TypeError."""
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise ValueError(f"loss must be one of {', '.join(get_args(LossName))}, or a function, got {loss!r}")
        return _NAMED[loss]
    if not callable(loss):
        raise TypeError(f"loss must be a name or a function loss(model, batch), got {loss!r:.60}")
    return loss


_SINGLE = "use the loss binary-cross-entropy for one score and labels 0 and 1, or mse or mae for a regression"


# -- scores and labels -----------------------------------------------------------------------------------------


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class scores and labels of a batch. Raises: as `cross_entropy`."""
    return fitting(predict(model, batch), batch)


def paired(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The network's output and the targets, in the same shape. Raises: ValueError if they do not fit."""
    output = predict(model, batch)
    scores, y = scores_of(output), labels_of(batch)
    if scores is None or not isinstance(y, Tensor):
        raise ValueError(f"output and targets must be tensors, got {_kinds(output, y)}; {ASK}")
    if scores.numel() != y.numel() or scores.squeeze().shape != y.squeeze().shape:
        raise ValueError(
            f"targets of shape {tuple(y.shape)} do not fit an output of shape {tuple(scores.shape)}; {ASK}"
        )
    return scores, y.reshape(scores.shape).to(scores.dtype)


def _kinds(output: Any, y: Any) -> str:
    return f"{type(output).__name__} and {type(y).__name__}"


def fitting(output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class scores and labels, for a known output. Raises: as `scored`."""
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
            f"cross-entropy needs scores of at least two classes, got an output of shape {shape} and {y.dtype} labels; "
            f"{_SINGLE}; otherwise {ASK}"
        )
    if tuple(y.shape) != ((scores.shape[0], *scores.shape[2:]) if whole else shape):
        raise ValueError(
            f"labels of shape {tuple(y.shape)} and {y.dtype} do not fit an output of shape {shape} with classes in "
            f"dimension 1: expected class indices of shape {indices} or probabilities of shape {shape}; otherwise {ASK}"
        )
    return scores, y if y.is_floating_point() else y.long()


def entropy(
    scores: Tensor, y: Tensor, reduction: Literal["mean", "sum"] = "mean", ignore_index: int = IGNORED
) -> Tensor:
    """The cross-entropy for the result of `scored`. Raises: ValueError for an unknown class."""
    try:
        return functional.cross_entropy(scores, y, reduction=reduction, ignore_index=ignore_index)
    except IndexError as error:
        classes = scores.shape[1]
        raise ValueError(
            f"labels must be 0 to {classes - 1} for a network with {classes} classes, or {ignore_index} to be ignored: "
            f"{str(error).rstrip('.')}" + (f"; {_SINGLE}" if classes == 1 else "")
        ) from error
