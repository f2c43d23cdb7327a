"""Shared by gradient scorers: a deterministic model, masked weights as leaves, and the gradient of the mean loss."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase

from sparsight.model.batch import batch_size, on_tensors
from sparsight.model.functional import Pure, evaluating, pure
from sparsight.model.loss import Loss
from sparsight.numerics.seeds import seeded
from sparsight.types import Batch, Masks, Scores

BatchNorm = Literal["train", "eval"]
"""Whether batch norms use the statistics of the batch ("train") or the stored ones ("eval")."""


@contextmanager
def scoring(
    model: nn.Module, masks: Masks, batch_norm: BatchNorm, *, twice: bool = False
) -> Iterator[tuple[Pure, dict[str, Tensor]]]:
    """A block for differentiating the model: without dropout, batch norms as asked, random state and flags restored.

    Gives the model as a function, and its `leaves`. Also inside `torch.inference_mode`; see `differentiable`. `twice`
    selects the attention kernel that can be differentiated twice.
    """
    attention = sdpa_kernel(SDPBackend.MATH) if twice else nullcontext()
    with evaluating(model), seeded(0), differentiating(), attention:  # some layers draw even in eval mode
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.training = batch_norm == "train"
        call = differentiable(model)
        yield call, leaves(call, masks)


@contextmanager
def differentiating() -> Iterator[None]:
    """A block with gradients, also inside `torch.no_grad` and `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def differentiable(model: nn.Module) -> Pure:
    """The model as a function of its parameters, which are copied if they were created in inference mode."""
    call = pure(model)
    return replace(call, params=on_tensors(_usual, call.params), buffers=on_tensors(_usual, call.buffers))


def _usual(tensor: Tensor) -> Tensor:
    """The tensor, cloned if it was created in inference mode, which prevents differentiation."""
    return tensor.clone() if tensor.is_inference() else tensor


def leaves(call: Pure, masks: Masks) -> dict[str, Tensor]:
    """The masked prunable weights to differentiate by. The mask is not in the graph: gradients are dense."""
    found = {}
    for name, mask in masks.items():
        weight = call.params[name]
        masked = weight.detach() if bool(mask.all()) else weight.masked_fill(~mask.to(weight.device), 0)
        found[name] = masked.requires_grad_()
    return found


Part = tuple[Batch, float]
"""A batch, and its share of all samples."""


def shares(batches: Sequence[Batch], who: str) -> list[Part]:
    """Each batch, with its share of all samples.

    Raises: ValueError without batches, TypeError for anything but a sequence.
    """
    if not hasattr(batches, "__len__") or isinstance(batches, Tensor):
        raise TypeError(f"{who} needs a list of batches (x, y), got {type(batches).__name__}")
    pair = batches if isinstance(batches, tuple) else ()
    if [part.is_floating_point() for part in pair if isinstance(part, Tensor)] == [True, False]:
        raise TypeError(f"{who} needs a list of batches [(x, y)], got one batch (x, y)")
    sizes = [batch_size(batch) for batch in batches]
    if not sizes:
        raise ValueError(f"{who} needs at least one batch (x, y); in a recipe, set Scoring.batches")
    return [(batch, size / sum(sizes)) for batch, size in zip(batches, sizes, strict=True)]


def mean_loss(call: Pure, weights: dict[str, Tensor], loss: Loss, batch: Batch) -> Tensor:
    return call.loss(weights, loss, on_tensors(_usual, batch))


def mean_gradient(call: Pure, weights: dict[str, Tensor], loss: Loss, parts: Sequence[Part]) -> list[Tensor]:
    """The gradient of the mean loss over all samples of all batches, with one pass per batch."""
    by = list(weights.values())
    return mean(lambda batch: gradient(mean_loss(call, weights, loss, batch), by), parts)


def gradient(value: Tensor, by: list[Tensor], *, again: bool = False) -> list[Tensor]:
    """Gradients by each tensor, 0 if the value does not depend on it; differentiable with `again`."""
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in by]
    return list(torch.autograd.grad(value, by, create_graph=again, materialize_grads=True))


def give_back() -> None:
    """Make glibc return freed memory to the system: its fragments do not fit tensors of other sizes."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def mean(of: Callable[[Batch], list[Tensor]], parts: Sequence[Part]) -> list[Tensor]:
    """The sum of part x of(batch) over all batches, at least in float32."""
    total: list[Tensor] = []
    for batch, part in parts:
        found = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in of(batch)]
        if total:
            torch._foreach_add_(total, found, alpha=part)
        else:
            total = [x * part for x in found]
        del found  # the next batch needs the memory
    return total


def finite(scores: Scores, masks: Masks, who: str) -> Scores:
    """The scores. Raises: ValueError if a score of an alive weight is not finite. Warns if all of them are 0."""
    for name, score in scores.items():
        wrong = int((~torch.isfinite(score) & masks[name].to(score.device)).sum())
        if wrong:
            raise ValueError(
                f"{who} has {wrong:,} scores in {name!r} that are not finite: the network overflows, or its weights or "
                "data contain NaN or infinity"
            )
    alive = [score[masks[name].to(score.device)] for name, score in scores.items()]
    if any(score.numel() for score in alive) and not any(bool(score.any()) for score in alive):
        warnings.warn(
            f"{who} scores every weight 0, and ties decide which are kept: no signal gets through the network, or its "
            "output does not depend on its weights",
            stacklevel=3,
        )
    return scores
