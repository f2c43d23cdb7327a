"""The outputs of a network for a split, and metrics of them, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating
from sparsight.model.loss import IGNORED, scored
from sparsight.numerics.intervals import paired_shares, wilson
from sparsight.numerics.seeds import reseeded, seeded
from sparsight.train.batches import batches
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


@dataclass(frozen=True, eq=False)
class Outputs:
    """Class scores [N, C] in float64 and right classes [N] of N answers, on the CPU."""

    scores: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the scores, [N, C]."""
        return self.scores.softmax(1)

    @property
    def predictions(self) -> Tensor:
        """The class with the highest score, [N]; the first among equals."""
        return self.scores.argmax(1)

    @property
    def right(self) -> Tensor:
        """Whether each answer is right, [N]; an answer with a NaN score is not."""
        return (self.predictions == self.labels) & ~self.scores.isnan().any(1)


def outputs_of(model: nn.Module, split: Split | Iterable[Batch], runtime: Runtime, *, batch_size: int = 250) -> Outputs:
    """Run a network over a split, in eval mode and without gradients; does not change the model or random state.

    In label maps each pixel is an answer, except labels -100; for class probabilities the most likely class is right.
    Raises: ValueError for a network that does not score classes (as `cross_entropy`), or a split without answers.
    """
    scores, labels = [], []
    with evaluating(model), seeded(0), reseeded(split, 0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, batch_size, device=runtime.device):
            found, y = scored(model, batch)
            y = y.argmax(1) if y.is_floating_point() else y
            counted = y.flatten() != IGNORED
            scores.append(found.movedim(1, -1).flatten(0, -2)[counted].double().cpu())
            labels.append(y.flatten()[counted].cpu())
    if not sum(map(len, labels)):
        raise ValueError("cannot evaluate on a split without answers")
    return Outputs(torch.cat(scores), torch.cat(labels))


_Z = NormalDist().inv_cdf(0.975)
BINS = 15
DRAWS = 200


@dataclass(frozen=True)
class Estimate:
    """A metric over n answers, with its 95 % interval or None."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def share(hits: Tensor) -> Estimate:
    """The share of True among n answers, with Wilson's interval; NaN without answers."""
    n, value = len(hits), float(hits.double().mean())
    return Estimate(value, *wilson(value, n), n) if n else Estimate(math.nan, n=0)


def average(values: Tensor) -> Estimate:
    """The mean of n numbers ± z s / sqrt(n); a single number has no interval."""
    n, value = len(values), float(values.mean())
    if n < 2:
        return Estimate(value, n=n)
    half = _Z * float(values.std()) / math.sqrt(n)
    return Estimate(value, value - half, value + half, n)


# -- accuracy and calibration --------------------------------------------------------------------------------------


def accuracy(outputs: Outputs) -> Estimate:
    """The share of right answers."""
    return share(outputs.right)


def negative_log_likelihood(outputs: Outputs) -> Estimate:
    """The mean of -log p(right class), in nats: the cross-entropy."""
    log = outputs.scores.log_softmax(1)
    return average(-log.gather(1, outputs.labels[:, None])[:, 0])


def brier(outputs: Outputs) -> Estimate:
    """The mean over answers of sum_k (p_k - [k is right])^2, in [0, 2].

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).
    """
    p = outputs.probabilities
    right = torch.nn.functional.one_hot(outputs.labels, p.shape[1])
    return average((p - right).square().sum(1))


def calibration_error(outputs: Outputs, bins: int = BINS) -> Estimate:
    """ECE in bins of equal mass: sum over bins of n_b / n |mean confidence - share right|, in [0, 1].

    Answers are sorted by confidence, the largest probability, and cut into `bins` parts with sizes that differ by at
    most one, the larger ones first. Equal confidences keep their order. The interval is value ± z times the standard
    deviation over 200 bootstrap samples, clipped to [0, 1].
    Source: Nguyen and O'Connor, EMNLP 2015, for bins of equal mass; Guo et al., ICML 2017, for the error.
    """
    confidence = outputs.probabilities.max(1).values.numpy()
    right = outputs.right.double().numpy()
    value, n = _calibration_error(confidence, right, bins), len(right)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, n, n) for _ in range(DRAWS)]
    half = _Z * float(np.std([_calibration_error(confidence[i], right[i], bins) for i in drawn], ddof=1))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), n)


def _calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    order = np.argsort(confidence, kind="stable")
    ends = np.concatenate([[0], np.cumsum([len(part) for part in np.array_split(order, min(bins, len(order)))])])
    sums = np.add.reduceat(confidence[order] - right[order], ends[:-1])
    return float(np.abs(sums).sum() / len(order))


# -- relative to another network -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfClass:
    """The answers to one class's samples: their accuracy, and its difference from the parent's."""

    label: int
    accuracy: Estimate
    impact: Estimate | None  # share right minus the parent's, on the same samples; None without a parent


def classes(predictions: Tensor, labels: Tensor, parent: Tensor | None = None) -> tuple[OfClass, ...]:
    """Accuracy of each class that has samples, with its impact given the dense parent's predictions.

    Impact is (only this one right - only the parent right) / n, with the interval of `paired_shares`.
    Source: Hooker et al., "What do compressed deep neural networks forget?", 2019, for the question.
    """
    found = []
    for label in labels.unique().tolist():
        here = labels == label
        right = predictions[here] == label
        impact = None if parent is None else difference(right, parent[here] == label)
        found.append(OfClass(int(label), share(right), impact))
    return tuple(found)


def difference(right: Tensor, parent: Tensor) -> Estimate:
    """The share of right answers minus the parent's, on the same n samples."""
    n, mine, other = len(right), int((right & ~parent).sum()), int((~right & parent).sum())
    return Estimate((mine - other) / n, *paired_shares(mine, other, n), n)


def agreement(predictions: Tensor, parent: Tensor) -> Estimate:
    """The share of answers equal to the parent's, right or wrong; 1 - agreement is the churn."""
    return share(predictions == parent)


def flips(predictions: Tensor, labels: Tensor, parent: Tensor) -> tuple[Estimate, Estimate]:
    """Shares of all answers that were right in the parent and are wrong now, and the other way round."""
    now, before = predictions == labels, parent == labels
    return share(before & ~now), share(now & ~before)


CLEAN: Sequence[tuple[str, Callable[[Outputs], Estimate]]] = (
    ("accuracy", accuracy),
    ("nll", negative_log_likelihood),
    ("brier", brier),
    ("ece", calibration_error),
)
"""Metrics of the clean test split, by the names of their rows."""
