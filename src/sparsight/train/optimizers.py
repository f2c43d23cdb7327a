"""Optimisers as values: a frozen dataclass that is called with the parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer


@dataclass(frozen=True)
class NesterovSGD:
    """SGD with Nesterov momentum, over all parameters: the optimiser of the PQ-index paper.

    Fused into one pass over memory where torch has it (CPU and CUDA): a small network's step is bound by memory.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        listed = list(parameters)
        return SGD(
            listed,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
            fused=all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in listed),
        )
