"""Scores before training, from their definitions: difference quotients and lists of paths, in float64, slow."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


def snip(model: nn.Module, names: Sequence[str], loss: Loss, h: float = 1e-5) -> dict[str, Tensor]:
    """|dL/dc| at c = 1, where weight j is c w_j: a central difference for every weight."""
    model = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    found = {}
    with torch.no_grad():
        for name in names:
            weight = parameters[name].data.view(-1)
            score = torch.zeros(weight.shape, dtype=torch.float64)
            for i, value in enumerate(weight.tolist()):
                weight[i] = value * (1 + h)
                above = float(loss(model))
                weight[i] = value * (1 - h)
                score[i] = abs(above - float(loss(model))) / (2 * h)
                weight[i] = value
            found[name] = score.view(parameters[name].shape)
    return found


def grasp(model: nn.Module, names: Sequence[str], loss: Loss, h: float = 1e-5) -> dict[str, Tensor]:
    """w_i sum_j H_ij g_j with the whole Hessian, a column for every weight by a difference of gradients."""
    model = copy.deepcopy(model)
    weights = [dict(model.named_parameters())[name] for name in names]

    def gradient() -> Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss(model), weights)])

    columns = []
    for weight in weights:
        flat = weight.data.view(-1)
        for i, value in enumerate(flat.tolist()):
            flat[i] = value + h
            above = gradient()
            flat[i] = value - h
            columns.append((above - gradient()) / (2 * h))
            flat[i] = value
    hessian, g = torch.stack(columns, 1), gradient()
    theta = torch.cat([weight.data.reshape(-1) for weight in weights])
    score = theta * (hessian @ g)
    sizes = [weight.numel() for weight in weights]
    parts = score.split(sizes)
    return {name: part.view(w.shape) for name, part, w in zip(names, parts, weights, strict=True)}


def paths(matrices: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """Of layers one after the other: the sum of |products| over all paths through each weight, and over all paths."""
    units = [range(matrices[0].shape[1]), *(range(m.shape[0]) for m in matrices)]
    through = [torch.zeros(m.shape, dtype=torch.float64) for m in matrices]
    total = 0.0
    for path in itertools.product(*units):
        steps = [(layer, path[layer + 1], path[layer]) for layer in range(len(matrices))]
        product = 1.0
        for layer, i, j in steps:
            product *= abs(float(matrices[layer][i, j]))
        total += product
        for layer, i, j in steps:
            through[layer][i, j] += product
    return through, total
