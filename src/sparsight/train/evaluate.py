"""What a network is worth on a split. Measuring changes nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating
from sparsight.model.loss import IGNORED, Judge, entropy, scored
from sparsight.numerics.seeds import seeded
from sparsight.train.batches import batches
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


def classify(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(summed cross-entropy, right predictions, labels that count) of `(x, y)`: the default judge of a network.

    Class scores [N, C, ...] and labels as `cross_entropy` takes them: of a label map every pixel counts, of token
    labels every token, and a label -100 not at all. The prediction is the class with the highest score; of class
    probabilities the right one is the most likely. ValueError as `cross_entropy`, and for floating labels that are
    no probabilities.
    """
    scores, y = scored(model, batch)
    scores = scores.float()
    loss = entropy(scores, y, "sum")
    if y.is_floating_point():
        if not bool((y >= 0).all() and ((y.sum(1) - 1).abs() < 1e-3).all()):
            raise ValueError(
                f"the judge classify takes class indices, or class probabilities that are >= 0 and sum to 1: got other "
                f"{y.dtype} labels of shape {tuple(y.shape)}; for another task give the recipe a loss and a judge of "
                f"your own"
            )
        y = y.argmax(1)
    return loss, (scores.argmax(1) == y).sum(), (y != IGNORED).sum()


@dataclass(frozen=True)
class Worth:
    """Mean loss and accuracy (in [0, 1]) over the `samples` that the judge counted: labels, of a label map pixels."""

    accuracy: float
    loss: float
    samples: int


def evaluate(
    model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime, *, batch_size: int = 1000
) -> Worth:
    """Judge a network on a split, in eval mode and without gradients; parameters, flags and random state stay.

    ValueError, naming the judge: it does not return three numbers, its share of right answers is not in [0, 1] in
    some batch, or it counts none in the whole split. ValueError for a split without a batch.
    """
    found: list[Tensor] = []
    with evaluating(model), seeded(0), torch.no_grad(), runtime.autocast():
        found.extend(
            _numbers(judge, judge(model, batch), runtime.device)
            for batch in batches(split, batch_size, device=runtime.device)
        )
    if not found:
        raise ValueError("cannot evaluate on a split that yields no sample")
    return _worth(judge, torch.stack(found).tolist())


def _numbers(judge: Judge, returned: Any, device: torch.device) -> Tensor:
    """What the judge returned as three float64 numbers on `device`: no value is looked at, so nothing is waited for."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        _refuse(judge, f"got {returned!r:.80}")
    parts = []
    for name, value in zip(("loss", "right", "counted"), returned, strict=True):
        if isinstance(value, Tensor) and value.numel() == 1:
            parts.append(value.detach().to(device, torch.float64).reshape(()))
        elif isinstance(value, Real):
            parts.append(torch.full((), float(value), dtype=torch.float64, device=device))
        else:
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            _refuse(judge, f"{name} is a {type(value).__name__}{shape}, no single number")
    return torch.stack(parts)


def _worth(judge: Judge, found: Sequence[Sequence[float]]) -> Worth:
    total, right, counted = 0.0, 0.0, 0
    for number, (loss, hits, count) in enumerate(found, 1):
        if not (0 <= count < math.inf and count == int(count)):
            _refuse(judge, f"in batch {number} it counted {count:g}, which is no number of answers")
        if not 0 <= hits <= count:
            share = f", an accuracy of {hits / count:.4g}" if count else ""
            _refuse(
                judge, f"in batch {number} it found {hits:g} of {count:g} right{share}, and an accuracy is in [0, 1]"
            )
        total, right, counted = total + loss, right + hits, counted + int(count)
    if not counted:
        raise ValueError(
            f"the judge {_name(judge)} counted no answer in {len(found)} batches, so there is no accuracy: give it a "
            f"split with labels that count (a label -100 does not)"
        )
    return Worth(right / counted, total / counted, counted)


def _refuse(judge: Judge, got: str) -> NoReturn:
    raise ValueError(
        f"the judge {_name(judge)} must return (summed loss, right answers, answers counted) of a batch: {got}"
    )


def _name(judge: Any) -> str:
    """What a reader calls it: the function's name, or the class of a callable object."""
    while isinstance(judge, functools.partial):
        judge = judge.func
    return getattr(judge, "__name__", type(judge).__name__)
