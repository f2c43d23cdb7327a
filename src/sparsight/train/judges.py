"""Judges: measure a network on a batch, by named metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from sparsight.model.batch import ASK, batch_size, labels_of, own_loss, predict, scores_of
from sparsight.model.loss import IGNORED, entropy, fitting, paired, scored
from sparsight.train.metric import ACCURACY, LOSS, PERPLEXITY, Metric
from sparsight.train.torch_metric import TorchMetric, is_torch_metric
from sparsight.types import Batch

Number = Tensor | float | int
Counted = tuple[Number, Number]
"""The sum of a metric over a batch, and its count."""

Returned = tuple[Number, Number, Number] | Mapping[str, Counted]
"""The result of a judge: (summed loss, right answers, number of answers), or the (sum, count) of each named metric."""

Judge = Callable[[nn.Module, Batch], Returned]
"""A function of a model and a batch. A metric's value on a split is the total of its sums over the total of its counts.

For other metrics than loss and accuracy, `metrics` says which way is better; the first chooses between networks. See
`Judged`, and `TorchMetric` for values that are not means.
"""

MetricName = Literal["auto", "accuracy", "loss", "perplexity", "mse", "rmse", "mae"]
"""The names of judges; "auto" is `Auto`."""


@dataclass(frozen=True)
class Judged:
    """A judge from a function that returns {name: (sum, count)}; the first of `metrics` chooses between networks.

    `finish` turns a mean into a value: {"perplexity": math.exp}.
    """

    function: Judge
    metrics: tuple[Metric, ...]
    finish: Mapping[str, Callable[[float], float]] = field(default_factory=dict)

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        return self.function(model, batch)


# -- built in --------------------------------------------------------------------------------------------------


def classify(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(summed cross-entropy, right predictions, number of labels) of `(x, y)`.

    Class scores and labels as in `cross_entropy`: each pixel of a label map counts, and each token of token labels, but
    not a label -100. The prediction is the class with the highest score, and none if a score is NaN; for class
    probabilities, the right one is the most likely. Raises: ValueError as `cross_entropy`, and for floating-point
    labels that are not probabilities.
    """
    return right_of(*scored(model, batch))


