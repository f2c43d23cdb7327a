"""Rules on information flow and gradient flow: close to a reference, or no longer changing."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sparsight.measure.flow import GradientFlow, InformationFlow, flow_distance
from sparsight.numerics.checks import check_known, check_positive, check_whole
from sparsight.train.observation import Observation
from sparsight.train.stop.accuracy import SAID
from sparsight.train.stop.context import Baseline, Context, StoppingRule
from sparsight.train.stop.flow_sources import (
    EMA,
    GradientSource,
    InformationSource,
    Norm,
    Reduction,
    Site,
    Source,
    Statistic,
    between,
    parts,
)
from sparsight.train.stop.thresholds import less, recorded
from sparsight.types import StateDict


class _Consistent(StoppingRule):
    """Compares a flow with that of a reference network."""

    eps: float
    norm: Norm
    reference: Baseline
    patience: int

    @property
    @abstractmethod
    def flow(self) -> Source:
        """The flow to compare."""

    def _check(self) -> None:
        check_known(Norm, norm=self.norm)
        check_known(Baseline, reference=self.reference)
        check_positive(eps=self.eps)
        check_whole(1, patience=self.patience)

    @property
    def name(self) -> str:
        return f"{self.flow.name}, {self.norm} to {self.reference}"

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.flow,)

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        seen = self.flow.seen(context)
        if seen is None:
            return {}, memory
        now, entries = seen
        values = {**entries, f"threshold:{self.name}": self.eps}
        reference = context.references.get(self.reference)
        there = None if reference is None else self.flow.of(reference, context)
        if there is not None:
            near = flow_distance(now, there, self.norm) if _flows(now) and _flows(there) else math.nan
            if math.isnan(near):
                why = "the flow of one of the two networks is zero or not finite"
                said = f"{self.name}, at level {context.level}: {why}; the rule cannot end the level"
                warnings.warn(said, RuntimeWarning, stacklevel=2)
            values[f"distance:{self.name}"] = near
        return values, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = recorded(history, f"distance:{self.name}")
        other = f" ({self.norm}) from that of {SAID[self.reference]}"
        return less(found, self.eps, self.patience, f"{self.flow.name} is", other)


@dataclass(frozen=True)
class InformationConsistent(_Consistent):
    """Stop if the information flow is close to a reference network's: distance < eps, `patience` times in a row.

    Uses `information_flow` on the run's probe, between consecutive layers or `pairs`, and `flow_distance`. Never stops
    without a reference, as at the first level, or if the flow of either network is zero or not finite, with a
    RuntimeWarning.

    Source: Gharatappeh and Sekeh, arXiv 2501.15592, variant IF: reduction "signed", norm "l2", reference "warmup",
    eps 0.11. The defaults here are ours.
    """

    eps: float = 0.05
    reduction: Reduction = "rms"
    site: Site = "pre"
    norm: Norm = "relative"
    reference: Baseline = "dense"
    patience: int = 1
    pairs: Sequence[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        check_known(Reduction, reduction=self.reduction)
        check_known(Site, site=self.site)
        self._check()

    @property
    def flow(self) -> InformationSource:
        return InformationSource(self.reduction, self.site, _tuples(self.pairs))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"probe", self.reference})


@dataclass(frozen=True)
class GradientConsistent(_Consistent):
    """Stop if the gradient flow is close to a reference network's: distance < eps, `patience` times in a row.

    `statistic` is one of `gradient_flow`, on the run's probe; or "ema", the exponential average of the gradient norms
    during training, which needs no extra pass (its reference is the recorded average of that level); or "literal",
    which reproduces a mistake in the published code: norms of the current network against mean magnitudes of the
    reference, both from only the last of n probe batches and n / (n - 1) times too large.

    Source: Gharatappeh and Sekeh, arXiv 2501.15592, variant GF: norm "l2", reference "warmup", eps 0.5. The defaults
    here are ours.
    """

    eps: float = 0.25
    statistic: Statistic = "norm"
    norm: Norm = "relative"
    reference: Baseline = "dense"
    patience: int = 1

    def __post_init__(self) -> None:
        check_known(Statistic, statistic=self.statistic)
        self._check()
        if self.statistic == "ema" and self.reference == "warmup":
            raise ValueError("statistic='ema' needs reference 'dense', 'parent' or 'best', got 'warmup'")

    @property
    def flow(self) -> GradientSource:
        return GradientSource(self.statistic)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"gf_ema" if self.statistic == "ema" else "probe", self.reference})


@dataclass(frozen=True)
class FlowPlateau(StoppingRule):
    """Stop if a flow no longer changes: distance to the previous evaluation's < tol, `patience` times in a row.

    `flow` says which; the fields of the other are ignored. Needs no reference, and works at every level.
    """

    flow: Literal["information", "gradient"] = "information"
    tol: float = 0.02
    patience: int = 2
    reduction: Reduction = "rms"
    site: Site = "pre"
    statistic: Statistic = "norm"
    norm: Norm = "relative"
    pairs: Sequence[tuple[str, str]] | None = None

    def __post_init__(self) -> None:
        check_known(("information", "gradient"), flow=self.flow)
        check_known(Norm, norm=self.norm)
        check_known(Reduction, reduction=self.reduction)
        check_known(Site, site=self.site)
        check_known(Statistic, statistic=self.statistic)
        check_positive(tol=self.tol)
        check_whole(1, patience=self.patience)
        if self.flow == "gradient" and self.statistic == "literal":
            raise ValueError("flow='gradient' does not work with statistic='literal', which compares different numbers")

    @property
    def source(self) -> Source:
        if self.flow == "gradient":
            return GradientSource(self.statistic)
        return InformationSource(self.reduction, self.site, _tuples(self.pairs))

    @property
    def name(self) -> str:
        return f"{self.source.name}, {self.norm} to the evaluation before"

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.source,)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"gf_ema" if self.source.name == EMA else "probe"})

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        source = self.source
        seen = source.seen(context)
        if seen is None:
            return {}, memory
        now, entries = seen
        kept = {f"flow:{source.name}:{i}": part for i, part in enumerate(parts(now))}
        values = {**entries, f"threshold:{self.name}": self.tol}
        if all(name in memory for name in kept):
            values[f"distance:{self.name}"] = between(now, [memory[name] for name in kept], self.norm)
        return values, {**memory, **kept}

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = recorded(history, f"distance:{self.name}")
        return less(found, self.tol, self.patience, f"{self.source.name} changed by", f" ({self.norm})")


def _flows(flow: InformationFlow | GradientFlow | Tensor) -> bool:
    """Whether the flow is not all zero: two dead networks do not count as consistent."""
    return any(bool(part.any()) for part in parts(flow))


def _tuples(pairs: Sequence[tuple[str, str]] | None) -> tuple[tuple[str, str], ...] | None:
    return None if pairs is None else tuple((a, b) for a, b in pairs)
