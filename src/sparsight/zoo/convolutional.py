"""Plain convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.zoo.seeding import image_shape, initialise_, seeded


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


def lenet5(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, *, seed: int | None = None) -> nn.Module:
    """LeNet-5 as Caffe has it, 20-50-500: 431 080 parameters on Fashion-MNIST, 430 500 prunable.

    Deviation: ReLU after both convolutions, as is usual now. Images of at least 16x16.
    """
    channels, height, width = image_shape(input_shape, 16, "lenet5")
    with seeded(seed):
        model = LeNet5(channels, height, width, classes)
        initialise_(model)
    return model


def cnn(
    input_shape: Sequence[int] = (1, 28, 28),
    classes: int = 10,
    *,
    width: float = 1.0,
    seed: int | None = None,
) -> nn.Module:
    """The paper's CNN, widths 64-128-256-512 times `width`: 1 556 874 parameters on Fashion-MNIST.

    1 553 984 of them are prunable. Images of at least 8x8. Widths are rounded, and at least 1.
    """
    channels, _, _ = image_shape(input_shape, 8, "cnn")
    if width <= 0:
        raise ValueError(f"width is {width}: allowed is more than 0")
    with seeded(seed):
        model = CNN(channels, [max(1, round(base * width)) for base in (64, 128, 256, 512)], classes)
        initialise_(model)
    return model
