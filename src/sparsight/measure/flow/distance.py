"""The distance between the flows of two networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sparsight.measure.flow.gradients import GradientAverage, GradientFlow
from sparsight.measure.flow.information import InformationFlow
from sparsight.numerics.checks import check_known
from sparsight.numerics.exact import exact

Norm = Literal["relative", "l2", "linf"]
Flow = InformationFlow | GradientFlow | GradientAverage | Tensor | Sequence[float]


def flow_distance(a: Flow, b: Flow, norm: Norm = "relative") -> float:
    """Distance of the flow `a` from the reference `b`, in [0, inf]; 0 for a network and itself.

    On the vectors of values: "l2" ||a - b||_2, "linf" max |a - b|, "relative" ||a - b||_2 / ||b||_2. Flows that hold
    matrices are compared entry by entry: "l2" and "linf" over all entries, "relative" is the mean over pairs of
    ||R - R0||_F / ||R0||_F. A relative distance from 0 is 0 for 0, otherwise infinite. Non-finite values give NaN.

    Raises: ValueError for flows measured differently (kind, layers, reduction or statistic, site) or of other length.
    """
    check_known(Norm, norm=norm)
    if _measured(a) != _measured(b):
        raise ValueError(
            f"flows must be measured in the same way to be compared, got {_measured(a)} and {_measured(b)}"
        )
    sizes = [[tuple(x.shape) for x in _parts(flow)] for flow in (a, b)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"flows must have the same shapes to be compared, got {sizes[0]} and {sizes[1]}")
    parts = list(zip(_parts(a), _parts(b), strict=True))
    apart = [x - y for x, y in parts]
    if not all(bool(torch.isfinite(t).all()) for pair in parts for t in pair):
        return math.nan
    if norm == "l2":
        return math.hypot(*(float(torch.linalg.vector_norm(d)) for d in apart))
    if norm == "linf":
        return max((float(d.abs().max()) for d in apart if d.numel()), default=0.0)
    ratios = []
    for d, (_, reference) in zip(apart, parts, strict=True):
        far, size = float(torch.linalg.vector_norm(d)), float(torch.linalg.vector_norm(reference))
        ratios.append(far / size if size else math.inf if far else 0.0)
    return sum(ratios) / len(ratios)


def _parts(flow: Flow) -> Sequence[Tensor]:
    """The matrices of each pair, or the vector of values."""
    if isinstance(flow, InformationFlow) and flow.matrices:
        return flow.matrices
    values = flow.values if isinstance(flow, (InformationFlow, GradientFlow, GradientAverage)) else flow
    return [exact(values if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float64)).cpu()]


def _measured(flow: Flow) -> tuple[object, ...]:
    if isinstance(flow, InformationFlow):
        return "information flow", flow.reduction, flow.site, flow.pairs
    if isinstance(flow, GradientFlow):
        return "gradient flow", flow.statistic, flow.names
    if isinstance(flow, GradientAverage):
        return "average of gradient norms", flow.decay, flow.names
    return ("values",)
