"""Finds what a mask cuts off: empty and nearly empty tensors, dead units, weights on no path, no path at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating, pure
from sparsight.model.linearised import Positive, is_bias, ones
from sparsight.model.masks import check, check_mapping
from sparsight.model.weights import weights
from sparsight.numerics.seeds import seeded
from sparsight.types import Layout, Masks


@dataclass(frozen=True)
class Collapse:
    """What a mask cuts off, by prunable tensor; omits tensors without findings."""

    empty: tuple[str, ...] = ()  # no weight left
    nearly_empty: tuple[str, ...] = ()  # too few weights to carry a signal
    dead_outputs: Mapping[str, int] = field(default_factory=dict)  # output units without kept weights
    dead_inputs: Mapping[str, int] = field(default_factory=dict)  # input units without kept weights
    cut_off: Mapping[str, int] | None = None  # kept weights on no path from input to output; None: unknown
    disconnected: bool | None = None  # no path from input to output is left; None: unknown


def find_collapse(masks: Masks, model: nn.Module | None = None, example: Any = None, *, share: float = 0.1) -> Collapse:
    """What these masks cut off, layer by layer; with a model and an example, also path by path.

    A tensor is empty without kept weights, and nearly empty with fewer than `share` times the units of its narrower
    side (at least 2). A unit is dead if none of its weights is kept. Without a model, dimension 0 is outputs and
    dimension 1 inputs; each expert of a stack has its own units.

    With `model` and `example` (a batch `(x, y)` or samples `x`; only the shape is used), a kept weight is cut off if it
    lies on no path of kept weights from an input to an output, and the network is disconnected without any path. This
    takes a forward and a backward pass with kept weights 1, pruned ones 0, biases 0, linear activations, averaging in
    place of max-pooling, and every sum reduced to "some" or "none", which is exact at any depth. Differences count as
    sums; offsets and divisors are ignored. Softmax attention counts as averaging: weights that only shape the attention
    count as cut off. `disconnected` and `cut_off` are None for a model that cannot be run this way, or has no paths
    even without masks.

    Raises: TypeError, ValueError for masks that do not fit the model; ValueError for share < 0.
    """
    if share < 0:
        raise ValueError(f"share must be at least 0, got {share!r}")
    check_mapping(masks)
    if model is not None:
        check(model, masks)
    known = {} if model is None else weights(model)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    nearly_empty, dead_outputs, dead_inputs = [], {}, {}
    for name, mask in masks.items():
        layout = known[name].layout if name in known else Layout()
        outputs, inputs = layout.outputs(mask), layout.inputs(mask)
        least = max(2.0, share * min((len(units) for units in (outputs, inputs) if len(units)), default=1))
        if 0 < kept[name] < min(least, mask.numel()):
            nearly_empty.append(name)
        for units, dead in ((outputs, dead_outputs), (inputs, dead_inputs)):
            if mask.numel() and not units.all():
                dead[name] = int((~units).sum())
    cut_off = disconnected = None
    if model is not None and example is not None:
        with torch.inference_mode(False):
            found = _paths(model, masks, example)
            if found is not None and not found[0]:  # because of the masks?
                whole = _paths(model, {name: torch.ones_like(mask) for name, mask in masks.items()}, example)
                found = found if whole is not None and whole[0] else None
        if found is not None:
            through, paths = found
            disconnected = not through
            cut_off = {name: n for name, on in paths.items() if (n := kept[name] - int(on.sum()))}
    empty = tuple(name for name in masks if not kept[name])
    return Collapse(empty, tuple(nearly_empty), dead_outputs, dead_inputs, cut_off, disconnected)


def _paths(model: nn.Module, masks: Masks, example: Any) -> tuple[bool, dict[str, Tensor]] | None:
    """Whether any path exists, and which kept weights lie on one; None if unknown."""
    call = pure(model)
    device = next(iter(call.params.values())).device
    params = {n: torch.full_like(p, not is_bias(n), dtype=torch.float32) for n, p in call.params.items()}
    weights = {n: m.to(device, torch.float32).requires_grad_() for n, m in masks.items()}
    buffers = {n: b.float() if b.is_floating_point() else b for n, b in call.buffers.items()}
    call = dataclasses.replace(call, params=params, buffers=buffers)
    with evaluating(model), seeded(0), torch.enable_grad():
        try:
            x = ones(example, torch.float32).to(device)
            with Positive(_Some.apply, average=True):
                total = call(weights, x.requires_grad_(x.is_floating_point())).sum()
            by = [*weights.values(), *([x] if x.requires_grad else [])]
            if total.requires_grad:
                grads = torch.autograd.grad(total, by, materialize_grads=True)
            else:  # the output depends on nothing
                grads = [torch.zeros_like(each) for each in by]
        except Exception:  # a model whose paths cannot be followed must not end a run
            return None
    through = bool((grads[-1] > 0).any()) if x.requires_grad else float(total.detach()) > 0
    return through, {n: (g > 0).to(m.device) & m for (n, m), g in zip(masks.items(), grads, strict=False)}


class _Some(torch.autograd.Function):
    """1 for positive values, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return (gradients[0] > 0).to(gradients[0].dtype)
