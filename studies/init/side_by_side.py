"""Networks of one shape trained side by side, on the same batches: a layer of all of them is one product.

A deep narrow network costs as much by its number of operations as by their size; fourteen at once take a third of the
time of fourteen one after the other. What each learns depends on itself alone: the loss is a sum over networks, and a
network that diverges harms no other. Its own rate multiplies a network's loss, which with SGD with momentum and without
weight decay is the same as a learning rate of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from sparsight import Masks, Split, bind
from sparsight.train.batches import batches
from sparsight.zoo.networks.plain import MLP


class Layer(nn.Module):
    """The same linear layer of all networks, a slice for each."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight.transpose(1, 2))


class SideBySide(nn.Module):
    """Networks of the zoo's `mlp` as one module, whose tensors have the names of theirs. (samples, ...) -> (networks,
    samples, classes)."""

    def __init__(self, networks: Sequence[MLP]) -> None:
        super().__init__()
        self.count, self.depth, self.activation = len(networks), networks[0].depth, networks[0].activation
        for i in range(1, self.depth + 1):
            self.add_module(f"fc{i}", Layer([getattr(network, f"fc{i}") for network in networks]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).expand(self.count, -1, -1)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"fc{i}")(self.activation(x) if i > 1 else x)
        return x


def losses(together: SideBySide, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of each network."""
    found = F.cross_entropy(together(x).transpose(1, 2), y.expand(together.count, -1), reduction="none")
    return found.mean(1)


def train(
    networks: Sequence[MLP],
    masks: Sequence[Masks],
    rates: Sequence[float],
    split: Split,
    *,
    steps: int,
    batch_size: int,
    schedule: Callable[[float], float],
    seed: int,
) -> tuple[SideBySide, Tensor]:
    """Train all for so many steps; the networks, and each one's mean loss over the last tenth of the steps.

    The masks are held by the library: gradients are masked before each step, and SGD then moves no pruned weight.
    """
    together = SideBySide(networks)
    bound = bind(together, {name: torch.stack([mask[name] for mask in masks]) for name in masks[0]})
    optimizer = SGD(together.parameters(), lr=1.0, momentum=0.9, nesterov=True, fused=True)
    own, last = torch.tensor(rates), []
    generator, stream = Generator().manual_seed(seed), iter(())
    bound.apply_()
    for step in range(steps):
        batch = next(stream, None)
        if batch is None:
            stream = batches(split, batch_size, generator=generator, drop_last=True)
            batch = next(stream)
        optimizer.zero_grad(set_to_none=True)
        each = losses(together, *batch)
        (schedule(step / steps) * own * each).sum().backward()
        bound.mask_grads_()
        optimizer.step()
        if step >= steps - max(1, steps // 10):
            last.append(each.detach())
    return together, torch.stack(last).mean(0)


@torch.no_grad()
def judge(together: SideBySide, split: Split, batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """(mean loss, accuracy) of each network on a split."""
    total, right = torch.zeros(together.count, dtype=torch.float64), torch.zeros(together.count, dtype=torch.float64)
    for x, y in batches(split, batch_size):
        logits = together(x)
        total += len(y) * F.cross_entropy(logits.transpose(1, 2), y.expand(together.count, -1), reduction="none").mean(
            1
        )
        right += (logits.argmax(2) == y).sum(1)
    return total / len(split), right / len(split)
