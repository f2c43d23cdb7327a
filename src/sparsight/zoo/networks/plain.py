"""Networks without shortcuts: fully connected and convolutional ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.numerics.checks import check_positive, check_whole
from sparsight.zoo.networks.seeding import image_shape, published

# -- fully connected ---------------------------------------------------------------------------------------------


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


# -- convolutional -----------------------------------------------------------------------------------------------


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each with ReLU and 2x2 max-pool, then two linear layers."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        sides = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        self.fc1 = nn.Linear(50 * sides[0] * sides[1], 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class CNN(nn.Module):
    """Blocks of 3x3 convolution with bias, batch norm, ReLU; 2x2 max-pool between them; global average."""

    def __init__(self, channels: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.depth = len(widths)
        for i, width in enumerate(widths, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, 3, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            channels = width
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.depth + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
            x = F.max_pool2d(x, 2) if i < self.depth else x
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class VanillaCNN(nn.Module):
    """3x3 convolutions `conv1`, `conv2`, ... with circular padding, an activation after each, and a linear layer."""

    def __init__(
        self, shape: tuple[int, int, int], width: int, depth: int, classes: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        channels, height, sides = shape
        self.depth, self.activation = depth, activation
        for i in range(1, depth + 1):
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, 3, padding=1, padding_mode="circular"))
            channels = width
        self.fc = nn.Linear(width * height * sides, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.depth + 1):
            x = self.activation(getattr(self, f"conv{i}")(x))
        return self.fc(x.flatten(1))


def vanilla_cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    width: int = 16,
    depth: int = 4,
    activation: Callable[[Tensor], Tensor] = F.relu,
    seed: int | None = None,
) -> nn.Module:
    """The network of mean-field theory for images: `depth` convolutions of `width` channels, no pooling, no norm.

    Circular padding makes all positions alike. `activation` is a function or a module, shared by all layers. Images of
    at least 3x3.
    """
    shape = image_shape(input_shape, 3, "vanilla_cnn")
    check_whole(1, width=width, depth=depth)
    return published(lambda: VanillaCNN(shape, width, depth, classes, activation), seed)


def lenet5(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, seed: int | None = None) -> nn.Module:
    """LeNet-5 as in Caffe, 20-50-500: 431,080 parameters on Fashion-MNIST, 430,500 prunable.

    Deviation: ReLU after both convolutions. Images of at least 16×16.
    """
    channels, height, width = image_shape(input_shape, 16, "lenet5")
    return published(lambda: LeNet5(channels, height, width, classes), seed)


def cnn(
    input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, width: float = 1.0, seed: int | None = None
) -> nn.Module:
    """The paper's CNN, widths 64-128-256-512 times `width`: 1,556,874 parameters on Fashion-MNIST, 1,553,984 prunable.

    Images of at least 8×8. Widths are rounded, and at least 1.
    """
    channels, _, _ = image_shape(input_shape, 8, "cnn")
    check_positive(width=width)
    return published(
        lambda: CNN(channels, [max(1, round(base * width)) for base in (64, 128, 256, 512)], classes), seed
    )
