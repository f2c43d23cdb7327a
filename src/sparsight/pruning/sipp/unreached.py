"""Finds parameters that no gradient reaches, such as those of units cut off by pruning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsight.model.batch import copied
from sparsight.model.functional import evaluating, pure
from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import check
from sparsight.model.names import named
from sparsight.numerics.seeds import seeded
from sparsight.types import Batch, Masks, Params


def silent(
    model: nn.Module,
    masks: Masks,
    batches: Sequence[Batch],
    *,
    multipliers: Params | None = None,
    loss: Loss = task_loss,
) -> dict[str, Tensor]:
    """Where the gradient of each parameter is exactly zero on every batch, in eval mode: True = no gradient.

    The parameters are the model's times `multipliers`, under `masks`: weights, biases and normalisation parameters, but
    not embeddings, nor parameters that the forward does not use. A unit without a path to the output is silent, as is
    one that is inactive on all of these samples: the published wrapper sets the parameters of both to zero.

    Does not change the model. Raises: ValueError without batches. Source: the published code's gradient propagation,
    which sums gradients first, where two may cancel.
    """
    check(model, masks)
    if not batches:
        raise ValueError("silent needs at least one batch")
    at = pure(model)
    left_out = _embeddings(model)
    names = [name for name, value in at.params.items() if name not in left_out and value.is_floating_point()]
    start = {}
    for name in names:
        value = at.params[name] * (multipliers or {}).get(name, 1)
        start[name] = torch.where(masks[name], value, 0) if name in masks else value
    leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    found: dict[str, Tensor] = {}
    with evaluating(model), seeded(0), torch.enable_grad():
        for batch in batches:
            value = at.loss(leaves, loss, copied(batch))
            gradients = torch.autograd.grad(value, tuple(leaves.values()), allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    found[name] = (gradient == 0) & found.get(name, torch.ones_like(gradient, dtype=torch.bool))
    return found


def _embeddings(model: nn.Module) -> set[str]:
    inside = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    return {name for name, parameter in named(model).items() if id(parameter) in inside}
