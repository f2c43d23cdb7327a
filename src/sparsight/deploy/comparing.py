"""Copies networks, and compares the outputs of two."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def difference(
    model: nn.Module, other: Callable[..., Any], inputs: Iterable[tuple[Any, ...]], tolerance: float, what: str
) -> float:
    """The largest difference of two networks' outputs, over the first one's largest finite output or 1.

    Infinities and NaN must be in the same places. Outputs narrower than float32 may differ by 8 units of rounding.

    Raises:
        ValueError: `what` does not run, returns other shapes, or differs by more than the tolerance.
    """
    worst = 0.0
    for args in inputs:
        with torch.no_grad():
            wanted = tensors(model(*args))
            try:
                got = tensors(other(*args))
            except Exception as error:
                raise ValueError(f"{what} does not run: {first_line(error)}") from error
        for a, b in zip(got, wanted, strict=True):
            if a.shape != b.shape:
                raise ValueError(f"{what} gives shape {tuple(a.shape)}, not {tuple(b.shape)}")
            eps = torch.finfo(b.dtype).eps if b.is_floating_point() else 0.0
            far, most = _apart(a.cpu().double(), b.cpu().double()), max(tolerance, 8 * eps)
            if not far <= most:
                raise ValueError(f"{what} differs by {far:.2g}, expected at most {most:g}")
            worst = max(worst, far)
    return worst


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy; tensors computed before each call (`torch.nn.utils.prune`) have their latest value."""
    memo = {} if memo is None else memo
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def drawn(inputs: tuple[Any, ...], scale: float = 1.0) -> tuple[Any, ...]:
    """The inputs with all floats replaced by fixed normal numbers times `scale`."""
    generator = torch.Generator().manual_seed(0)

    def draw(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return (scale * torch.randn(x.shape, generator=generator)).to(x)

    return pytree.tree_map(draw, inputs)


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _apart(a: Tensor, b: Tensor) -> float:
    same = (a == b) | (a.isnan() & b.isnan())
    if same.all():
        return 0.0
    scale = b[b.isfinite()].abs().max().clamp(min=1.0) if b.isfinite().any() else 1.0
    return float(((a - b)[~same].abs() / scale).max())
