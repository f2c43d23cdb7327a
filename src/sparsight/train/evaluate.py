"""What a network is worth on a split. Measuring changes nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating
from sparsight.numerics.exact import exact, home
from sparsight.numerics.seeds import reseeded, seeded
from sparsight.train.batches import batches
from sparsight.train.judges import Judge, classify
from sparsight.train.metric import ACCURACY, LOSS, Metric
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


@dataclass(frozen=True)
class Worth:
    """What a judge found on a split: every metric by name, and the one that networks are chosen by.

    `samples` are what that one counted: labels, of a label map pixels.
    """

    values: Mapping[str, float]
    metric: Metric
    samples: int

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None where it was not measured."""
        return self.values.get("accuracy")

    @property
    def loss(self) -> float | None:
        return self.values.get("loss")

    @property
    def others(self) -> dict[str, float]:
        """The metrics beside accuracy and loss."""
        return {name: value for name, value in self.values.items() if name not in ("accuracy", "loss")}


def evaluate(
    model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime, *, batch_size: int = 1000
) -> Worth:
    """Judge a network on a split, in eval mode and without gradients; parameters, flags and random state stay.

    ValueError, naming the judge: it does not return (sum, count) of named metrics or three numbers, its share of right
    answers is not in [0, 1] in some batch, it counts none in the whole split, or it does not say which way is better.
    ValueError for a split without a batch.
    """
    found: list[Mapping[str, Tensor]] = []
    meter, samples = (judge.begin(), 0) if hasattr(judge, "begin") else (None, 0)  # type: ignore[attr-defined]
    with evaluating(model), seeded(0), reseeded(split, 0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, batch_size, device=runtime.device):
            if meter is not None:
                samples += meter.add(model, batch)
            else:
                found.append(_numbers(judge, judge(model, batch), runtime.device))
    if not found and not samples:
        raise ValueError("cannot evaluate on a split that yields no sample")
    if meter is not None:
        values = {name: float(value) for name, value in meter.values().items()}
        return Worth(values, _chosen(judge, values), samples)
    return _worth(judge, found)


def try_judge(model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime) -> None:
    """Judge the first batch of a split, so that a judge that cannot do it is found out before a network is trained.

    ValueError as `evaluate`, but for what is only known of a whole split.
    """
    with evaluating(model), seeded(0), reseeded(split, 0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, 32, device=runtime.device):
            if hasattr(judge, "begin"):
                judge.begin().add(model, batch)  # type: ignore[attr-defined]
            else:
                _chosen(judge, _numbers(judge, judge(model, batch), runtime.device))
            return


def _numbers(judge: Judge, returned: Any, device: torch.device) -> Mapping[str, Tensor]:
    """(sum, count) of each metric in float64, at home of `device`: no value is looked at, so nothing is waited for."""
    if isinstance(returned, (tuple, list)) and len(returned) == 3:
        loss, right, counted = returned
        returned = {"loss": (loss, counted), "accuracy": (right, counted)}
    if not isinstance(returned, Mapping) or not returned:
        _refuse(judge, f"got {returned!r:.80}")
    parts = {}
    for name, pair in returned.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            _refuse(judge, f"{name} is {pair!r:.60}, no (sum, count)")
        parts[str(name)] = torch.stack([_single(judge, name, value, device) for value in pair])
    return parts


def _single(judge: Judge, name: str, value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1:
        return exact(value.detach().to(device)).reshape(())
    if isinstance(value, Real):
        return torch.full((), float(value), dtype=torch.float64, device=home(device))
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    _refuse(judge, f"{name} holds a {type(value).__name__}{shape}, no single number")


def _worth(judge: Judge, found: Sequence[Mapping[str, Tensor]]) -> Worth:
    names = tuple(found[0])
    odd = next((number for number, parts in enumerate(found, 1) if tuple(parts) != names), None)
    if odd is not None:
        _refuse(judge, f"in batch {odd} it measured {', '.join(found[odd - 1])}, and in the first {', '.join(names)}")
    values, counts = {}, {}
    finish: Mapping[str, Callable[[float], float]] = getattr(judge, "finish", {})
    for name in names:
        total, count = _summed(judge, name, torch.stack([parts[name] for parts in found]).tolist())
        mean = total / count if count else math.nan
        values[name], counts[name] = finish[name](mean) if name in finish and count else mean, count
    metric = _chosen(judge, values)
    if not counts.get(metric.name):
        raise ValueError(
            f"the judge {_name(judge)} counted no answer in {len(found)} batches, so there is no {metric.name}: give "
            f"it a split with labels that count (a label -100 does not)"
        )
    return Worth(values, metric, counts[metric.name])


def _summed(judge: Judge, name: str, pairs: Sequence[Sequence[float]]) -> tuple[float, int]:
    sums, counted = 0.0, 0
    for number, (total, count) in enumerate(pairs, 1):
        if not (0 <= count < math.inf and count == int(count)):
            _refuse(judge, f"in batch {number} it counted {count:g} for {name}, which is no number of answers")
        if name == "accuracy" and not 0 <= total <= count:
            share = f", an accuracy of {total / count:.4g}" if count else ""
            _refuse(
                judge, f"in batch {number} it found {total:g} of {count:g} right{share}, and an accuracy is in [0, 1]"
            )
        sums, counted = sums + total, counted + int(count)
    return sums, counted


def _chosen(judge: Judge, values: Mapping[str, Any]) -> Metric:
    """The metric that networks are chosen by: the first of the judge's own that it measured."""
    own = getattr(judge, "metrics", (ACCURACY, LOSS) if set(values) <= {"accuracy", "loss"} else ())
    for metric in own:
        if metric.name in values:
            return metric
    raise ValueError(
        f"the judge {_name(judge)} measures {', '.join(values)} and does not say by which networks are chosen, nor "
        "which way is better: wrap it as Judged(judge, (Metric('name', better='higher'),))"
    )


def _refuse(judge: Judge, got: str) -> NoReturn:
    raise ValueError(
        f"the judge {_name(judge)} must return (summed loss, right answers, answers counted) of a batch, or (sum, "
        f"count) of each metric by name: {got}"
    )


def _name(judge: Any) -> str:
    """What a reader calls it: the function's name, or the class of a callable object."""
    while isinstance(judge, functools.partial):
        judge = judge.func
    return getattr(judge, "__name__", type(judge).__name__)


__all__ = ["Judge", "Worth", "classify", "evaluate", "try_judge"]
