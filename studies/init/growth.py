"""How activations and gradients grow along a ResNet, and along a Stable ResNet. Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from cells import Row
from pruned import images
from torch import Tensor, nn
from torch.nn import functional as F

from sparsight import Split
from sparsight.measure.criticality import initialise_
from sparsight.numerics.seeds import derive
from sparsight.pruning import conditioning
from sparsight.train.batches import batches
from sparsight.types import Batch
from sparsight.zoo.networks.resnet import SmallResNet

SIGMA_W = math.sqrt(2)


def network(blocks: int, stable: bool, norm: bool, seed: int) -> SmallResNet:
    """The zoo's small ResNet of three stages with `blocks` blocks in all, weights N(0, 2 / fan_in)."""
    model = SmallResNet(1, blocks // 3, 10, blocks**-0.5 if stable else 1.0, norm)
    initialise_(model, SIGMA_W, seed=derive(seed, "growth"))
    return model


def along(model: SmallResNet, batch: Batch) -> tuple[list[float], list[float]]:
    """Mean squares of what goes into each block and out of the last, and of the loss's gradient there."""
    model.train()
    x, y = batch
    states = [F.relu(model.bn(model.conv(x)))]
    for block in model.blocks:
        states.append(block(states[-1]))
    loss = F.cross_entropy(model.fc(F.adaptive_avg_pool2d(states[-1], 1).flatten(1)), y)
    gradients = torch.autograd.grad(loss, states)
    return [_mean_square(state) for state in states], [_mean_square(gradient) for gradient in gradients]


def _mean_square(tensor: Tensor) -> float:
    return float((tensor.detach().double() ** 2).mean())


def measure(blocks: int, stable: bool, norm: bool, seed: int, smoke: bool) -> Sequence[Row]:
    """The row of one network: its growth over all blocks, a factor of mean squares, and how SNIP's criterion varies."""
    data = images(1000 if smoke else 10_000, 14)
    assert isinstance(data.train, Split)
    batch = next(batches(data.train, 32, generator=torch.Generator().manual_seed(derive(seed, "score"))))
    model: nn.Module = network(blocks, stable, norm, seed)
    assert isinstance(model, SmallResNet)
    activations, gradients = along(model, batch)
    found = conditioning(model, [batch], warn=False)
    row = {
        "network": "stable" if stable else "plain",
        "norm": norm,
        "blocks": blocks,
        "activation_growth": activations[-1] / activations[0],
        "gradient_growth": gradients[0] / gradients[-1],
        "spread": found.spread if math.isfinite(found.spread) else None,
        "critical_density": found.measured_density,
    }
    return [row]
