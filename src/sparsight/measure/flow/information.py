"""Information flow: correlations between the units of each layer and the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from sparsight.measure.flow.activations import Site, measured_layers, read
from sparsight.model.batch import predict
from sparsight.model.functional import evaluating, pure
from sparsight.numerics.checks import check_known
from sparsight.numerics.exact import exact
from sparsight.numerics.seeds import seeded
from sparsight.types import Batch

Reduction = Literal["rms", "abs", "signed", "matrix"]
Pair = tuple[str, str]

_CHUNK = 256  # samples per sum: fewer mean more calls, more exceed the cache
_LEAST = 1e-12  # a unit is dead if its standard deviation is at most this, or
_RELATIVE = 1e-6  # this share of its root mean square: only rounding moves it

SHORTCUTS = ("*downsample*", "*shortcut*", "*skip*")
"""Names of layers on shortcuts."""


@dataclass(frozen=True, eq=False)
class InformationFlow:
    """One number per pair of layers, and the numbers of constant units."""

    pairs: tuple[Pair, ...]
    values: Float64[Tensor, " pairs"]  # on the CPU; NaN where an activation was not finite
    reduction: Reduction
    site: Site
    samples: int
    units: Mapping[str, int]  # by layer
    dead: Mapping[str, int]  # units that are constant over the samples
    matrices: tuple[Float64[Tensor, "_ _"], ...] = ()  # rho of each pair, for reduction="matrix"

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.values).all())


def information_flow(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    reduction: Reduction = "rms",
    site: Site = "pre",
    pairs: Sequence[Pair] | None = None,
    skip: Sequence[str] = SHORTCUTS,
    forward: Callable[[nn.Module, Batch], Any] = predict,
) -> InformationFlow:
    """Correlation between the units of consecutive layers, over the samples of all batches; one pass.

    rho[i, j] = (1/N) sum_n z[n, i] z'[n, j], z = (a - mean) / sd with population statistics, a[n, i] the value of
    unit i for sample n: a channel's mean over positions, a feature's mean over tokens. One number a pair, over all
    i, j: "rms" sqrt(mean rho^2), in [0, 1]; "abs" mean |rho|, in [0, 1]; "signed" mean rho, in [-1, 1], as
    (1/N) sum_n zbar_n zbar'_n with zbar_n = mean_i z[n, i], without the matrix; "matrix" keeps rho, values as "rms".
    Higher: more correlated layers. Independent units give rms sqrt(1 / (N - 1)), not 0.

    `site`: the output of the layer ("pre"), of the first norm after it ("post_norm"), or of the first activation after
    it ("post_act"), before the next layer runs; without one, the previous site. In eval mode.
    Pairs are names of layers (Linear, convolutions, attention's output projection), by default consecutive ones in
    execution order, without matches of `skip`.

    A dead unit, sd <= max(1e-12, 1e-6 rms), has correlations 0, stays in the means and is counted. Non-finite
    activations make their pairs NaN. Raises: ValueError without batches; for fewer than two layers; for a layer that
    runs more than once, or in another order in another batch; for unknown layers; for an output without the samples
    as its first dimension.

    Source: Gharatappeh and Sekeh, "Information Consistent Pruning", 2025: "signed", over the training set. Sums are
    merged as in Chan, Golub and LeVeque 1983: batches and their order change only rounding.
    """
    collector = Collector(model, reduction, site, pairs, skip)

    def over_all(net: nn.Module, _: Batch) -> Any:
        for batch in batches:
            collector.take(lambda b: forward(net, b), batch)

    with evaluating(collector.model), seeded(0), torch.no_grad():
        # one functional call, since each costs as much as a small batch
        pure(collector.model).loss({}, over_all, batches)
    return collector.flow()


class Collector:
    """Information flow from forward passes that run for another purpose."""

    def __init__(
        self, model: nn.Module, reduction: Reduction, site: Site, pairs: Sequence[Pair] | None, skip: Sequence[str]
    ) -> None:
        check_known(Reduction, reduction=reduction)
        check_known(Site, site=site)
        self.model = plain = getattr(model, "_orig_mod", model)  # a compiled forward may leave out hooks
        self._reduction: Reduction = reduction
        self._site: Site = site
        self._pairs = None if pairs is None else tuple(pairs)
        self._layers, way = measured_layers(plain, ()), measured_layers(plain, skip)
        self._measured = way if pairs is None else _named(pairs, self._layers)
        self._shortcuts = self._layers.keys() - way.keys() - self._measured.keys()
        self._sums: CoMoments | MeanScores | None = None
        self._order: tuple[str, ...] = ()  # of layers

    def take(self, run: Callable[[Batch], Any], batch: Batch) -> None:
        """Add one batch; `run(batch)` is its forward pass."""
        layers = self._measured if self._site == "pre" else self._layers
        values = read(run, batch, layers, self._measured, self._shortcuts, self._site)
        if self._sums is None:
            self._order = tuple(values)
            pairs = tuple(pairwise(values)) if self._pairs is None else self._pairs
            if not pairs:
                raise ValueError(f"information flow needs at least two layers in the forward pass, got {[*values]}")
            idle = next((name for pair in pairs for name in pair if name not in values), None)
            if idle is not None:
                raise ValueError(f"layer {idle!r} does not run in the forward pass, which runs {', '.join(values)}")
            self._pairs = tuple((a, b) for a, b in pairs)
            self._sums = MeanScores() if self._reduction == "signed" else CoMoments(self._pairs)
        if self._order != tuple(values):
            raise ValueError(
                f"layers must run in the same order for every batch, got {', '.join(values)} after "
                f"{', '.join(self._order)}: give `pairs` of layers that always run"
            )
        self._sums.add(values)

    def flow(self) -> InformationFlow:
        if self._sums is None or self._pairs is None:
            raise ValueError("information_flow needs at least one batch, got none")
        matrices = ()
        if isinstance(self._sums, MeanScores):
            values = self._sums.products(self._pairs)
        else:
            self._sums.finish()
            rhos = [self._sums.rho(pair) for pair in self._pairs]
            values = [rho.abs().mean() if self._reduction == "abs" else rho.square().mean().sqrt() for rho in rhos]
            matrices = tuple(rho.cpu() for rho in rhos) if self._reduction == "matrix" else ()
        layers = self._sums.layers
        return InformationFlow(
            self._pairs,
            torch.stack(values).cpu() + 0.0,
            self._reduction,
            self._site,
            next(iter(layers.values())).count,
            {name: len(m.mean) for name, m in layers.items()},
            {name: int(m.dead.sum()) for name, m in layers.items()},
            matrices,
        )


# -- which layers ------------------------------------------------------------------------------------------------


def _named(pairs: Sequence[Pair], layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The layers that the pairs name. Raises: ValueError without pairs, or for an unknown layer."""
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"pairs must be at least one pair of layer names, got {list(pairs)!r}")
    names = dict.fromkeys(name for pair in pairs for name in pair)
    unknown = next((name for name in names if name not in layers), None)
    if unknown is not None:
        raise ValueError(f"layers in pairs must be one of {', '.join(map(repr, layers))}, got {unknown!r}")
    return {name: layers[name] for name in names}


# -- sums over a stream of samples, in float64 --------------------------------------------------------------------


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
