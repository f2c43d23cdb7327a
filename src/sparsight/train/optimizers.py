"""Optimisers as frozen dataclasses that are called with the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from sparsight.numerics.checks import check_not_negative

OptimizerName = Literal["sgd", "adam", "adamw"]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes an optimiser for the parameters of a model."""


@dataclass(frozen=True)
class NesterovSGD:
    """SGD with Nesterov momentum over all parameters, as in the PQ-index paper.

    The default learning rate is 0.1, or 0.03 for a pretrained network. Fused on CPU and CUDA, because memory bounds the
    step of a small network.
    """

    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        check_not_negative(momentum=self.momentum, weight_decay=self.weight_decay)
        if self.lr is not None:
            check_not_negative(lr=self.lr)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        listed = list(parameters)
        return SGD(
            listed,
            lr=RATES["sgd"] if self.lr is None else self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
            fused=_fusible(listed),
        )


@dataclass(frozen=True)
class Adam:
    """Adam, or AdamW if `decoupled`, with torch's moments (0.9, 0.999); fused on CPU and CUDA."""

    lr: float = 1e-3
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        check_not_negative(lr=self.lr, weight_decay=self.weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        listed, kind = list(parameters), torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(listed, lr=self.lr, weight_decay=self.weight_decay, fused=_fusible(listed))


def _fusible(parameters: Iterable[nn.Parameter]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
"""Default learning rates for training from scratch."""

FINE_TUNING = {"sgd": 0.03, "adam": 1e-4, "adamw": 1e-4}
"""Default learning rates for a pretrained network."""


def named_optimizer(
    name: str, lr: float | None, momentum: float, weight_decay: float, fine_tuning: bool = False
) -> NesterovSGD | Adam:
    """The optimiser of that name; only SGD uses `momentum`. Raises: ValueError for an unknown name."""
    if name not in get_args(OptimizerName):
        raise ValueError(f"optimizer must be one of {', '.join(get_args(OptimizerName))}, got {name!r}")
    rate = (FINE_TUNING if fine_tuning else RATES)[name] if lr is None else lr
    if name == "sgd":
        return NesterovSGD(rate, momentum, weight_decay)
    return Adam(rate, weight_decay, decoupled=name == "adamw")
