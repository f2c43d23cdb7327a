"""What a mask cuts off: empty and nearly empty tensors, dead neurons, weights on no path, no path at all."""

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
    """What a mask cuts off, by prunable tensor; tensors of which nothing is to be said are left out."""

    empty: tuple[str, ...] = ()  # no weight left
    nearly_empty: tuple[str, ...] = ()  # some, but too few to carry a signal
    dead_outputs: Mapping[str, int] = field(default_factory=dict)  # units that no kept weight leads to
    dead_inputs: Mapping[str, int] = field(default_factory=dict)  # units that no kept weight leads away from
    cut_off: Mapping[str, int] | None = None  # kept weights on no path from input to output; None: not known
    disconnected: bool | None = None  # no path from input to output is left; None: not known


def find_collapse(masks: Masks, model: nn.Module | None = None, example: Any = None, *, share: float = 0.1) -> Collapse:
    """What these masks cut off, layer by layer; with a model and an example, path by path too.

    A tensor is empty with no kept weight, nearly empty with fewer than `share` times the units of its narrower side
    (at least 2): too few to carry a signal, though not none. A unit is dead if no weight is kept that leads to it
    (an output) or away from it (an input). Which dimensions are outputs and inputs, and the groups of a convolution,
    are the model's; each expert of a stack has units of its own. Without a model dimension 0 is taken for the outputs
    and dimension 1 for the inputs.

    With `model` and `example` (a batch `(x, y)` or samples `x`; only the shape is used), a kept weight is cut off if
    it lies on no path of kept weights from an input to an output, and the network is disconnected if there is no
    path. Decided by one pass there and one back with every kept weight 1, every pruned one 0, biases 0, activations
    linear, max-pooling as averaging and every sum set to "some" or "none", so it is exact at any depth. Differences
    count as sums, offsets and divisors as nothing. Softmax attention counts as averaging: it passes its values on, and
    what shapes the attention counts as cut off. A model that cannot be run so (outputs that are no tensor, say), or
    whose paths are lost without any mask too, leaves `disconnected` and `cut_off` None.

    Errors: masks that do not fit the model, or are no masks; share < 0.
    """
    if share < 0:
        raise ValueError(f"share must be >= 0: got {share!r}")
    check_mapping(masks)
    if model is not None:
        check(model, masks)
    known = {} if model is None else weights(model)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    least, dead_outputs, dead_inputs = {}, {}, {}
    for name, mask in masks.items():
        layout = known[name].layout if name in known else Layout()
        outputs, inputs = layout.outputs(mask), layout.inputs(mask)
        least[name] = max(2.0, share * min((len(units) for units in (outputs, inputs) if len(units)), default=1))
        dead_outputs[name], dead_inputs[name] = (
            int((~units).sum()) * bool(mask.numel()) for units in (outputs, inputs)
        )
    cut_off = disconnected = None
    if model is not None and example is not None:
        with torch.inference_mode(False):
            found = _paths(model, masks, example)
            if found is not None and not found[0]:  # is that the masks' doing?
                whole = _paths(model, {name: torch.ones_like(mask) for name, mask in masks.items()}, example)
                found = found if whole is not None and whole[0] else None
        if found is not None:
            through, paths = found
            disconnected = not through
            cut_off = {name: kept[name] - int(on.sum()) for name, on in paths.items()}
    return Collapse(
        empty=tuple(name for name in masks if not kept[name]),
        nearly_empty=tuple(name for name in masks if 0 < kept[name] < min(least[name], masks[name].numel())),
        dead_outputs={name: n for name, n in dead_outputs.items() if n},
        dead_inputs={name: n for name, n in dead_inputs.items() if n},
        cut_off=None if cut_off is None else {name: n for name, n in cut_off.items() if n},
        disconnected=disconnected,
    )


def _paths(model: nn.Module, masks: Masks, example: Any) -> tuple[bool, dict[str, Tensor]] | None:
    """Whether any path leads through, and which kept weights of every tensor lie on one; None if it cannot be told."""
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
        except Exception:  # any model may come; that the paths of one cannot be followed must not end a run
            return None
    through = bool((grads[-1] > 0).any()) if x.requires_grad else float(total.detach()) > 0
    return through, {n: (g > 0).to(m.device) & m for (n, m), g in zip(masks.items(), grads, strict=False)}


class _Some(torch.autograd.Function):
    """1 where there is anything, there and on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return (gradients[0] > 0).to(gradients[0].dtype)
