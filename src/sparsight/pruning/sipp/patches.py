"""Layer inputs as matrices, with a column for each position of a filter."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sparsight.model.weights import layout_of

# torch types the attributes of an nn.Module as Tensor | Module: hence the ignores below.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def as_points(layer: nn.Module, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """The input with its points along dimension 0: each row of a linear layer's input (each token) is a point."""
    if not isinstance(layer, _CONVOLUTIONS):
        return x.reshape(-1, x.shape[-1])
    return x.unsqueeze(0) if x.dim() == layer.weight.dim() - 1 else x  # type: ignore[union-attr, operator]


def shape_of(layer: nn.Module) -> tuple[int, int, int]:
    """(groups, weights per filter, weights per filter and input channel) of a layer.

    Raises: TypeError for anything but linear layers and ordinary convolutions.
    """
    kind, layout = layout_of(layer) or (None, None)
    if kind == "linear" and layout is not None:
        return 1, layout.rows(layer.weight).shape[1], 1  # type: ignore[arg-type]
    if isinstance(layer, _CONVOLUTIONS):
        kernel = math.prod(layer.kernel_size)
        return layer.groups, layer.in_channels // layer.groups * kernel, kernel
    raise TypeError(f"expected Linear, Conv1d, Conv2d, Conv3d or GPT-2's Conv1D, got {type(layer).__name__}")


def patches_of(layer: nn.Module, x: Float[Tensor, ...]) -> int:
    """Patches per point: the output positions of a convolution, 1 for a linear layer."""
    return math.prod(_geometry(layer, x)[1]) if isinstance(layer, _CONVOLUTIONS) else 1


def columns(layer: nn.Module, x: Float[Tensor, "N ..."]) -> Float[Tensor, "G K M"]:
    """The patches of all points as columns, for each of the layer's groups: M = N P, point by point.

    Rows are the weights of a filter in memory order (input channel, then kernel position):
    `weight.reshape(G, F / G, K) @ columns` is the layer's output without its bias, for any stride, dilation, groups and
    padding mode.
    """
    if not isinstance(layer, _CONVOLUTIONS):
        return x.t().unsqueeze(0).contiguous()
    x, places = _padded(layer, x), _geometry(layer, x)[1]
    n, channels, *_ = x.shape
    per_point, per_channel, *along = x.stride()
    inside = channels // layer.groups
    size = (layer.groups, inside, *layer.kernel_size, n, *places)
    stride = (
        per_channel * inside,
        per_channel,
        *(s * d for s, d in zip(along, layer.dilation, strict=True)),
        per_point,
        *(s * d for s, d in zip(along, layer.stride, strict=True)),
    )
    strided = x.as_strided(size, stride, x.storage_offset())
    return strided.reshape(layer.groups, inside * math.prod(layer.kernel_size), n * math.prod(places)).contiguous()


def _padding(layer: nn.Module) -> tuple[int, ...]:
    """Padding before and after each dimension, last dimension first, also for padding='same'."""
    return tuple(layer._reversed_padding_repeated_twice)  # type: ignore[union-attr, arg-type]


def _padded(layer: nn.Module, x: Tensor) -> Tensor:
    padding = _padding(layer)
    if not any(padding):
        return x.contiguous()
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, padding, mode=mode).contiguous()  # type: ignore[arg-type]


def _geometry(layer: nn.Module, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of the padded input and of the output, dimension by dimension."""
    padding = _padding(layer)[::-1]
    sizes = x.shape[-len(layer.kernel_size) :]  # type: ignore[arg-type]
    padded = tuple(s + padding[2 * i] + padding[2 * i + 1] for i, s in enumerate(sizes))
    parts = zip(padded, layer.kernel_size, layer.dilation, layer.stride, strict=True)  # type: ignore[arg-type]
    return padded, tuple((s - d * (k - 1) - 1) // step + 1 for s, k, d, step in parts)
