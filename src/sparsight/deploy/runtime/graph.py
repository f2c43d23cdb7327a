"""The runtime's view of a network: a list of operations on images (channels, height, width)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch.utils._pytree import TreeSpec

from sparsight.deploy.runtime.weight import Weight

Shape = tuple[int, int, int]
Pair = tuple[int, int]
Name = Literal["", "relu", "relu6", "silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class Value:
    """The result of an operation: its number in the graph, and its shape without the batch."""

    number: int
    shape: Shape


@dataclass(frozen=True)
class Input:
    shape: Shape


@dataclass(frozen=True, eq=False)
class Conv:
    """A weight (out, in / groups, height, width); bias, `add`, activation. Linear layers are 1 x 1."""

    x: Value
    weight: Weight
    bias: np.ndarray
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    activation: Name = ""
    add: Value | None = None


@dataclass(frozen=True)
class Pool:
    """The maximum or mean of each window. Means count padding if `padded`."""

    x: Value
    kind: Literal["max", "mean"]
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: int = 1
    padded: bool = True


@dataclass(frozen=True)
class Mean:
    """The mean of each channel's whole plane."""

    x: Value


@dataclass(frozen=True)
class Sum:
    """x plus `add`, if any, then the activation."""

    x: Value
    add: Value | None
    activation: Name = ""


@dataclass(frozen=True)
class Concat:
    """Channels one after another."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Part:
    """Channels starting at `first`."""

    x: Value
    first: int
    count: int


@dataclass(frozen=True)
class Resample:
    """Pixel (i, j) is input pixel (rows[i], cols[j]), 0 for -1: upsampling, padding, slices."""

    x: Value
    rows: tuple[int, ...]
    cols: tuple[int, ...]


@dataclass(frozen=True)
class Flatten:
    """All pixels of all channels, as channels of one pixel."""

    x: Value


Operation = Input | Conv | Pool | Mean | Sum | Concat | Part | Resample | Flatten


def _window(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass
class Graph:
    """Operations in topological order, and the output values."""

    operations: list[Operation] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # dimensions of each output in torch
    structure: TreeSpec | None = None  # the structure of the module's result

    def add(self, operation: Operation) -> Value:
        """Append an operation; returns its value. Raises: ValueError if shapes do not fit."""
        shape = shape_of(operation)
        if min(shape) < 1:
            raise ValueError(f"{type(operation).__name__} leaves nothing of its input: {shape}")
        value = Value(len(self.values), shape)
        self.operations.append(operation)
        self.values.append(value)
        return value

    @property
    def flat(self) -> bool:
        """Whether all values are plain features."""
        return all(value.shape[1:] == (1, 1) for value in self.values)

    def signature(self) -> str:
        """A key for its speed: operations, shapes, and sparsities in steps of 1 %."""
        words = []
        for operation, value in zip(self.operations, self.values, strict=True):
            words.append(f"{type(operation).__name__}{value.shape}")
            if isinstance(operation, Conv):
                weight = operation.weight
                words.append(f"{weight.shape}/{operation.stride}{operation.dilation} {weight.density:.2f}")
        return hashlib.sha256(" ".join(words).encode()).hexdigest()

    def input(self, shape: Shape) -> Value:
        return self.add(Input(shape))


def shape_of(operation: Operation) -> Shape:
    """The shape of an operation's result. Raises: ValueError if its operands do not fit."""
    match operation:
        case Input(shape):
            return shape
        case Conv(x, weight, bias, stride, padding, dilation, groups, _, add):
            channels, inner, *kernel = weight.shape
            if inner * groups != x.shape[0] or bias.shape != (channels,) or channels % groups:
                raise ValueError(f"weight {weight.shape} with {groups} groups does not fit {x.shape[0]} channels")
            sizes = zip(x.shape[1:], kernel, stride, padding, dilation, strict=True)
            h, w = (_window(*size) for size in sizes)
            if add is not None and add.shape != (channels, h, w):
                raise ValueError(f"cannot add {add.shape} to {(channels, h, w)}")
            return channels, h, w
        case Pool(x, _, kernel, stride, padding, dilation):
            sizes = zip(x.shape[1:], kernel, stride, padding, strict=True)
            h, w = (_window(*size, dilation) for size in sizes)
            return x.shape[0], h, w
        case Mean(x):
            return x.shape[0], 1, 1
        case Sum(x, add, _):
            if add is not None and add.shape != x.shape:
                raise ValueError(f"cannot add {add.shape} to {x.shape}")
            return x.shape
        case Concat(parts):
            if len({part.shape[1:] for part in parts}) != 1:
                raise ValueError("images of different sizes cannot be joined")
            return sum(part.shape[0] for part in parts), *parts[0].shape[1:]
        case Part(x, first, count):
            if first < 0 or first + count > x.shape[0]:
                raise ValueError(f"{x.shape[0]} channels have no part from {first} to {first + count}")
            return count, *x.shape[1:]
        case Resample(x, rows, cols):
            if max(rows) >= x.shape[1] or max(cols) >= x.shape[2]:
                raise ValueError(f"an image of {x.shape[1:]} has no pixel ({max(rows)}, {max(cols)})")
            return x.shape[0], len(rows), len(cols)
        case Flatten(x):
            return int(np.prod(x.shape)), 1, 1
