"""What test_sharded.py runs in two processes: FSDP2, seven rows over two processes as four and three."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from loops import by_hand, plus_zero, some
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from two_processes import answer

from sparsight import apply_, dense, held, run, verify
from sparsight.measure.pq import pq_index
from sparsight.model import mask_grads_
from sparsight.model.functional import pure
from sparsight.numerics.select import keep_largest
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.pruning.score.snip import SNIP
from sparsight.pruning.score.synflow import SynFlow
from sparsight.recipes import sap
from sparsight.train.parallel import leave
from sparsight.types import Data, Split

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.05, momentum=0.9),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (2,)))


def loss_of(model: nn.Module, number: int = 0) -> Tensor:
    return model(torch.linspace(-1, 1, 20).reshape(4, 5) + number).square().sum()


def pruned(model: nn.Module, masks: dict[str, Tensor], of: Callable[[Tensor], Tensor] = lambda p: p) -> bool:
    """Whether every pruned weight is +0.0, and kept ones are not."""
    whole = {name: of(p).full_tensor() for name, p in model.named_parameters() if name in masks}
    return all(plus_zero(whole[name][~mask]) and whole[name][mask].all() for name, mask in masks.items())


def trained(make: Callable[[Any], torch.optim.Optimizer]) -> dict[str, Any]:
    """Hold masks for four steps, others in the last two; how far that is from one process by hand."""
    one, other = sharded(network()), network()
    masks = some(other)
    fewer = {name: mask & (torch.arange(mask.numel()).view_as(mask) % 3 > 0) for name, mask in masks.items()}
    optimizer, second, steps = make(one.parameters()), make(other.parameters()), []
    with held(one, masks, optimizer) as holding:
        for number in range(4):
            if number == 2:
                holding.update(fewer)
            optimizer.zero_grad()
            loss_of(one, number).backward()
            optimizer.step()
            steps.append(pruned(one, holding.masks))
    verify(one, fewer)
    by_hand(other, masks, second, 2, loss_of=loss_of)
    by_hand(other, fewer, second, 2, loss_of=lambda model, number: loss_of(model, number + 2))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return {"pruned": steps, "close": all(torch.allclose(x.full_tensor(), y, atol=1e-5) for x, y in pairs)}


def at_once() -> dict[str, Any]:
    one, masks = sharded(network()), some(network())
    loss_of(one).backward()
    mask_grads_(one, masks)
    apply_(one, masks)
    found = {"weights": pruned(one, masks), "gradients": pruned(one, masks, lambda p: p.grad)}
    one[0].weight.data.to_local().fill_(-0.0)
    return found | {"found": refused(lambda: verify(one, masks))}


def refused(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def main() -> None:
    distributed.init_process_group("gloo")
    one, masks = sharded(network()), dense(network())
    split = Split(torch.ones(20, 5), torch.arange(20) % 3)
    batches = [(split.x, split.y)]
    scores = {name: p.detach() for name, p in one.named_parameters() if name in masks}
    refusals = {
        "Magnitude": lambda: Magnitude()(one, masks),
        "SNIP": lambda: SNIP()(one, masks, batches),
        "SynFlow": lambda: SynFlow()(one, masks, batches),
        "selection": lambda: keep_largest(scores, masks, 10),
        "PQ index": lambda: pq_index(one[0].weight.detach(), 1.0, 2.0),
        "pure": lambda: pure(one),
        "run": lambda: next(run(sap(levels=1, epochs=1), one, Data(name="own", train=split, validation=split))),
    }
    made = dense(one)
    answer(
        trained={name: trained(make) for name, make in OPTIMIZERS.items()},
        dense={name: [list(mask.shape), bool(mask.all()), type(mask) is Tensor] for name, mask in made.items()},
        at_once=at_once(),
        refused={name: refused(act) for name, act in refusals.items()},
        still=F.mse_loss(one(split.x), torch.zeros(20, 3)).isfinite().item(),
    )
    leave()


if __name__ == "__main__":
    main()
