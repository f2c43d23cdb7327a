"""Rules that look at information flow and gradient flow: close to a reference, or no longer changing."""

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
from sparsight.train.stop.thresholds import in_a_row, met, recorded
from sparsight.types import StateDict


class _Consistent(StoppingRule):
    """What comparing a flow with a reference network's is, whichever flow it is."""

    eps: float
    norm: Norm
    reference: Baseline
    patience: int

    @property
    @abstractmethod
    def flow(self) -> Source:
        """The flow that is compared."""

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
                why = "nothing flows in one of the two networks, or what is not finite"
                said = f"{self.name}, at level {context.level}: {why}; the rule does not end the level"
                warnings.warn(said, RuntimeWarning, stacklevel=2)
            values[f"distance:{self.name}"] = near
        return values, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = recorded(history, f"distance:{self.name}")
        if not met(found, self.eps, self.patience):
            return None
        near = f"{self.flow.name} is {found[-1]:.3g} ({self.norm}) from that of {SAID[self.reference]}"
        return f"{near}, less than {self.eps:g}{in_a_row(self.patience)}"


@dataclass(frozen=True)
class InformationConsistent(_Consistent):
    """Stop when the information flow is close to a reference network's: distance < eps, `patience` times in a row.

    The flow is that of `information_flow` on the run's probe, between consecutive layers or the `pairs` given, the
    distance that of `flow_distance`. Never stops where there is no reference, as at the first level, nor on a
    distance that is not finite: NaN where nothing flows in one of the two networks, and RuntimeWarning says so.
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
    """Stop when the gradient flow is close to a reference network's: distance < eps, `patience` times in a row.

    `statistic` is one of `gradient_flow`, on the run's probe; or "ema", the exponential average of the gradient norms
    of the training steps, which costs no pass (its reference is what stands on record for that level); or
    "literal", the published code's mistake, for tests: norms of the present network against mean magnitudes of the
    reference, each of the last probe batch alone and n / (n - 1) times too large, n batches.
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
            raise ValueError("gf_ema is on record at the end of a level only: expected reference dense, parent or best")

    @property
    def flow(self) -> GradientSource:
        return GradientSource(self.statistic)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"gf_ema" if self.statistic == "ema" else "probe", self.reference})


@dataclass(frozen=True)
class FlowPlateau(StoppingRule):
    """Stop when a flow no longer changes: its distance to that of the evaluation before < tol, `patience` in a row.

    `flow` says which; the fields of the other one are ignored. Needs no reference, so it works at every level.
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
            raise ValueError("the literal statistic compares two kinds of number: it has no plateau")

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
        if not met(found, self.tol, self.patience):
            return None
        changed = f"{self.source.name} changed by {found[-1]:.3g} ({self.norm})"
        return f"{changed}, less than {self.tol:g}{in_a_row(self.patience)}"


def _flows(flow: InformationFlow | GradientFlow | Tensor) -> bool:
    """Whether anything does: two networks in which nothing flows are not alike, they are dead."""
    return any(bool(part.any()) for part in parts(flow))


def _tuples(pairs: Sequence[tuple[str, str]] | None) -> tuple[tuple[str, str], ...] | None:
    return None if pairs is None else tuple((a, b) for a, b in pairs)
