"""The density at which pruning empties a layer: predicted from second moments, bounded by theory, or from scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch

from sparsight.measure.criticality.meanfield import root
from sparsight.numerics.checks import check_known
from sparsight.types import Scores

Tail = Literal["product", "normal"]

_S = torch.linspace(0, 40, 1601, dtype=torch.float64)


def tail_product(t: float) -> float:
    """P(|X Y| > t) of two standard normals: (2/pi) times the integral of K0 from t on.

    = (2/pi) int_0^inf exp(-t cosh s) / cosh s ds, by the trapezoid rule, which converges exponentially here.
    """
    terms = torch.exp(-t * torch.cosh(_S)) / torch.cosh(_S)
    return float((terms.sum() - (terms[0] + terms[-1]) / 2) * (_S[1] - _S[0]) * 2 / math.pi)


def critical_density(
    scales: Mapping[str, float], counts: Mapping[str, int], *, tail: Tail = "product"
) -> tuple[float, str]:
    """(density, layer) at which global pruning is expected to empty the first layer.

    Scores of layer l are modelled as scale_l |X Y| ("product": |W dL/dW|, scale_l = sqrt(m^l)) or scale_l |X|
    ("normal": |W|, scale_l = sigma_w / sqrt(fan_in)), X and Y standard normal. Layer l dies at the threshold t_l =
    scale_l u_l with M_l P(|XY| > u_l) = 1 (a layer of one weight at the median of its score); the first is at t =
    min t_l, and the density there is sum_l M_l P(|XY| > t / scale_l) / sum_l M_l. A layer of scale 0 dies at once.
    Measured densities differ by 10 to 25 % of the sparsity (deviation: not in the paper). Raises: ValueError without
    layers, and for a count < 1, a scale that is negative or not finite, or an unknown tail.
    """
    if not scales or any(counts[name] < 1 for name in scales):
        raise ValueError(f"cannot predict collapse: layers must have at least 1 weight each, got {dict(counts)}")
    wrong = next((name for name, scale in scales.items() if not (scale >= 0 and math.isfinite(scale))), None)
    if wrong is not None:
        raise ValueError(f"the scale of {wrong!r} must be finite and at least 0, got {scales[wrong]!r}")
    check_known(Tail, tail=tail)
    survival = tail_product if tail == "product" else lambda t: math.erfc(t / math.sqrt(2))
    u = {n: root(lambda t, n=n: max(n, 2) * survival(t) - 1, 0.0, 200.0) for n in set(counts.values())}
    ends = {name: scales[name] * u[counts[name]] for name in scales}
    first = min(ends, key=ends.__getitem__)
    total = sum(counts[name] for name in scales)
    left = math.fsum(counts[n] * survival(ends[first] / scales[n]) for n in scales if scales[n] > 0)
    return min(left / total, 1.0), first


def collapse_density(scores: Scores) -> tuple[float, str]:
    """(density, tensor): the largest density at which global pruning by these scores empties a tensor, and which.

    The tensor with the smallest maximum empties first. Exact except for ties. Raises: ValueError without tensors,
    for an empty one, or for NaN.
    """
    if not scores or any(not score.numel() for score in scores.values()):
        raise ValueError(f"scores must hold at least one tensor, and no empty ones, got {len(scores)} tensors")
    wrong = next((name for name, score in scores.items() if bool(score.isnan().any())), None)
    if wrong is not None:
        raise ValueError(f"the scores of {wrong!r} contain NaN, which cannot be ranked")
    best = {name: float(score.max()) for name, score in scores.items()}
    first = min(best, key=best.__getitem__)
    above = sum(int((score > best[first]).sum()) for score in scores.values())
    return above / sum(score.numel() for score in scores.values()), first


def theorem1_bound(chi: float, depth: int, width: int) -> float:
    """Theorem 1's upper bound on the expected critical sparsity of depth L and width N, in (0, 1]; 1 says nothing.

    (1 + log(kappa L N^2) / kappa) / L with kappa = |log chi| / 8, without its O(1 / (kappa^2 sqrt(L N^2))) term. At the
    edge of chaos kappa = 0 and the bound is void. The constant 8 is as recalled from the paper. Raises: ValueError for
    chi <= 0, depth or width < 1, or infinite values. Source: Hayou et al., ICLR 2021, theorem 1.
    """
    if not (0 < chi < math.inf and 1 <= depth < math.inf and 1 <= width < math.inf):
        raise ValueError(f"chi must be > 0, depth and width at least 1, all finite, got {chi!r}, {depth!r}, {width!r}")
    kappa, size = abs(math.log(chi)) / 8, depth * width * width
    if kappa * size <= math.e:
        return 1.0
    return min((1 + math.log(kappa * size) / kappa) / depth, 1.0)
