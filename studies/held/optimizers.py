"""The optimisers that masks are held through: those of torch in their variants, wrappers, and some written by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn, optim
from torch.optim import Optimizer

Make = Callable[[nn.Module], Any]
"""An optimiser, or a list of them, for the parameters of a model."""


class Lion(Optimizer):
    """Signs of interpolated momentum, decoupled decay; written the old way, through `.data`. (arXiv:2302.06675)"""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    momentum = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                    p.data.mul_(1 - group["lr"] * group["weight_decay"])
                    p.data.add_((0.9 * momentum + 0.1 * p.grad.data).sign(), alpha=-group["lr"])
                    momentum.mul_(0.99).add_(p.grad.data, alpha=0.01)


class Lars(Optimizer):
    """SGD with a rate for each tensor, from the norms of weights and gradient. (arXiv:1708.03888)"""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"] * float(p.norm() / (p.grad.norm() + 1e-6)))


class Lookahead(Optimizer):
    """Slow weights that follow fast ones every other step, without `Optimizer.__init__`. (arXiv:1907.08610)"""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.param_groups, self.defaults = optimizer, optimizer.param_groups, optimizer.defaults
        self.state = defaultdict(dict)
        self.steps = 0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["slow"] = p.detach().clone()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.optimizer.step(closure) if closure else self.optimizer.step()
        self.steps += 1
        if self.steps % 2 == 0:
            for group in self.param_groups:
                for p in group["params"]:
                    slow = self.state[p]["slow"]
                    slow.add_(p.data - slow, alpha=0.5)
                    p.data.copy_(slow)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class PrivateLookahead:
    """The same as an object that is no `Optimizer`, with the slow weights in a list of its own."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner, self.steps = inner, 0
        self.slow = [p.detach().clone() for group in inner.param_groups for p in group["params"]]

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        self.inner.step(closure) if closure else self.inner.step()
        self.steps += 1
        if self.steps % 2 == 0:
            for p, slow in zip((p for g in self.inner.param_groups for p in g["params"]), self.slow, strict=True):
                slow.lerp_(p.data, 0.5)
                p.data.copy_(slow)

    def zero_grad(self) -> None:
        self.inner.zero_grad()


class Sam(Optimizer):
    """A step uphill, then one down from where it started; weights are put back as other memory. (arXiv:2010.01412)"""

    def __init__(self, params: Any, base: type[Optimizer], rho: float = 0.05, **options: Any) -> None:
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        scale = self.param_groups[0]["rho"] / (torch.stack([g.norm() for g in grads]).norm() + 1e-12)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old_p"] = p.data.clone()
                    p.add_(p.grad * scale)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old_p"]
        self.base_optimizer.step()

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        assert closure is not None
        with torch.enable_grad():
            closure()
        self.first_step()
        with torch.enable_grad():
            closure()
        self.second_step()


class TwoCalls(Sam):
    """SAM as its authors use it: `first_step` and `second_step`, and never `step`. The loop of the table does that."""


def muon(model: nn.Module) -> list[Optimizer]:
    """Muon for the matrices, SGD for the rest."""
    matrices = [p for p in model.parameters() if p.ndim == 2 and min(p.shape) > 1]
    rest = [p for p in model.parameters() if not any(p is m for m in matrices)]
    return [optim.Muon(matrices, lr=0.02, weight_decay=0.1), optim.SGD(rest, 0.05, momentum=0.9)]


def sparse_adam(model: nn.Module) -> list[Optimizer]:
    """SparseAdam for the embedding, SGD for the rest."""
    embedding = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    rest = [p for p in model.parameters() if not any(p is e for e in embedding)]
    return [optim.SparseAdam(embedding, lr=0.02), optim.SGD(rest, 0.05, momentum=0.9)]


def accelerated(model: nn.Module) -> Any:
    """What accelerate makes of SGD."""
    from accelerate import Accelerator

    sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    return Accelerator(cpu=True).prepare_optimizer(sgd)


def sharded(model: nn.Module) -> Any:
    """Adam with its state shared out over processes."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(model.parameters(), optimizer_class=optim.Adam, lr=0.01)


def of(kind: type[Any], *args: Any, **options: Any) -> Make:
    return lambda model: kind(model.parameters(), *args, **options)


OPTIMIZERS: dict[str, Make] = {
    "SGD": of(optim.SGD, 0.1),
    "SGD, momentum, decay": of(optim.SGD, 0.1, momentum=0.9, weight_decay=1e-2),
    "SGD, Nesterov, foreach": of(optim.SGD, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=True),
    "SGD, momentum, fused": of(optim.SGD, 0.1, momentum=0.9, fused=True),
    "SGD, dampening, maximize": of(optim.SGD, 0.01, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True),
    "Adam": of(optim.Adam, 0.01, weight_decay=1e-2),
    "Adam, AMSGrad, foreach": of(optim.Adam, 0.01, amsgrad=True, foreach=True),
    "Adam, fused": of(optim.Adam, 0.01, fused=True),
    "Adam, eps 0": of(optim.Adam, 0.01, eps=0.0),
    "AdamW": of(optim.AdamW, 0.01, weight_decay=0.1),
    "AdamW, AMSGrad, fused": of(optim.AdamW, 0.01, weight_decay=0.1, amsgrad=True, fused=True),
    "AdamW, decay above 1": of(optim.AdamW, 0.1, weight_decay=12.0),
    "Adamax": of(optim.Adamax, 0.01, weight_decay=0.1),
    "NAdam": of(optim.NAdam, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": of(optim.RAdam, 0.01, weight_decay=0.1),
    "Adagrad": of(optim.Adagrad, 0.05, initial_accumulator_value=0.1),
    "Adadelta": of(optim.Adadelta, 1.0),
    "RMSprop": of(optim.RMSprop, 0.01),
    "RMSprop, centred, momentum": of(optim.RMSprop, 0.01, momentum=0.9, centered=True),
    "RMSprop, momentum, eps 0": of(optim.RMSprop, 0.01, momentum=0.9, eps=0.0),
    "Rprop": of(optim.Rprop, 0.01),
    "ASGD": of(optim.ASGD, 0.05, weight_decay=1e-2),
    "LBFGS, strong Wolfe": of(optim.LBFGS, 0.1, max_iter=4, line_search_fn="strong_wolfe"),
    "SparseAdam + SGD": sparse_adam,
    "Adafactor": of(optim.Adafactor, 0.05, weight_decay=1e-2),
    "Muon + SGD": muon,
    "Lion, written through .data": lambda model: Lion(model.parameters(), 0.005),
    "LARS": lambda model: Lars(model.parameters(), 0.02),
    "Lookahead of SGD": lambda model: Lookahead(optim.SGD(model.parameters(), 0.1, momentum=0.9)),
    "Lookahead of AdamW, no Optimizer": lambda model: PrivateLookahead(optim.AdamW(model.parameters(), 0.01)),
    "SAM of SGD, step(closure)": lambda model: Sam(model.parameters(), optim.SGD, lr=0.1, momentum=0.9),
    "SAM of Adam, first_step, second_step": lambda model: TwoCalls(model.parameters(), optim.Adam, lr=0.01),
    "accelerate's SGD": accelerated,
    "ZeroRedundancyOptimizer of Adam": sharded,
}
