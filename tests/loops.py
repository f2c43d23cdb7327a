"""A small network, masks for it, and the loops that tests of `held` compare."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from sparsight import dense, held, verify
from sparsight.numerics.kernels.clear import BITS


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 4, 3),
            nn.Flatten(),
            nn.Linear(16, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        )


def some(model: nn.Module, seed: int = 1, **chosen: str) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.rand(mask.shape, generator=g) < 0.4 for name, mask in dense(model, **chosen).items()}


def loss_of(model: nn.Module, number: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(number)
    x, y = torch.randn(8, 3, 6, 6, generator=g), torch.randint(0, 3, (8,), generator=g)
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)), y)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)


def plus_zero(x: torch.Tensor) -> bool:
    return not x.detach().view(BITS[x.element_size()]).any()


def by_hand(model, masks, optimizer, steps, between=lambda number: None, loss_of=loss_of) -> None:
    """What `held` must equal, with nothing of ours: masks laid on gradients and weights by `torch.where`."""

    def mask(tensors):
        with torch.no_grad():
            for name, keep in masks.items():
                if tensors[name] is not None:
                    tensors[name].copy_(torch.where(keep, tensors[name], 0.0))

    mask(dict(model.named_parameters()))
    for number in range(steps):
        between(number)
        optimizer.zero_grad()
        loss_of(model, number).backward()
        mask({name: p.grad for name, p in model.named_parameters()})
        optimizer.step()
        mask(dict(model.named_parameters()))


def in_block(model, masks, optimizer, steps, between=lambda number: None, after_backward=lambda number: None) -> None:
    with held(model, masks, optimizer):
        for number in range(steps):
            between(number)
            optimizer.zero_grad()
            loss_of(model, number).backward()
            after_backward(number)
            optimizer.step()
            verify(model, masks)
    verify(model, masks)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
