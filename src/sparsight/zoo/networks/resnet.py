"""Residual networks: the paper's pre-activation ResNet-18, and the small ones of the CIFAR experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict, Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.zoo.networks.seeding import image_shape, published


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


class PreActivationBlock(nn.Module):
    """x + s conv2(relu(bn2(conv1(a)))), a = relu(bn1(x)); if the shape changes, a 1x1 convolution of a replaces x."""

    def __init__(self, inputs: int, outputs: int, stride: int, scale: float = 1.0, norm: bool = True) -> None:
        super().__init__()
        self.branch_scale = scale
        self.bn1 = _norm(inputs, norm)
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn2 = _norm(outputs, norm)
        self.conv2 = _conv3x3(outputs, outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(a)
        return _scaled(self.conv2(F.relu(self.bn2(self.conv1(a)))), self.branch_scale) + shortcut


class PreActivationResNet(nn.Module):
    """3x3 stem, stages of blocks (all but the first halve the image), batch norm, ReLU, global average."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        classes: int,
        scale: float = 1.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.stem = _conv3x3(channels, widths[0])
        inputs, stages = widths[0], []
        for i, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            first = PreActivationBlock(inputs, width, 2 if i else 1, scale, norm)
            others = [PreActivationBlock(width, width, 1, scale, norm) for _ in range(n - 1)]
            stages.append(nn.Sequential(first, *others))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.bn = _norm(inputs, norm)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stages(self.stem(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """relu(x + s bn2(conv2(relu(bn1(conv1(x)))))); if the shape changes, x is subsampled and padded with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int, scale: float = 1.0, norm: bool = True) -> None:
        super().__init__()
        self.branch_scale = scale
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = _norm(outputs, norm)
        self.conv2 = _conv3x3(outputs, outputs)
        self.bn2 = _norm(outputs, norm)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = _scaled(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))), self.branch_scale)
        x = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(x, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)))


class SmallResNet(nn.Module):
    """He et al. 2016, section 4.2: stem of 16, then n blocks each of 16, 32 and 64 channels: 6n + 2 layers."""

    def __init__(self, channels: int, n: int, classes: int, scale: float = 1.0, norm: bool = True) -> None:
        super().__init__()
        self.conv = _conv3x3(channels, 16)
        self.bn = _norm(16, norm)
        blocks, inputs = [], 16
        for i, width in enumerate((16, 32, 64)):
            for j in range(n):
                blocks.append(Block(inputs, width, 2 if i and j == 0 else 1, scale, norm))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Options(TypedDict, total=False):
    """Options of every residual network.

    `stable` multiplies every residual branch, after its last norm, by 1 / sqrt(blocks); without `norm` (it is on by
    default) there is no batch norm.
    """

    stable: bool
    norm: bool
    seed: int | None


def resnet18(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, **how: Unpack[Options]) -> nn.Module:
    """The paper's ResNet-18: pre-activation, 64-128-256-512, two blocks a stage, 3x3 stem, no max-pool.

    11,171,018 parameters on Fashion-MNIST, 11,163,200 of them prunable, in 21 tensors.
    """
    channels, _, _ = image_shape(input_shape, 1, "resnet18")
    kind = partial(PreActivationResNet, channels, (64, 128, 256, 512), (2, 2, 2, 2), classes)
    return _made(kind, 8, **how)


def resnet32(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, **how: Unpack[Options]) -> nn.Module:
    """ResNet-32 of He et al. 2016 with shortcuts without parameters (option A): 15 blocks."""
    return _small(5, "resnet32", input_shape, classes, **how)


def resnet20(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, **how: Unpack[Options]) -> nn.Module:
    """ResNet-20 of He et al. 2016 with shortcuts without parameters (option A): 9 blocks, 269,434 parameters."""
    return _small(3, "resnet20", input_shape, classes, **how)


def resnet8(input_shape: Sequence[int] = (1, 28, 28), classes: int = 10, **how: Unpack[Options]) -> nn.Module:
    """A smaller ResNet-20 with one block per stage: 75,002 parameters."""
    return _small(1, "resnet8", input_shape, classes, **how)


def _small(n: int, name: str, input_shape: Sequence[int], classes: int, **how: Unpack[Options]) -> nn.Module:
    channels, _, _ = image_shape(input_shape, 1, name)
    return _made(partial(SmallResNet, channels, n, classes), 3 * n, **how)


def _made(
    kind: Callable[[float, bool], nn.Module],
    blocks: int,
    stable: bool = False,
    norm: bool = True,
    seed: int | None = None,
) -> nn.Module:
    return published(lambda: kind(blocks**-0.5 if stable else 1.0, norm), seed)


def _norm(width: int, wanted: bool) -> nn.Module:
    return nn.BatchNorm2d(width) if wanted else nn.Identity()


def _scaled(x: Tensor, factor: float) -> Tensor:
    """x times factor; x itself for 1."""
    return x if factor == 1.0 else x * factor
