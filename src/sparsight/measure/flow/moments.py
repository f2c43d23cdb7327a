"""Means, variances and correlations of a stream of samples, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sparsight.numerics.exact import exact

Pair = tuple[str, str]

_CHUNK = 256  # samples per sum: fewer cost more in calls, more leave the cache
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


@dataclass
class CoMoments:
    """Moments of every layer, and for every pair of layers the sums of products of deviations, C[i, j].

    Summed a few samples at a time, in the memory of the matrices.
    """

    pairs: tuple[Pair, ...]
    layers: dict[str, Moments] = field(default_factory=dict)
    products: dict[Pair, Float64[Tensor, "_ _"]] = field(default_factory=dict)
    waiting: list[Mapping[str, Tensor]] = field(default_factory=list)
    rows: int = 0

    def add(self, values: Mapping[str, Float[Tensor, "samples units"]]) -> None:
        self.waiting.append(values)
        self.rows += len(next(iter(values.values())))
        if self.rows >= _CHUNK:
            self.finish()

    def finish(self) -> None:
        """Add the waiting samples: C += C_batch + (n b / (n + b)) delta delta'."""
        if not self.waiting:
            return
        new = {name: moments(torch.cat([values[name] for values in self.waiting])) for name in self.waiting[0]}
        for a, b in dict.fromkeys(self.pairs):
            product = new[a][1].T @ new[b][1]
            if self.layers:
                n, m = self.layers[a].count, new[a][0].count
                delta = [new[name][0].mean - self.layers[name].mean for name in (a, b)]
                product += self.products[a, b] + torch.outer(*delta) * (n * m / (n + m))
            self.products[a, b] = product
        self.layers = {name: merged(self.layers.get(name), own) for name, (own, _) in new.items()}
        self.waiting, self.rows = [], 0

    def rho(self, pair: Pair) -> Float64[Tensor, "units next"]:
        """Pearson correlation of every unit of the first layer with every unit of the second; 0 for a dead unit."""
        first, second = (self.layers[name] for name in pair)
        rho = self.products[pair] / first.count * first.scale[:, None] * second.scale
        return rho.clamp(-1.0, 1.0) + 0.0  # rounding may exceed 1; no -0.0


@dataclass
class MeanScores:
    """The samples and their moments, in memory of samples times units, not units times units."""

    layers: dict[str, Moments] = field(default_factory=dict)
    kept: list[Mapping[str, Tensor]] = field(default_factory=list)

    def add(self, values: Mapping[str, Float[Tensor, "samples units"]]) -> None:
        self.kept.append(values)
        self.layers = {name: merged(self.layers.get(name), moments(x)[0]) for name, x in values.items()}

    def products(self, pairs: tuple[Pair, ...]) -> list[Tensor]:
        """(1/N) sum_n zbar_n zbar'_n of every pair, with zbar_n the mean z-score of sample n."""
        total = {pair: torch.zeros((), dtype=torch.float64) for pair in pairs}
        scale = {name: m.scale / len(m.mean) for name, m in self.layers.items()}
        for values in self.kept:
            zbar = {name: (exact(x) - self.layers[name].mean) @ scale[name] for name, x in values.items()}
            for a, b in total:
                total[a, b] += (zbar[a] @ zbar[b]).cpu()
        return [total[pair] / self.layers[pair[0]].count for pair in pairs]
