"""Merges peft's adapters into a pruned network without filling its zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating
from sparsight.model.hold import apply_
from sparsight.model.loss import Loss, LossName, named_loss
from sparsight.model.masks import check_mapping, verify, verify_weight
from sparsight.model.names import named
from sparsight.model.weights import DTYPES
from sparsight.numerics.format import percent, plural
from sparsight.types import Batch, Masks

try:
    from peft import PeftModel
except ImportError as error:
    raise ImportError("sparsight.integrations.lora needs peft: pip install sparsight[lora]") from error

_INSIDE = (".base_layer", ".original_module")
"""Attributes of peft for the original layer, under an adapter or a trained copy."""


@dataclass(frozen=True)
class MergedLayer:
    """The change of a masked weight by adapters, as Euclidean norms."""

    name: str
    change: float  # of the whole change
    dropped: float  # of the part on pruned weights, which stayed +0.0


@dataclass(frozen=True, eq=False)
class Merged:
    """A network with adapters merged under its masks, and the cost."""

    model: nn.Module
    layers: tuple[MergedLayer, ...]  # the masked weights that adapters changed
    loss_before: float | None = None  # on the batch: of the base with adapters
    loss_after: float | None = None  # of `model`

    @property
    def dropped(self) -> float:
        """The share of the squared change that was dropped, in [0, 1]; 0 if nothing changed."""
        whole = sum(layer.change**2 for layer in self.layers)
        return sum(layer.dropped**2 for layer in self.layers) / whole if whole else 0.0

    def __str__(self) -> str:
        many = plural(len(self.layers), "masked weight")
        said = f"adapters merged into {many}; {percent(self.dropped)} of the squared change was dropped"
        if self.loss_before is None or self.loss_after is None:
            return said
        return f"{said}; loss {self.loss_before:.4f} before, {self.loss_after:.4f} after"


def merge_masked(
    model: PeftModel, masks: Masks, *, batch: Batch | None = None, loss: LossName | Loss = "task"
) -> Merged:
    """Merge the active adapters into their pruned base; its pruned weights stay +0.0.

        W' = W + mask * dW,    dW = (alpha / r) B A    (for LoRA)

    Other adapters that peft can merge (DoRA, convolutions, IA³, …) work the same way: W' is peft's result, masked.
    `masks` use the names of the base before `get_peft_model`. Weights without a mask get their whole change. For layers
    in `modules_to_save`, the trained copy replaces the old layer. As with peft's `merge_and_unload`, the base is
    changed, and `model` loses its adapters. With a `batch`, the loss is measured before and after, in eval mode.

    Raises, without merging anything: TypeError for a model without adapters or a mask that is not bool; ValueError for
    adapters that change no weights (prompt tuning) or are not finite, a quantised base, a mask that fits no weight, or
    a base that is not +0.0 where its masks prune.
    """
    base = _checked(model, masks)
    inner, measure = model.get_base_model(), named_loss(loss)
    before = None if batch is None else _measured(inner, measure, batch)
    old = {name: weight.detach().clone() for name, (weight, changes) in base.items() if changes}
    merged = model.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    weights = named(merged)
    layers = tuple(_layer(name, weights[name].detach(), was, masks[name]) for name, was in old.items())
    apply_(merged, masks)
    verify(merged, masks)
    return Merged(merged, layers, before, None if batch is None else _measured(merged, measure, batch))


def _checked(model: PeftModel, masks: Masks) -> Mapping[str, tuple[nn.Parameter, bool]]:
    """Each masked weight of the base by name, and whether adapters change it."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"expected a PeftModel, a model with adapters, got a {type(model).__name__}")
    check_mapping(masks)
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        kinds = ", ".join(str(getattr(c.peft_type, "value", c.peft_type)) for c in model.peft_config.values())
        raise ValueError(f"{kinds} adapters are no change of weights and cannot be merged: keep them beside the model")
    there: dict[str, tuple[nn.Parameter, bool]] = {}
    for name, weight in model.get_base_model().named_parameters():
        there.setdefault(_plain(name), (weight, any(part in name for part in _INSIDE)))
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name!r} holds values that are not finite: nothing was merged")
    for name, mask in masks.items():
        if name not in there:
            raise ValueError(f"the base has no weight {name!r}: its weights are {', '.join(list(there)[:6])}, …")
        _check_weight(name, there[name][0], mask)
    return {name: there[name] for name in masks}


def _plain(name: str) -> str:
    for part in _INSIDE:
        name = name.replace(part, "")
    return name


def _check_weight(name: str, weight: nn.Parameter, mask: Tensor) -> None:
    if weight.dtype not in DTYPES:
        raise ValueError(
            f"the base is quantised ({name!r} is {weight.dtype}), and merging would round it anew: load it in one of "
            f"{', '.join(map(str, DTYPES))}"
        )
    if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask of {name!r} must be of torch.bool (True = kept), got {got}")
    if mask.shape != weight.shape:
        raise ValueError(f"mask of {name!r} has shape {tuple(mask.shape)}: expected {tuple(weight.shape)}")
    try:
        verify_weight(name, weight, mask.to(weight.device))
    except ValueError as error:
        raise ValueError(
            f"the base is not pruned by these masks: {error}; if adapters are merged already, call unmerge_adapter()"
        ) from error


def _layer(name: str, now: Tensor, was: Tensor, mask: Tensor) -> MergedLayer:
    change = now - was.to(now.device)
    parts = change, change[~mask.to(now.device)]
    return MergedLayer(name, *(float(torch.linalg.vector_norm(x, dtype=torch.float64)) for x in parts))


def _measured(model: nn.Module, loss: Loss, batch: Batch) -> float:
    with evaluating(model), torch.no_grad():
        return float(loss(model, batch))


__all__ = ["Merged", "MergedLayer", "merge_masked"]
