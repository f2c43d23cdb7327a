"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.zoo.networks.seeding import published


class MLP(nn.Module):
    """Linear layers `fc1`, `fc2`, ... with an activation between them, over the flattened input."""

    def __init__(self, widths: Sequence[int], activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.depth = len(widths) - 1
        for i in range(self.depth):
            self.add_module(f"fc{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i in range(self.depth):
            layer = getattr(self, f"fc{i + 1}")
            x = layer(self.activation(x) if i else x)
        return x


def mlp(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    hidden: Sequence[int] = (128, 256),
    activation: Callable[[Tensor], Tensor] = F.relu,
    seed: int | None = None,
) -> nn.Module:
    """The paper's MLP: 784-128-256-10 on Fashion-MNIST (136,074 parameters, 135,680 prunable).

    `activation` is a function, or a module that all layers share.
    """
    widths = (math.prod(input_shape), *hidden, classes)
    if min(widths) < 1:
        raise ValueError(f"sizes of layers must be at least 1, got {widths}")
    return published(lambda: MLP(widths, activation), seed)


def linear(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, seed: int | None = None) -> nn.Module:
    """The paper's linear model: one layer (7,850 parameters on Fashion-MNIST, 7,840 prunable)."""
    return mlp(input_shape, classes, hidden=(), seed=seed)


def lenet_300_100(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, seed: int | None = None) -> nn.Module:
    """LeNet-300-100 of LeCun et al. 1998: 784-300-100-10 on Fashion-MNIST (266,200 prunable)."""
    return mlp(input_shape, classes, hidden=(300, 100), seed=seed)
