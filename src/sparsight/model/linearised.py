"""A linear and positive version of a network, for sums over paths."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparsight.model.batch import LABELS

ACTIVATIONS = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish tanh hardtanh sigmoid hardsigmoid hardswish softplus softsign "
    "logsigmoid tanhshrink softshrink hardshrink threshold rrelu prelu erf sin atan arctan"
)
_SUMMING = (
    "linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "matmul mm bmm mv addmm baddbmm einsum __matmul__ __rmatmul__"
)


def every(names: str) -> frozenset[Any]:
    """The torch functions of these names: in torch, functional, as methods, and in-place."""
    forms = [form for name in names.split() for form in (name, f"{name}_")]
    homes = (torch, F, Tensor)
    return frozenset(getattr(home, form) for home in homes for form in forms if hasattr(home, form))


_IDENTITY = every(f"{ACTIVATIONS} log_softmax")
_SUMS = every(_SUMMING)
_CLAMPS = every("clamp clip clamp_max")
_ATTENTION = every("softmax scaled_dot_product_attention multi_head_attention_forward")
_MINUS = every("sub subtract __sub__ __isub__")
_MINUS_FROM = every("rsub __rsub__")
_NEGATIONS = every("neg negative __neg__")
_OVER = every("div divide true_divide __truediv__ __itruediv__")


class Positive(TorchFunctionMode):
    """In this mode activations do nothing and norms only scale: with weights and inputs >= 0, all values are >= 0.

    Activations (tanh, GELU, ReLU, ...) and `log_softmax` become the identity. Batch norm becomes x gamma / sqrt(running
    variance + eps) + beta; layer, group, instance and RMS norm become x gamma + beta. Clamps lose their upper limit.
    `after(y)` is applied to the results of layers and matrix products.

    With `average`, max-pooling becomes averaging, which reveals all paths; x - y becomes x + y, -x becomes x, an offset
    x - 1 becomes x, and division by a tensor does nothing. `attends`: whether a softmax was used. Everything else,
    including softmax and `nn.MultiheadAttention`, does not change.
    """

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None, *, average: bool = False) -> None:
        super().__init__()
        self.after, self.average, self.attends = after, average, False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _IDENTITY:
            return args[0] if args else kwargs["input"]
        if func in _NORMS:
            return _affine(func, args, kwargs)
        self.attends |= func in _ATTENTION
        if func in _CLAMPS:
            return _clamped_below(func, *args, **kwargs)
        if self.average and func in _SIGNED:
            return _SIGNED[func](*args, **kwargs)
        if self.average and func in _MAX_POOLS:
            return _average(func, *args, **kwargs)
        if self.average and func in _ADAPTIVE:
            return _average_to(func, *args, **kwargs)
        out = func(*args, **kwargs)
        return self.after(out) if self.after is not None and func in _SUMS else out


# -- norms ---------------------------------------------------------------------------------------------------------

_NORMS = {F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm, F.rms_norm}


def _affine(norm: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """x scale + shift for a call of a norm: along the channels, or along the last dimensions."""
    bound = inspect.signature(norm).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    x, scale, shift = given["input"], given["weight"], given.get("bias")
    shape = (1, -1, *[1] * (x.dim() - 2)) if norm not in (F.layer_norm, F.rms_norm) else None
    if norm is F.batch_norm and given["running_var"] is not None:
        scale = (1.0 if scale is None else scale) / (given["running_var"] + given["eps"]).sqrt()
    if scale is not None:
        x = x * (scale if shape is None else scale.reshape(shape))
    if shift is not None:
        x = x + (shift if shape is None else shift.reshape(shape))
    return x


# -- signs and scales ---------------------------------------------------------------------------------------------


def _clamped_below(func: Any, input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Clamp only from below, and only above 0."""
    if min is None or getattr(func, "__name__", "").startswith("clamp_max"):
        return input
    return input.clamp(min=min) if isinstance(min, Tensor) or min > 0 else input


def _plus(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """x + y for x - y; x if y is a number or a tensor without a gradient."""
    signals = [one for one in (input, other) if isinstance(one, Tensor) and one.requires_grad]
    if len(signals) == 2:
        return input + other
    like = signals[0] if signals else next(one for one in (input, other) if isinstance(one, Tensor))
    shape = torch.broadcast_shapes(*(one.shape for one in (input, other) if isinstance(one, Tensor)))
    return like.expand(shape)


def _undivided(input: Any, other: Any, **keywords: Any) -> Tensor:
    """x for x / y: only which numbers are nonzero matters."""
    if not isinstance(other, Tensor):
        return input * abs(1 / other) if other else input
    if not isinstance(input, Tensor):
        return other
    return input.expand(torch.broadcast_shapes(input.shape, other.shape))


_SIGNED: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys(_MINUS | _MINUS_FROM, _plus),
    **dict.fromkeys(_NEGATIONS, lambda input, **keywords: input),
    **dict.fromkeys(_OVER, _undivided),
}

# -- pooling -----------------------------------------------------------------------------------------------------

_MAX_POOLS: dict[Any, Callable[..., Tensor]] = {
    getattr(home, f"max_pool{n}d"): getattr(F, f"avg_pool{n}d") for home in (F, torch) for n in (1, 2, 3)
}
_ADAPTIVE: dict[Any, Callable[..., Tensor]] = {
    getattr(F, f"adaptive_max_pool{n}d"): getattr(F, f"adaptive_avg_pool{n}d") for n in (1, 2, 3)
}


def _average(
    func: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The mean in place of the maximum, unless indices are returned or windows are dilated."""
    if return_indices or dilation not in (1, (1,), (1, 1), (1, 1, 1)):
        return func(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _MAX_POOLS[func](input, kernel_size, stride or kernel_size, padding, ceil_mode)


def _average_to(func: Any, input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return func(input, output_size, return_indices) if return_indices else _ADAPTIVE[func](input, output_size)


# -- the network's parameters and its input ----------------------------------------------------------------------


def is_bias(name: str) -> bool:
    """Whether a parameter of that name is an offset, such as "bias" or "in_proj_bias"."""
    leaf = name.rpartition(".")[2]
    return leaf == "bias" or leaf.endswith("_bias") or leaf.startswith("bias_")


def ones(example: Any, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """A sample of ones with the shape of the samples in `example`, a tensor or a batch that starts with one.

    For a dictionary, a dictionary of such samples without labels. Integers (tokens) keep their dtype. Raises:
    ValueError without a tensor.
    """
    if isinstance(example, (tuple, list)) and example:
        example = example[0]
    if isinstance(example, Mapping):
        inputs = {k: v for k, v in example.items() if isinstance(v, Tensor) and v.dim() and k not in LABELS}
        return {key: ones(value, dtype, device) for key, value in inputs.items()}
    if not isinstance(example, Tensor) or not example.dim():
        kind = type(example).__name__
        raise ValueError(f"an example must be (x, y), x or a dictionary of tensors, got {kind}")
    kind = dtype if example.is_floating_point() else example.dtype
    return torch.ones((1, *example.shape[1:]), dtype=kind, device=device or example.device)
