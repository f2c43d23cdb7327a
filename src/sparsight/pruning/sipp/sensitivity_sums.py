"""The sensitivities of a tensor, accumulated over points with bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsight.model.weights import layout_of
from sparsight.numerics.kernels.ratio import largest_and_total_, take_
from sparsight.pruning.sipp.patches import as_points, columns, patches_of, shape_of
from sparsight.pruning.sipp.sensitivities import Facts, Reduction
from sparsight.types import Layout

_PATCHES = 1 << 24  # numbers in one matrix of patches
_WIDE = 1 << 12  # most useful columns of a matrix of patches
_TILE = 1 << 17  # numbers of a product that fit into a core's cache
_SNAP = 4  # units of rounding: a share this close to 1 is 1


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
        self.layout = (layout_of(layer) or ("", Layout()))[1]
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
        self.patches = max(self.patches, patches_of(layer, x))
        self.points += len(x)
        x = _scaled(x)
        if not torch.isfinite(x).all():
            raise ValueError(f"cannot score {self.name!r}: the input of its layer is not finite")
        halves = [x] if not bool((x < 0).any()) else [x.clamp(min=0), (-x).clamp(min=0)]
        here = patches_of(layer, x)
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
