"""Information flow: correlations between the units of each layer and the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from sparsight.measure.flow.activations import Site, measured_layers, read
from sparsight.measure.flow.moments import CoMoments, MeanScores, Pair
from sparsight.model.batch import predict
from sparsight.model.functional import evaluating, pure
from sparsight.numerics.checks import check_known
from sparsight.numerics.seeds import seeded
from sparsight.types import Batch

Reduction = Literal["rms", "abs", "signed", "matrix"]

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

    `site`: the layer's own output ("pre"), that of the first norm after it ("post_norm"), or of the first activation
    ("post_act"), before the next layer runs; without one, the site before. In eval mode.
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
        self._layers = layers = _wanted(plain, pairs, skip)
        way, every = measured_layers(plain, skip), measured_layers(plain, ())
        self._others = {name: layer for name, layer in way.items() if name not in layers}
        self._shortcuts = {name: layer for name, layer in every.items() if name not in way and name not in layers}
        self._sums: CoMoments | MeanScores | None = None
        self._order: tuple[str, ...] = ()  # of layers

    def take(self, run: Callable[[Batch], Any], batch: Batch) -> None:
        """Add one batch; `run(batch)` is its forward pass."""
        values = read(run, self._layers, self._others, self._shortcuts, batch, self._site)
        if self._sums is None:
            self._order = tuple(values)
            self._pairs = _consecutive(values) if self._pairs is None else _given(values, self._pairs)
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


def _wanted(model: nn.Module, pairs: Sequence[Pair] | None, skip: Sequence[str]) -> dict[str, nn.Module]:
    if pairs is None:
        return measured_layers(model, skip)
    layers = measured_layers(model, ())
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"pairs must be at least one pair of layer names, got {list(pairs)!r}")
    names = dict.fromkeys(name for pair in pairs for name in pair)
    unknown = next((name for name in names if name not in layers), None)
    if unknown is not None:
        raise ValueError(f"layers in pairs must be one of {', '.join(map(repr, layers))}, got {unknown!r}")
    return {name: layers[name] for name in names}


def _consecutive(values: Mapping[str, Tensor]) -> tuple[Pair, ...]:
    names = list(values)
    if len(names) < 2:
        raise ValueError(f"information flow needs at least two layers in the forward pass, got {names}")
    return tuple(pairwise(names))


def _given(values: Mapping[str, Tensor], pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    idle = next((name for pair in pairs for name in pair if name not in values), None)
    if idle is not None:
        raise ValueError(f"layer {idle!r} does not run in the forward pass, which runs {', '.join(values)}")
    return tuple((a, b) for a, b in pairs)