def right_of(scores: Tensor, y: Tensor, ignore_index: int = IGNORED) -> tuple[Tensor, Tensor, Tensor]:
    """(summed cross-entropy, right predictions, number of labels) for the result of `scored`."""
    scores = scores.float()
    loss = entropy(scores, y, "sum", ignore_index)
    if y.is_floating_point():
        if not bool((y >= 0).all() and ((y.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError(
                f"accuracy needs class indices, or class probabilities that sum to 1, got other {y.dtype} labels of "
                f"shape {tuple(y.shape)}; for a regression use loss='mse' and metric='mse', otherwise {ASK}"
            )
        y = y.argmax(1)
    return loss, _hits(scores, y).sum(), (y != ignore_index).sum()


def _hits(scores: Tensor, y: Tensor) -> Tensor:
    """Which labels have the highest score; none if a score is NaN."""
    best = scores.max(1)
    return (best.indices == y) & ~best.values.isnan()


@dataclass(frozen=True)
class Accuracy:
    """The share of right predictions, and the mean cross-entropy; labels of any shape (`cross_entropy`).

    With one score per label, labels are 0 or 1, and a score above 0 predicts 1. Labels `ignore_index` do not count; the
    recipe's loss must ignore them too.
    """

    ignore_index: int = IGNORED
    metrics: tuple[Metric, ...] = field(default=(ACCURACY,), init=False, repr=False)

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        output = predict(model, batch)
        scores, y = scores_of(output), labels_of(batch)
        if isinstance(scores, Tensor) and isinstance(y, Tensor) and scores.numel() == y.numel():
            return self._binary(scores.float(), y.reshape(scores.shape))
        return right_of(*fitting(output, batch), self.ignore_index)

    def _binary(self, scores: Tensor, y: Tensor) -> Returned:
        counted = y != self.ignore_index
        s, t = scores[counted], y[counted].to(scores.dtype)
        if not bool(((t == 0) | (t == 1)).all()):
            raise ValueError(f"accuracy with one score per label needs labels 0 and 1, got other {y.dtype}; {ASK}")
        loss = nn.functional.binary_cross_entropy_with_logits(s, t, reduction="sum")
        return loss, (((s > 0) == (t > 0)) & ~s.isnan()).sum(), counted.sum()


@dataclass(frozen=True)
class Loss:
    """The mean of loss(model, batch) over samples, if nothing else can be measured."""

    loss: Callable[[nn.Module, Batch], Tensor]
    metrics: tuple[Metric, ...] = field(default=(LOSS,), init=False, repr=False)

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        n = batch_size(batch)
        return {"loss": (self.loss(model, batch) * n, n)}


@dataclass(frozen=True)
class Error:
    """The error of a regression over all elements: "mse", its root "rmse", or "mae"."""

    kind: Literal["mse", "rmse", "mae"] = "mse"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric(self.kind, "lower"),)

    @property
    def finish(self) -> Mapping[str, Callable[[float], float]]:
        return {"rmse": math.sqrt}

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        output, y = paired(model, batch)
        gap = output.float() - y.float()
        total = gap.abs().sum() if self.kind == "mae" else gap.square().sum()
        return {"loss": (total, gap.numel()), self.kind: (total, gap.numel())}


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean cross-entropy per token, ignoring labels -100; lower is better.

    The network returns scores per token [N, T, V]. Labels [N, T] belong to the same positions, or, for causal language
    models, to the next ones: whichever agrees with the model's own loss. Without one: the same positions.
    """

    metrics: tuple[Metric, ...] = field(default=(PERPLEXITY,), init=False, repr=False)
    finish: Mapping[str, Callable[[float], float]] = field(
        default_factory=lambda: {"perplexity": math.exp}, init=False, repr=False
    )

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        output = predict(model, batch)
        scores, y = scores_of(output), labels_of(batch)
        if scores is None or not isinstance(y, Tensor) or scores.dim() != 3 or y.shape != scores.shape[:2]:
            got = "no scores" if scores is None else f"scores of shape {tuple(scores.shape)}"
            raise ValueError(
                f"perplexity needs scores [N, T, V] and token labels [N, T], got {got} and "
                f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}; {ASK}"
            )
        total, count, right, _ = tokens(scores, y, own_loss(output))
        return {"loss": (total, count), "perplexity": (total, count), "accuracy": (right, count)}


def tokens(scores: Tensor, y: Tensor, loss: Tensor | None) -> tuple[Tensor, Tensor, Tensor, bool]:
    """(summed cross-entropy, number of tokens, right predictions, whether labels belong to the next token).

    See `Perplexity`.
    """
    if loss is None:
        return *_tokens(scores, y, 0), False
    next_ones, same = _tokens(scores, y, 1), _tokens(scores, y, 0)
    if _distance(loss, *same[:2]) < _distance(loss, *next_ones[:2]):
        return *same, False
    return *next_ones, True


def _tokens(scores: Tensor, y: Tensor, shift: int) -> tuple[Tensor, Tensor, Tensor]:
    flat, labels = scores[:, : scores.shape[1] - shift].flatten(0, 1).float(), y[:, shift:].flatten().long()
    return entropy(flat, labels, "sum"), (labels != IGNORED).sum(), _hits(flat, labels).sum()


def _distance(loss: Tensor, total: Tensor, count: Tensor) -> float:
    mean = float(total) / max(int(count), 1)
    return abs(mean - float(loss))


@dataclass(frozen=True)
class Auto:
    """The default judge: chooses the metric by a network's outputs and labels.

    Class scores and labels, also of tokens: accuracy. A causal language model, with the loss of the next token:
    perplexity. A model that returns only its loss: that loss. Raises: ValueError for anything else.
    """

    metrics: tuple[Metric, ...] = field(default=(PERPLEXITY, ACCURACY, LOSS), init=False, repr=False)
    finish: Mapping[str, Callable[[float], float]] = field(
        default_factory=lambda: {"perplexity": math.exp}, init=False, repr=False
    )

    def __call__(self, model: nn.Module, batch: Batch) -> Returned:
        output = predict(model, batch)
        scores, y, loss = scores_of(output), labels_of(batch), own_loss(output)
        if scores is not None and isinstance(y, Tensor) and loss is not None and scores.dim() == 3 == y.dim() + 1:
            total, count, right, next_ones = tokens(scores, y, loss)
            found = {"loss": (total, count), "accuracy": (right, count)}
            return {**found, "perplexity": (total, count)} if next_ones else found
        if loss is not None and (scores is None or not _classes(scores, y)):
            n = batch_size(batch)
            return {"loss": (loss * n, n)}
        return right_of(*fitting(output, batch))


def _classes(scores: Tensor, y: Any) -> bool:
    """Whether labels are class indices of these scores."""
    whole = isinstance(y, Tensor) and not y.is_floating_point()
    return whole and scores.dim() > 1 and y.dim() == scores.dim() - 1


_NAMED: Mapping[str, Callable[[], Judge]] = {
    "auto": Auto,
    "accuracy": Accuracy,
    "perplexity": Perplexity,
    "mse": Error,
    "rmse": lambda: Error("rmse"),
    "mae": lambda: Error("mae"),
}


def named_judge(metric: Any, loss: Callable[[nn.Module, Batch], Tensor]) -> Judge:
    """The judge of that name ("loss" uses `loss`), for a torchmetrics metric, or the judge itself.

    Raises: ValueError for an unknown name, TypeError for anything else.
    """
    if isinstance(metric, str):
        if metric == "loss":
            return Loss(loss)
        if metric not in _NAMED:
            names = ", ".join(get_args(MetricName))
            raise ValueError(f"metric must be one of {names}, or a judge, got {metric!r}")
        return _NAMED[metric]()
    if is_torch_metric(metric):
        return TorchMetric(metric)
    if not callable(metric):
        raise TypeError(f"metric must be a name, a judge(model, batch) or a torchmetrics.Metric, got {metric!r:.60}")
    return cast(Judge, metric)  # its results are checked in `evaluate`
