"""The sensitivities of a tensor, accumulated over points with bounded memory, and the inputs they are made from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from sparsight.model.weights import layout_of
from sparsight.numerics.kernels.ratio import largest_and_total_, take_
from sparsight.pruning.allocate.in_groups import Rows
from sparsight.types import Scored, Scores

_PATCHES = 1 << 24  # numbers in one matrix of patches
_WIDE = 1 << 12  # most useful columns of a matrix of patches
_TILE = 1 << 17  # numbers of a product that fit into a core's cache
_SNAP = 4  # units of rounding: a share this close to 1 is 1

Reduction = Literal["max", "mean"]


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts about a tensor besides its sensitivities: an entry of `Scored.facts`."""

    positive: Bool[Tensor, ...]  # whether the weight is > 0: its group in the row
    mean: Float[Tensor, ...]  # mean sensitivity over points and patches: the first key for ties
    size: Float[Tensor, ...]  # |w|: the second key
    patches: int  # P: patches per point (1 in a linear layer)
    kernel: int  # kappa: weights per filter and input channel (1 in a linear layer)


def by_rows(scores: Scores, rows: Rows) -> Scored:
    """The scores and facts with output units along dimension 0."""
    known = scores if isinstance(scores, Scored) else Scored(scores)
    facts = {}
    for name, fact in known.facts.items():
        own = {part: rows.of({name: getattr(fact, part)})[name] for part in ("positive", "mean", "size")}
        facts[name] = replace(fact, **own)
    return replace(known, scores=rows.of(known), facts=facts)


def saturated(scores: Scores) -> int:
    """The number of sensitivities that are exactly 1, because some point had no other active edge of their sign."""
    return sum(int((score == 1).sum()) for score in scores.values())


