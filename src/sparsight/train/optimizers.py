"""Optimisers as values: a frozen dataclass that is called with the parameters."""

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
"""Makes an optimiser of a model's parameters."""


@dataclass(frozen=True)
class NesterovSGD:
    """SGD with Nesterov momentum, over all parameters: the optimiser of the PQ-index paper.

    Without a learning rate it is 0.1, and 0.03 for a network that is trained already. Fused into one pass over memory
    where torch has it (CPU and CUDA): a small network's step is bound by memory.
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
    """Adam, or AdamW if `decoupled`, with torch's moments (0.9, 0.999); fused where torch has it."""

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
"""Learning rates of training from scratch, where none is given."""

FINE_TUNING = {"sgd": 0.03, "adam": 1e-4, "adamw": 1e-4}
"""Learning rates for a network that is trained already, where none is given."""


def named_optimizer(
    name: str, lr: float | None, momentum: float, weight_decay: float, fine_tuning: bool = False
) -> NesterovSGD | Adam:
    """The optimiser of that name; without a learning rate, with the one it has for such a training.

    Momentum is SGD's alone. ValueError for an unknown name.
    """
    if name not in get_args(OptimizerName):
        raise ValueError(f"unknown optimizer {name!r}, expected one of {', '.join(get_args(OptimizerName))}")
    rate = (FINE_TUNING if fine_tuning else RATES)[name] if lr is None else lr
    if name == "sgd":
        return NesterovSGD(rate, momentum, weight_decay)
    return Adam(rate, weight_decay, decoupled=name == "adamw")
