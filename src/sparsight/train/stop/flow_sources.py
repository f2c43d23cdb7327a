"""Flows for stopping rules, measured once at each evaluation point and once for each reference."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsight.measure.flow import (
    GradientFlow,
    InformationFlow,
    both_flows,
    flow_distance,
    gradient_flow,
    information_flow,
)
from sparsight.measure.flow.activations import Site
from sparsight.measure.flow.distance import Norm
from sparsight.measure.flow.information import Reduction
from sparsight.model.batch import batch_size
from sparsight.model.loss import task_loss
from sparsight.train.stop.context import Context, FlowSource, Reference
from sparsight.types import Masks

Statistic = Literal["norm", "mean_abs", "mean_abs_live", "total", "ema", "literal"]
EMA = "gradient flow (ema)"


@dataclass(frozen=True)
class InformationSource:
    reduction: Reduction
    site: Site
    pairs: tuple[tuple[str, str], ...] | None = None  # of layers; None: consecutive ones

    @property
    def name(self) -> str:
        chosen = "" if self.pairs is None else "; " + ", ".join(f"{a} > {b}" for a, b in self.pairs)
        return f"information flow ({self.reduction}, {self.site}{chosen})"

    def seen(self, context: Context) -> tuple[InformationFlow, dict[str, float]] | None:
        """The flow of the current network, and its recorded values; None without a probe."""
        now = _once(context, self.name, lambda: self._measure(context.model, context), forward=1)
        return None if now is None else (now, self._entries(now))

    def of(self, reference: Reference, context: Context) -> InformationFlow | None:
        return _once_of(reference, context, self.name, lambda model: self._measure(model, context), forward=1)

    def _measure(self, model: nn.Module, context: Context) -> InformationFlow:
        return information_flow(model, context.probe, reduction=self.reduction, site=self.site, pairs=self.pairs)

    def _entries(self, flow: InformationFlow) -> dict[str, float]:
        """The recorded values: one per pair, and the dead units, if any."""
        pairs = (f"{a} > {b}" for a, b in flow.pairs)
        found = {f"value:{self.name}, {pair}": float(v) for pair, v in zip(pairs, flow.values, strict=True)}
        return found | {f"value:dead units, {layer}": float(n) for layer, n in flow.dead.items() if n}


@dataclass(frozen=True)
class GradientSource:
    statistic: Statistic

    @property
    def name(self) -> str:
        return f"gradient flow ({self.statistic})"

    def seen(self, context: Context) -> tuple[GradientFlow | Tensor, dict[str, float]] | None:
        """The flow of the current network, and its recorded values; None without a probe or averages."""
        now = self._now(context)
        return None if now is None else (now, self._entries(now, context))

    def _now(self, context: Context) -> GradientFlow | Tensor | None:
        if self.statistic == "ema":
            return _vector(context.gradients)
        measure = self._literal("norm") if self.statistic == "literal" else self._measure
        return _once(context, self.name, lambda: measure(context.model, context.masks, context), **self._cost(context))

    def of(self, reference: Reference, context: Context) -> GradientFlow | Tensor | None:
        if self.statistic == "ema":
            start = f"value:{EMA}, "
            return _vector({k.removeprefix(start): v for k, v in reference.values.items() if k.startswith(start)})
        measure = self._literal("mean_abs") if self.statistic == "literal" else self._measure
        masks = {name: mask.to(context.masks[name].device) for name, mask in reference.masks.items()}
        return _once_of(
            reference, context, self.name, lambda model: measure(model, masks, context), **self._cost(context)
        )

    def _cost(self, context: Context) -> dict[str, float]:
        share = 1.0
        if self.statistic == "literal" and context.probe:
            share = batch_size(context.probe[-1]) / _samples(context)
        return {"forward": share, "backward": share}

    def _measure(self, model: nn.Module, masks: Masks, context: Context) -> GradientFlow:
        statistic: Any = self.statistic
        return gradient_flow(model, masks, context.probe, statistic=statistic, loss=context.loss)

    def _literal(self, statistic: Literal["norm", "mean_abs"]) -> Any:
        def measure(model: nn.Module, masks: Masks, context: Context) -> Tensor:
            n = len(context.probe)
            if n < 2:
                raise ValueError(f"the literal gradient flow needs at least 2 probe batches, got {n}")
            stale = gradient_flow(model, masks, context.probe[-1:], statistic=statistic, loss=context.loss)
            return stale.values * (n / (n - 1))

        return measure

    def _entries(self, flow: GradientFlow | Tensor, context: Context) -> dict[str, float]:
        """The recorded values: one per tensor. The loop records averages itself."""
        if self.statistic == "ema":
            return {}
        names = flow.names if isinstance(flow, GradientFlow) else tuple(context.masks)
        values = flow.values if isinstance(flow, GradientFlow) else flow
        return {f"value:{self.name}, {name}": float(v) for name, v in zip(names, values, strict=True)}


Source = InformationSource | GradientSource


def measure_together(sources: Iterable[FlowSource], context: Context) -> None:
    """Measure information flow and gradient flow in the same passes, if both are needed at this point.

    Only with the default loss: any other might run the model twice, or on other inputs.
    """
    asked = [source for source in sources if source.name not in context.flows]
    one = next((s for s in asked if isinstance(s, InformationSource)), None)
    other = next((s for s in asked if isinstance(s, GradientSource) and s.statistic not in ("ema", "literal")), None)
    if one is None or other is None or not context.probe or context.loss is not task_loss:
        return
    statistic: Any = other.statistic
    how: Any = {"reduction": one.reduction, "site": one.site, "pairs": one.pairs, "statistic": statistic}
    found = both_flows(context.model, context.masks, context.probe, loss=context.loss, **how)
    context.flows[one.name], context.flows[other.name] = found
    context.spend(forward=_samples(context), backward=_samples(context))


def parts(flow: InformationFlow | GradientFlow | Tensor) -> tuple[Tensor, ...]:
    """The tensors needed for a distance to this flow: its matrices, or its values."""
    if isinstance(flow, InformationFlow) and flow.matrices:
        return flow.matrices
    return (flow if isinstance(flow, Tensor) else flow.values,)


def between(now: InformationFlow | GradientFlow | Tensor, before: Sequence[Tensor], norm: Norm) -> float:
    if isinstance(now, InformationFlow) and now.matrices:
        return flow_distance(now, replace(now, matrices=tuple(before)), norm)
    return flow_distance(parts(now)[0], before[0], norm)


def _vector(values: Mapping[str, float]) -> Tensor | None:
    return torch.tensor(list(values.values()), dtype=torch.float64) if values else None


def _once(context: Context, name: str, measure: Any, **passes: float) -> Any:
    """The flow of the current network, measured once at this point for all rules; None without a probe."""
    if name not in context.flows and context.probe:
        context.flows[name] = measure()
        context.spend(**{what: share * _samples(context) for what, share in passes.items()})
    return context.flows.get(name)


def _once_of(reference: Reference, context: Context, name: str, measure: Any, **passes: float) -> Any:
    """The flow of a reference, measured once per run; None without a probe.

    Its cost is always counted at the first evaluation of the next level, even if a resumed run measures it again.
    """
    if not context.probe:
        return None
    if name not in reference.measured:
        model = copy.deepcopy(context.model)
        model.load_state_dict(reference.weights)
        reference.measured[name] = measure(model)
    if not context.history and reference.level == context.level - 1:
        key = f"{name} of {id(reference)}"
        if key not in context.flows:
            context.flows[key] = True
            context.spend(**{what: share * _samples(context) for what, share in passes.items()})
    return reference.measured[name]


def _samples(context: Context) -> int:
    return sum(batch_size(batch) for batch in context.probe)