class SensitivitySums:
    """The largest and the total share of each weight in its part of the output, over all points so far.

    Rows of weights and points are first scaled by powers of two to a largest entry of about 1, which does not change
    any share.
    """

    def __init__(self, name: str, layer: nn.Module, weight: Tensor) -> None:
        groups, inside, self.kernel = shape_of(layer)
        work = torch.promote_types(weight.dtype, torch.float32)
        if not torch.isfinite(weight).all():
            raise ValueError(f"cannot score {name!r}: its weights are not all finite")
        self.name, self.weight = name, weight
        self.layout = layout_of(layer)[1]
        rows = self.layout.rows(weight).to(work).flatten(1)
        scaled = _scaled(rows).reshape(groups, len(rows) // groups, inside)
        self.size = scaled.abs()
        self.parts = torch.stack([scaled.clamp(min=0), (-scaled).clamp(min=0)])  # (sign, G, F / G, K)
        self.side = (scaled < 0).to(torch.uint8)
        self.top, self.total = torch.zeros_like(scaled), torch.zeros_like(scaled)
        self.patches = self.points = 0

    def add(self, layer: nn.Module, x: Tensor, reduction: Reduction) -> None:
        """Add a layer's input, in blocks of points."""
        x = as_points(layer, x.detach()).to(self.top.dtype)
        here = patches_of(layer, x)
        self.patches = max(self.patches, here)
        self.points += len(x)
        x = _scaled(x)
        if not torch.isfinite(x).all():
            raise ValueError(f"cannot score {self.name!r}: the input of its layer is not finite")
        halves = [x] if not bool((x < 0).any()) else [x.clamp(min=0), (-x).clamp(min=0)]
        width = max(1, here * self.size.shape[-1])
        step = max(1, min(_PATCHES // width, max(1, _WIDE // here)))
        for half in halves:
            for some in half.split(step):
                self._block(columns(layer, some), here, reduction)

    def _block(self, a: Tensor, patches: int, reduction: Reduction) -> None:
        """Add the patches of some points: `a` is (G, K, M), M = points x patches."""
        z = torch.matmul(self.parts, a)  # (sign, G, F / G, M)
        nothing = z <= torch.finfo(z.dtype).tiny  # sums of nonnegative terms are accurate down to here
        r = z.reciprocal_().masked_fill_(nothing, 0)
        for g in range(len(a)):
            one = (a[g], r[:, g].contiguous(), self.side[g], self.top[g], self.total[g])
            if reduction == "max" or patches == 1:
                largest_and_total_(*one)
            else:
                largest_mean_and_total_(*one, patches)

    def result(self) -> tuple[Tensor, Facts]:
        """Scores in [0, 1], and facts. Raises: ValueError if the layer was never called."""
        if not self.patches:
            raise ValueError(
                f"cannot score {self.name!r}: its layer was never called, or another module reads its weight; skip it "
                f"with exclude=({self.name!r},) of `dense` or of the recipe"
            )
        shape, work = self.weight.shape, self.top.dtype
        score = (self.top * self.size).clamp_(0, 1).masked_fill_(self.size == 0, 0)
        score.masked_fill_(score >= 1 - _SNAP * torch.finfo(work).eps, 1)
        mean = (
            (self.total * self.size)
            .div_(max(1, self.points * self.patches))
            .clamp_(0, 1)
            .masked_fill_(self.size == 0, 0)
        )
        size = self.weight.detach().to(work, copy=True).abs_()
        positive = self.weight.detach() > 0
        score, mean = (self.layout.back(x.flatten(0, 1), shape) for x in (score, mean))
        return score, Facts(positive, mean, size, self.patches, self.kernel)


def largest_mean_and_total_(a: Tensor, r: Tensor, side: Tensor, top: Tensor, total: Tensor, patches: int) -> None:
    """Like `largest_and_total_`, but with the largest of each point's mean over its patches.

    The mean of a[k, p] r[f, p] over p is a matrix product per sign, computed in tiles that stay in the processor's
    cache.
    """
    step = max(1, _TILE // len(a)) if a.device.type == "cpu" else len(side)
    room = a.new_empty(2, min(step, len(side)), len(a))
    for i in range(0, a.shape[1], patches):
        point = a[:, i : i + patches].t()
        for f in range(0, len(side), step):
            some = slice(f, f + step)
            parts = (half[some, i : i + patches] for half in r)
            plus, minus = (torch.mm(part, point, out=out[: len(part)]) for part, out in zip(parts, room, strict=True))
            take_(plus, minus, side[some], top[some], total[some], patches)


def _scaled(x: Tensor) -> Tensor:
    """Each entry of dimension 0, scaled by a power of two to a largest magnitude in [0.5, 1)."""
    if not x.numel():
        return x
    limit = 120 if x.dtype == torch.float32 else 1000
    exponent = torch.frexp(x.flatten(1).abs().amax(1)).exponent.clamp(-limit, limit)
    factor = torch.ldexp(x.new_ones(len(x)), -exponent)
    return x * factor.reshape(-1, *[1] * (x.dim() - 1))


# -- inputs of layers as matrices, with a column for each position of a filter -------------------------------------

# torch types the attributes of an nn.Module as Tensor | Module: hence the ignores below.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def as_points(layer: nn.Module, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """The input with its points along dimension 0: each row of a linear layer's input (each token) is a point."""
    if not isinstance(layer, _CONVOLUTIONS):
        return x.reshape(-1, x.shape[-1])
    return x.unsqueeze(0) if x.dim() == layer.weight.dim() - 1 else x  # type: ignore[union-attr, operator]


def shape_of(layer: nn.Module) -> tuple[int, int, int]:
    """(groups, weights per filter, weights per filter and input channel) of a layer.

    Raises: TypeError for anything but linear layers and ordinary convolutions.
    """
    kind, layout = layout_of(layer)
    if kind == "linear":
        return 1, layout.rows(layer.weight).shape[1], 1  # type: ignore[arg-type]
    if isinstance(layer, _CONVOLUTIONS):
        kernel = math.prod(layer.kernel_size)
        return layer.groups, layer.in_channels // layer.groups * kernel, kernel
    raise TypeError(f"expected Linear, Conv1d, Conv2d, Conv3d or GPT-2's Conv1D, got {type(layer).__name__}")


def patches_of(layer: nn.Module, x: Float[Tensor, ...]) -> int:
    """Patches per point: the output positions of a convolution, 1 for a linear layer."""
    if not isinstance(layer, _CONVOLUTIONS):
        return 1
    return math.prod(_windows(layer, x[:1]).shape[2 : 2 + len(layer.kernel_size)])


def columns(layer: nn.Module, x: Float[Tensor, "N ..."]) -> Float[Tensor, "G K M"]:
    """The patches of all points as columns, for each of the layer's groups: M = N P, point by point.

    Rows are the weights of a filter in memory order (input channel, then kernel position):
    `weight.reshape(G, F / G, K) @ columns` is the layer's output without its bias, for any stride, dilation, groups and
    padding mode.
    """
    if not isinstance(layer, _CONVOLUTIONS):
        return x.t().unsqueeze(0).contiguous()
    windows = _windows(layer, x).unflatten(1, (layer.groups, -1))  # (points, groups, channels, *places, *kernel)
    n = len(layer.kernel_size)
    windows = windows.permute(1, 2, *range(3 + n, 3 + 2 * n), 0, *range(3, 3 + n))
    return windows.flatten(2 + n).flatten(1, -2).contiguous()


def _windows(layer: nn.Module, x: Tensor) -> Tensor:
    """A view of the padded input as (points, channels, *output positions, *kernel positions)."""
    padding = tuple(layer._reversed_padding_repeated_twice)  # also for padding="same"  # type: ignore[union-attr, arg-type]
    if any(padding):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = functional.pad(x, padding, mode=mode)  # type: ignore[arg-type]
    parts = zip(layer.kernel_size, layer.dilation, layer.stride, strict=True)  # type: ignore[arg-type]
    for axis, (size, dilation, step) in enumerate(parts, start=2):
        x = x.unfold(axis, dilation * (size - 1) + 1, step)[..., ::dilation]
    return x
