"""Translates each of torch's operations into the runtime's graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import fx

from sparsight.deploy.runtime.graph import Concat, Conv, Flatten, Mean, Name, Part, Pool, Resample, Sum, Value, shape_of
from sparsight.deploy.runtime.tracer import Made, NotTraced, Tracer, pair
from sparsight.deploy.runtime.weight import Weight
from sparsight.deploy.torch_graph import arguments, name_of

_ACTIVATIONS: dict[str, Name] = {"relu": "relu", "relu6": "relu6", "hardtanh": "relu6", "silu": "silu", "gelu": "gelu"}


def _conv(t: Tracer, node: fx.Node) -> Conv | Sum:
    x, w, b, stride, padding, dilation, groups = arguments(node).values()
    weight = t.weight(w)
    if len(weight.shape) != 4:
        raise NotTraced(f"the runtime has convolutions of images only, not of {len(weight.shape) - 2} dimensions")
    dilation = pair(dilation)
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(n % 2 for n in total):
            raise NotTraced("padding='same' that is not symmetric")
        padding = [n // 2 for n in total] if padding == "same" else 0
    bias = t.constant(b, np.zeros(len(weight)))
    return Conv(t.value(x), weight, bias, pair(stride), pair(padding), dilation, groups)


def _linear(t: Tracer, node: fx.Node) -> Conv | Sum:
    x, w, b = arguments(node).values()
    source, weight = t.value(x), t.weight(w)
    if source.shape[1:] != (1, 1):
        raise NotTraced("a linear layer over the last of several dimensions")
    return Conv(source, weight.kernels(), t.constant(b, np.zeros(len(weight))))


def _addmm(t: Tracer, node: fx.Node) -> Conv | Sum:
    """A linear layer with a transposed weight."""
    b, x, w, beta, alpha = arguments(node).values()
    weight, bias = t.weight(w).transposed(), t.constant(b)
    if (alpha, beta) != (1, 1):
        raise NotTraced("a product of two activations")
    return Conv(t.value(x), weight.kernels(), np.broadcast_to(bias, len(weight)))


def _scaled(t: Tracer, x: fx.Node, scale: np.ndarray, shift: np.ndarray) -> Conv | Sum:
    """Each channel times its scale, plus its shift: folded into the convolution before, or as one."""
    before = t.alone(x)
    if isinstance(before, Conv) and not before.activation and before.add is None:
        return replace(before, weight=before.weight.times(scale), bias=before.bias * scale + shift)
    return Conv(t.value(x), Weight.of(scale.reshape(-1, 1, 1, 1)), shift, groups=len(scale))


def _batch_norm(t: Tracer, node: fx.Node) -> Conv | Sum:
    x, w, b, mean, variance, training, _, eps, _ = arguments(node).values()
    if training or mean is None or variance is None:
        raise NotTraced("BatchNorm that computes the statistics of its batch")
    mean, variance = t.constant(mean), t.constant(variance)
    scale = t.constant(w, np.ones(len(mean))) / np.sqrt(variance + eps)
    return _scaled(t, x, scale, t.constant(b, np.zeros(len(mean))) - mean * scale)


def _activation(t: Tracer, node: fx.Node) -> Conv | Sum:
    (x, *limits), kind = arguments(node).values(), _ACTIVATIONS[name_of(node)[0]]
    if kind == "gelu" and node.kwargs.get("approximate", "none") == "tanh":
        kind = "gelu_tanh"
    if kind == "relu6" and limits not in ([], [0, 6]):
        raise NotTraced(f"clamping to {limits}")
    before = t.alone(x)
    if before is not None and not before.activation:
        return replace(before, activation=kind)
    return Sum(t.value(x), None, kind)


def _sum(t: Tracer, node: fx.Node) -> Conv | Sum:
    x, other, alpha = arguments(node).values()
    if alpha != 1 or not all(isinstance(n, fx.Node) and n in t.found for n in (x, other)):
        raise NotTraced("a sum with anything but a second activation")
    for first, second in ((x, other), (other, x)):
        before = t.alone(first)
        if isinstance(before, Conv) and before.add is None and not before.activation and first is not second:
            add = t.value(second)
            if add.shape == shape_of(before):
                return replace(before, add=add)
    return Sum(t.value(x), t.value(other))


def _pool(t: Tracer, node: fx.Node) -> Value:
    if name_of(node)[0] == "max_pool2d":
        x, kernel, stride, padding, dilation, ceil = arguments(node).values()
        kind, padded, divisor = "max", True, None
    else:
        x, kernel, stride, padding, ceil, padded, divisor = arguments(node).values()
        kind, dilation = "mean", 1
    down, right = pair(dilation)
    if ceil or divisor is not None or down != right:
        raise NotTraced("pooling with ceil_mode, a divisor of its own or two dilations")
    kernel = pair(kernel)
    stride = pair(stride) if stride else kernel
    return t.graph.add(Pool(t.value(x), kind, kernel, stride, pair(padding), down, padded))


def _adaptive(t: Tracer, node: fx.Node) -> Value:
    x, sizes = arguments(node).values()
    x = t.value(x)
    rows, cols = (n or size for n, size in zip(pair(sizes), x.shape[1:], strict=True))
    if (rows, cols) == (1, 1):
        return t.graph.add(Mean(x))
    if x.shape[1] % rows or x.shape[2] % cols:
        raise NotTraced(f"adaptive pooling of {x.shape[1:]} to {(rows, cols)}")
    kernel = (x.shape[1] // rows, x.shape[2] // cols)
    return t.graph.add(Pool(x, "mean", kernel, kernel))


def _mean(t: Tracer, node: fx.Node) -> Value:
    x, dimensions, *_ = arguments(node).values()
    if dimensions is None or sorted(d % 4 for d in dimensions) != [2, 3]:
        raise NotTraced("a mean over anything but the image")
    return t.graph.add(Mean(t.value(x)))


def _flat(t: Tracer, node: fx.Node) -> Value:
    shape = node.meta["val"].shape
    x = t.value(node.args[0])
    if len(shape) == 2 and x.shape[1:] == (1, 1):
        return x
    if len(shape) == 2 and int(shape[1]) == int(np.prod(x.shape)):
        return t.graph.add(Flatten(x))
    if len(shape) == 4 and tuple(int(n) for n in shape[1:]) == x.shape:
        return x
    raise NotTraced(f"a change of shape to {tuple(shape)}")


def _concat(t: Tracer, node: fx.Node) -> Value:
    parts, dim = arguments(node).values()
    if dim not in (1, -3):
        raise NotTraced("a concatenation along anything but channels")
    return t.graph.add(Concat(tuple(t.value(part) for part in parts)))


def _chunks(t: Tracer, node: fx.Node) -> list[Value]:
    """Splits into consecutive channels."""
    x, size, dim = arguments(node).values()
    source = t.value(x)
    if dim not in (1, -3):
        raise NotTraced("a split along anything but channels")
    channels = source.shape[0]
    if isinstance(size, int) and "chunk" in str(node.target):
        size = -(-channels // size)
    sizes = [min(size, channels - i) for i in range(0, channels, size)] if isinstance(size, int) else size
    firsts = np.cumsum([0, *sizes])
    return [t.graph.add(Part(source, int(first), n)) for first, n in zip(firsts, sizes, strict=False)]


def _upsample(t: Tracer, node: fx.Node) -> Value:
    x, shape = t.value(node.args[0]), node.meta["val"].shape
    sizes = [int(n) for n in shape[2:]]
    if any(n % size for n, size in zip(sizes, x.shape[1:], strict=True)):
        raise NotTraced(f"upsampling from {x.shape[1:]} to {tuple(sizes)}")
    rows, cols = (tuple(i * size // n for i in range(n)) for n, size in zip(sizes, x.shape[1:], strict=True))
    return t.graph.add(Resample(x, rows, cols))


def _part(t: Tracer, node: fx.Node) -> Value:
    """A slice of rows or columns, possibly with a step."""
    x, dim, start, end, step = arguments(node).values()
    source = t.value(x)
    if not start and step == 1 and (end is None or end == sys.maxsize):
        return source
    if dim % 4 == 1 and step == 1:
        first, last, _ = slice(start, end).indices(source.shape[0])
        return t.graph.add(Part(source, first, last - first))
    if dim % 4 < 2:
        raise NotTraced("a part of a batch, or every so many channels")
    pixels = [tuple(range(size)) for size in source.shape[1:]]
    pixels[dim % 4 - 2] = pixels[dim % 4 - 2][slice(start, end, step)]
    return t.graph.add(Resample(source, *pixels))


_BEYOND = {
    "constant": lambda i, n: i if 0 <= i < n else -1,
    "circular": lambda i, n: i % n,
    "replicate": lambda i, n: min(max(i, 0), n - 1),
    "reflect": lambda i, n: n - 1 - abs(n - 1 - abs(i)),
}


def _padded(t: Tracer, node: fx.Node) -> Value:
    """Padding of pixels, or with channels of zeros."""
    x, sizes, mode, value = arguments(node).values()
    sizes = [*sizes, *[0] * (6 - len(sizes))]
    if len(sizes) > 6 or min(sizes) < 0 or value or mode not in _BEYOND or (any(sizes[4:]) and mode != "constant"):
        raise NotTraced(f"padding of {sizes} with {mode} {value or ''}")
    source, (left, right, above, below, before, after) = t.value(x), sizes
    if before or after:
        weight = np.pad(np.eye(source.shape[0]), ((before, after), (0, 0)))
        source = t.graph.add(Conv(source, Weight.of(weight).kernels(), np.zeros(len(weight))))
    if not any(sizes[:4]):
        return source
    pixels = [
        tuple(_BEYOND[mode](i, n) for i in range(-first, n + last))
        for n, first, last in zip(source.shape[1:], (above, left), (below, right), strict=True)
    ]
    return t.graph.add(Resample(source, *pixels))


def _times(t: Tracer, node: fx.Node) -> Conv | Sum:
    x, factor = arguments(node).values()
    if not isinstance(factor, int | float):
        raise NotTraced("a product of two activations")
    channels = int(node.meta["val"].shape[1])
    return _scaled(t, x, np.full(channels, float(factor)), np.zeros(channels))


def _same(t: Tracer, node: fx.Node) -> Value:
    return t.value(node.args[0])


HANDLERS: dict[str, Callable[[Tracer, fx.Node], Made]] = {
    "conv2d": _conv, "linear": _linear, "addmm": _addmm, "batch_norm": _batch_norm, "add": _sum, "mul": _times,
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "max_pool2d": _pool, "avg_pool2d": _pool, "adaptive_avg_pool2d": _adaptive, "mean": _mean,
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze"), _flat),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _chunks),
    "cat": _concat, "slice": _part, "pad": _padded, "upsample_nearest2d": _upsample,
    **dict.fromkeys(("dropout", "clone", "contiguous", "alias", "detach", "identity", "feature_dropout"), _same),
}  # fmt: skip
