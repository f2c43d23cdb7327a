"""Means, variances and correlations of a stream of samples, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sparsight.numerics.exact import exact

_LEAST = 1e-12  # a unit whose standard deviation is at most this, or
_RELATIVE = 1e-6  # this share of its root mean square, is dead: only rounding moves it


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and sum of squared deviations of n samples of M units."""

    count: int
    mean: Float64[Tensor, " units"]
    m2: Float64[Tensor, " units"]

    @property
    def deviation(self) -> Float64[Tensor, " units"]:
        """Population standard deviation, sqrt(m2 / n)."""
        return (self.m2 / self.count).sqrt()

    @property
    def dead(self) -> Tensor:
        """Dead units: sd <= max(1e-12, 1e-6 rms), with rms^2 = mean^2 + sd^2. A NaN is not dead."""
        sd = self.deviation
        return sd <= (_RELATIVE * torch.hypot(self.mean, sd)).clamp_min(_LEAST)

    @property
    def scale(self) -> Float64[Tensor, " units"]:
        """Factors from deviations to z-scores: 1 / sd, 0 for dead units."""
        return torch.where(self.dead, 0.0, 1.0 / self.deviation)


def moments(x: Float[Tensor, "samples units"]) -> tuple[Moments, Float64[Tensor, "samples units"]]:
    """The moments of one batch, and its deviations from the batch's mean."""
    apart = exact(x.clone() if x.dtype is torch.float64 else x)  # a copy either way
    mean = apart.mean(0)
    apart -= mean
    return Moments(len(x), mean, apart.square().sum(0)), apart


def merged(a: Moments | None, b: Moments) -> Moments:
    """The moments of both streams together (Chan, Golub and LeVeque 1983), without differences of large squares."""
    if a is None:
        return b
    n = a.count + b.count
    delta = b.mean - a.mean
    return Moments(n, a.mean + delta * (b.count / n), a.m2 + b.m2 + delta.square() * (a.count * b.count / n))


@dataclass(frozen=True, eq=False)
class CoMoments:
    """Moments of every layer, and for every pair of layers the sums of products of deviations, C[i, j]."""

    layers: Mapping[str, Moments]
    products: Mapping[tuple[str, str], Float64[Tensor, "_ _"]]

    def rho(self, pair: tuple[str, str]) -> Float64[Tensor, "units next"]:
        """Pearson correlation of every unit of the first layer with every unit of the second; 0 for a dead unit."""
        first, second = (self.layers[name] for name in pair)
        rho = self.products[pair] / first.count * first.scale[:, None] * second.scale
        return rho.clamp(-1.0, 1.0) + 0.0  # rounding may exceed 1; no -0.0


def more(
    seen: CoMoments | None, batch: Mapping[str, Float[Tensor, "samples units"]], pairs: tuple[tuple[str, str], ...]
) -> CoMoments:
    """`seen` and another batch: C += C_batch + (n b / (n + b)) delta delta'."""
    new = {name: moments(x) for name, x in batch.items()}
    products = {(a, b): new[a][1].T @ new[b][1] for a, b in pairs}
    if seen is None:
        return CoMoments({name: m for name, (m, _) in new.items()}, products)
    for a, b in products:
        n, m = seen.layers[a].count, new[a][0].count
        delta = [new[name][0].mean - seen.layers[name].mean for name in (a, b)]
        products[a, b] += seen.products[a, b] + torch.outer(*delta) * (n * m / (n + m))
    return CoMoments({name: merged(seen.layers[name], m) for name, (m, _) in new.items()}, products)
