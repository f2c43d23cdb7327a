"""Torchmetrics metrics as judges, for values that are not means over samples, such as F1 or mAP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from sparsight.model.batch import batch_size, labels_of, predict, scores_of
from sparsight.train.metric import Metric
from sparsight.types import Batch


class Meter(Protocol):
    """Accumulates a split, for a judge with `begin`."""

    def add(self, model: nn.Module, batch: Batch) -> int:
        """Add a batch; returns its number of samples."""
        ...

    def values(self) -> Mapping[str, float]: ...


def is_torch_metric(thing: Any) -> bool:
    """Whether `thing` behaves like a torchmetrics.Metric, without importing torchmetrics."""
    return all(callable(getattr(thing, part, None)) for part in ("update", "compute", "reset", "clone"))


def scores_and_labels(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
    """The arguments of a torchmetrics metric: the network's scores, and the labels."""
    output = predict(model, batch)
    scores = scores_of(output)
    return (output if scores is None else scores), labels_of(batch)


@dataclass(frozen=True)
class TorchMetric:
    """A torchmetrics metric as a judge: `TorchMetric(MulticlassF1Score(num_classes=10))`.

    `read(model, batch)` returns the arguments of its `update`: predictions and targets. `better` and `share` default to
    the metric's own `higher_is_better` and bounds. `key` selects an entry of a metric that computes a dictionary, such
    as mAP.

    Raises: TypeError for anything but a torchmetrics metric; ValueError if the direction is unknown.
    """

    metric: Any
    name: str = ""
    better: Literal["higher", "lower"] | None = None
    share: bool | None = None
    key: str | None = None
    read: Callable[[nn.Module, Batch], tuple[Any, Any]] = scores_and_labels

    def __post_init__(self) -> None:
        if not is_torch_metric(self.metric):
            raise TypeError(f"a TorchMetric needs a torchmetrics.Metric, got {self.metric!r:.60}")
        if self.better is None and getattr(self.metric, "higher_is_better", None) is None:
            raise ValueError(
                f"{type(self.metric).__name__} does not say which way is better: set better='higher' or 'lower'"
            )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        better = self.better or ("higher" if self.metric.higher_is_better else "lower")
        bounds = getattr(self.metric, "plot_lower_bound", None), getattr(self.metric, "plot_upper_bound", None)
        return (Metric(self._name, better, bounds == (0.0, 1.0) if self.share is None else self.share),)

    @property
    def _name(self) -> str:
        return self.name or self.key or type(self.metric).__name__

    def begin(self) -> Meter:
        """A fresh copy of the metric, for one split."""
        return _OfSplit(self, self.metric.clone())

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, tuple[float, int]]:
        meter = self.begin()
        n = meter.add(model, batch)
        return {self._name: (meter.values()[self._name] * n, n)}


class _OfSplit:
    def __init__(self, judge: TorchMetric, metric: Any) -> None:
        self.judge, self.metric = judge, metric
        self.metric.reset()

    def add(self, model: nn.Module, batch: Batch) -> int:
        predictions, targets = self.judge.read(model, batch)
        device = next((x.device for x in model.parameters()), torch.device("cpu"))
        self.metric = self.metric.to(device)
        self.metric.update(predictions, targets)
        return batch_size(batch)

    def values(self) -> Mapping[str, float]:
        found = self.metric.compute()
        if isinstance(found, Mapping):
            key = self.judge.key
            if key not in found:
                raise ValueError(f"{type(self.metric).__name__} computes {', '.join(found)}: set key to one of them")
            found = found[key]
        return {self.judge._name: float(found)}
