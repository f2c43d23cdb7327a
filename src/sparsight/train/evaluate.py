"""Evaluates a network on a split, without changing it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from sparsight.model.batch import tensors_of
from sparsight.model.functional import evaluating
from sparsight.numerics.exact import exact, home
from sparsight.numerics.seeds import reseeded, seeded
from sparsight.train.batches import batches
from sparsight.train.judges import Judge
from sparsight.train.metric import ACCURACY, LOSS, Metric
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


@dataclass(frozen=True)
class Worth:
    """The result of a judge on a split: every metric by name, and the one that chooses between networks.

    `samples` is the count of that metric: of labels, or of pixels for label maps.
    """

    values: Mapping[str, float]
    metric: Metric
    samples: int

    @property
    def accuracy(self) -> float | None:
        """In [0, 1]; None if it was not measured."""
        return self.values.get("accuracy")

    @property
    def loss(self) -> float | None:
        return self.values.get("loss")

    @property
    def others(self) -> dict[str, float]:
        """The metrics besides accuracy and loss."""
        return {name: value for name, value in self.values.items() if name not in ("accuracy", "loss")}


def evaluate(
    model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime, *, batch_size: int = 250
) -> Worth:
    """Evaluate a network on a split, in eval mode and without gradients; does not change the model or random state.

    Raises: ValueError for an empty split, or a judge that does not return (sum, count) of named metrics or three
    numbers, has an accuracy outside [0, 1], counts no answer in the split, or does not say which way is better.
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
        raise ValueError("cannot evaluate on an empty split")
    if meter is not None:
        values = {name: float(value) for name, value in meter.values().items()}
        return Worth(values, _chosen(judge, values), samples)
    return _worth(judge, found)


def try_judge(model: nn.Module, split: Split | Iterable[Batch], judge: Judge, runtime: Runtime) -> None:
    """Evaluate the first batch of a split, to find errors of network and judge before training. Raises: ValueError."""
    with evaluating(model), seeded(0), reseeded(split, 0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, 32, device=runtime.device):
            try:
                if hasattr(judge, "begin"):
                    judge.begin().add(model, batch)  # type: ignore[attr-defined]
                else:
                    _chosen(judge, _numbers(judge, judge(model, batch), runtime.device))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                got = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in tensors_of(batch))
                raise ValueError(
                    f"{type(model).__name__} and the judge {_name(judge)} do not fit the data, whose first validation "
                    f"batch holds tensors of {got}: {error}"
                ) from error
            return


def _numbers(judge: Judge, returned: Any, device: torch.device) -> Mapping[str, Tensor]:
    """The (sum, count) of each metric in float64, on `home(device)`, without waiting for their values."""
    if isinstance(returned, (tuple, list)) and len(returned) == 3:
        loss, right, counted = returned
        returned = {"loss": (loss, counted), "accuracy": (right, counted)}
    if not isinstance(returned, Mapping) or not returned:
        _refuse(judge, f"got {returned!r:.80}")
    parts = {}
    for name, pair in returned.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            _refuse(judge, f"{name} is {pair!r:.60}, not (sum, count)")
        parts[str(name)] = torch.stack([_single(judge, name, value, device) for value in pair])
    return parts


def _single(judge: Judge, name: str, value: Any, device: torch.device) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1:
        return exact(value.detach().to(device)).reshape(())
    if isinstance(value, Real):
        return torch.full((), float(value), dtype=torch.float64, device=home(device))
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    _refuse(judge, f"{name} holds a {type(value).__name__}{shape}, not a single number")


def _worth(judge: Judge, found: Sequence[Mapping[str, Tensor]]) -> Worth:
    answered = list(enumerate(found, 1))
    if len({tuple(parts) for parts in found}) > 1:  # without answers, a batch may not tell which metrics it has
        answered = [(n, parts) for n, parts in answered if any(bool(pair[1]) for pair in parts.values())] or answered
    names = tuple(answered[0][1])
    odd = next(((n, parts) for n, parts in answered if tuple(parts) != names), None)
    if odd is not None:
        _refuse(judge, f"batch {odd[0]} has the metrics {', '.join(odd[1])}, the first batch {', '.join(names)}")
    values, counts = {}, {}
    finish: Mapping[str, Callable[[float], float]] = getattr(judge, "finish", {})
    for name in names:
        total, count = _summed(judge, name, torch.stack([parts[name] for _, parts in answered]).tolist())
        mean = total / count if count else math.nan
        values[name], counts[name] = _finished(finish[name], mean) if name in finish and count else mean, count
    metric = _chosen(judge, values)
    if not counts.get(metric.name):
        raise ValueError(
            f"the judge {_name(judge)} counted no answer in {len(found)} batches, so there is no {metric.name}: the "
            "split needs labels other than -100"
        )
    return Worth(values, metric, counts[metric.name])


def _finished(finish: Callable[[float], float], mean: float) -> float:
    try:
        return finish(mean)
    except OverflowError:  # the perplexity of a broken network
        return math.inf


def _summed(judge: Judge, name: str, pairs: Sequence[Sequence[float]]) -> tuple[float, int]:
    sums, counted = 0.0, 0
    for number, (total, count) in enumerate(pairs, 1):
        if not (0 <= count < math.inf and count == int(count)):
            _refuse(judge, f"the count of {name} in batch {number} is {count:g}, not a whole number of answers")
        if name == "accuracy" and not 0 <= total <= count:
            share = f", an accuracy of {total / count:.4g}" if count else ""
            _refuse(judge, f"batch {number} has {total:g} of {count:g} right{share}, but an accuracy must be in [0, 1]")
        sums, counted = sums + total, counted + int(count)
    return sums, counted


def _chosen(judge: Judge, values: Mapping[str, Any]) -> Metric:
    """The metric that chooses between networks: the first of the judge's metrics that it measured."""
    own = getattr(judge, "metrics", (ACCURACY, LOSS) if set(values) <= {"accuracy", "loss"} else ())
    for metric in own:
        if metric.name in values:
            return metric
    raise ValueError(
        f"the judge {_name(judge)} measures {', '.join(values)} but does not say which metric chooses a network, or "
        "which way is better: wrap it as Judged(judge, (Metric('name', better='higher'),))"
    )


def _refuse(judge: Judge, got: str) -> NoReturn:
    raise ValueError(
        f"the judge {_name(judge)} must return (summed loss, right answers, number of answers), or (sum, count) of "
        f"each metric by name: {got}"
    )


def _name(judge: Any) -> str:
    """The name of a function, or of the class of a callable object."""
    while isinstance(judge, functools.partial):
        judge = judge.func
    return getattr(judge, "__name__", type(judge).__name__)
