"""Stable ResNet: residual branches divided by the square root of their number."""

from __future__ import annotations

import copy
import fnmatch
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sparsight.measure.criticality.layers import residual_sums
from sparsight.numerics.checks import check_known

Kind = Literal["uniform", "decreasing"]


@dataclass(frozen=True)
class BranchScale:
    """A forward hook that multiplies the output of a module; it can be copied and pickled."""

    factor: float

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * self.factor


def scales(blocks: int, kind: Kind = "uniform") -> tuple[float, ...]:
    """The factor of each of L residual branches: 1 / sqrt(L), or 1 / (sqrt(k) log(k + 1)) for the k-th, k from 1.

    Source: Hayou et al., ICLR 2021, section 4; "Stable ResNet", AISTATS 2021, for the decreasing one.
    """
    check_known(Kind, kind=kind)
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1, got {blocks!r}")
    if kind == "uniform":
        return (1 / math.sqrt(blocks),) * blocks
    return tuple(1 / (math.sqrt(k) * math.log(k + 1)) for k in range(1, blocks + 1))


def stable_resnet(
    model: nn.Module, branches: Sequence[str] | None = None, *, kind: Kind = "uniform", fold: bool = False
) -> nn.Module:
    """A copy of a residual network with scaled branches: y = x + F(x) / sqrt(L), L the number of blocks.

    `branches` names the last module of each branch (after its last norm), in order of depth, by shell-style patterns:
    "blocks.*.bn2". None finds them by tracing: of each sum, the side with more layers is the branch, and must end in a
    module. A block counts once for each call. Shortcuts, stem and classifier do not change.

    The copy has the model's types, names and state dict; the scale is a forward hook on those modules. With `fold`
    their weight and bias are multiplied instead, which gives the same outputs but trains differently: gradients are
    larger by sqrt(L).

    Raises: ValueError if no branch is found, a branch does not end in a module, a pattern matches nothing, the model is
    already scaled, or a module to fold has no weight. Warns of sums without a clear branch.
    Source: Hayou et al., ICLR 2021, section 4 (their code scales after the last batch norm of the block).
    """
    if is_stable(model):
        raise ValueError(f"{type(model).__name__} is already a Stable ResNet: scale the original")
    if branches is None:
        blocks = _found(model)
    else:
        calls = Counter(name for block in residual_sums(model).blocks for name in block)
        blocks = tuple((name,) for name in _matched(model, branches) for _ in range(calls[name] or 1))
    made, factors = copy.deepcopy(model), dict[str, float]()
    for block, factor in zip(blocks, scales(len(blocks), kind), strict=True):
        for name in block:
            if factors.setdefault(name, factor) != factor:
                raise ValueError(f"{name!r} ends several branches with different factors: use kind='uniform'")
    for name, factor in factors.items():
        module = made.get_submodule(name)
        if not fold:
            module.register_forward_hook(BranchScale(factor))
            continue
        layer = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd, _NormBase))
        if not layer or not isinstance(module.weight, nn.Parameter):
            raise ValueError(f"fold works only for layers and batch norms, got {name!r} ({type(module).__name__})")
        with torch.no_grad():
            module.weight.mul_(factor)
            if module.bias is not None:
                module.bias.mul_(factor)
    return made


def _found(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The branches found by tracing. Raises: ValueError without any, or if one cannot be scaled."""
    sums, who = residual_sums(model), type(model).__name__
    if sums.endless:
        raise ValueError(
            f"cannot scale every residual branch of {who}: {', '.join(sums.endless)} does not end in a single module; "
            "name the last module of each branch with branches=[...]"
        )
    if not sums.blocks:
        raise ValueError(f"no residual branch found in {who}: name the last module of each with branches=[...]")
    if sums.unclear:
        warnings.warn(
            f"not scaled, because both sides have the same number of layers: {', '.join(sums.unclear)}; if one of them "
            "is a branch, name the last module of each with branches=[...]",
            stacklevel=3,
        )
    return sums.blocks


def is_stable(model: nn.Module) -> bool:
    """Whether the branches of a model are scaled, by `stable_resnet` without `fold` or by the zoo."""
    return any(
        getattr(module, "branch_scale", 1.0) != 1.0
        or any(isinstance(hook, BranchScale) for hook in module._forward_hooks.values())
        for module in model.modules()
    )


def residual_branches(model: nn.Module) -> tuple[str, ...]:
    """The names of the last modules of a model's residual branches, in order of execution, without duplicates.

    Found by tracing: () if that fails or there are none. In a sum, a side is the branch if every path through it passes
    more linear and convolution layers than some path through the other side. It must also end in a module (ignoring
    dropout, reshaping and constant factors).
    """
    return tuple(dict.fromkeys(name for block in residual_sums(model).blocks for name in block))


def _matched(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise TypeError(f"branches must be a sequence of patterns, such as [{patterns!r}], got {patterns!r}")
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(f"pattern {pattern!r} matches no module: the modules are {', '.join(names[:8])}, ...")
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
