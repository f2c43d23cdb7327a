"""The conditioning of a network for pruning at initialisation, and which layer would die first."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sparsight.measure.criticality.collapse_density import collapse_density, critical_density, theorem1_bound
from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import all_kept
from sparsight.numerics.exact import exact
from sparsight.pruning.score.gradient import BatchNorm
from sparsight.pruning.score.snip import SNIP
from sparsight.types import Batch, Masks


class IllConditioned(UserWarning):
    """Pruning this network by |w dL/dw| would empty a layer early."""


@dataclass(frozen=True)
class Conditioning:
    """The criterion's second moments m^l per layer, and what follows from them.

    `spread` = max m^l / min m^l. `chi` is the estimate from the slope of log m^l over depth (NaN below 3 layers).
    `weakest` is predicted to die first, at `critical_density`; for these scores it is `first_empty`, at
    `measured_density`. `bound` is the least density that theorem 1 allows at that chi; 0 means no bound.
    """

    moments: Mapping[str, float]
    spread: float
    well_conditioned: bool
    chi: float
    weakest: str
    critical_density: float
    first_empty: str
    measured_density: float
    bound: float


def conditioning(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    masks: Masks | None = None,
    loss: Loss = task_loss,
    batch_norm: BatchNorm = "train",
    limit: float = 1000.0,
    warn: bool = True,
) -> Conditioning:
    """m^l = mean((W dL/dW)^2) over the alive weights of each layer, with the mean loss L.

    Well-conditioned if max m^l / min m^l <= `limit`. The paper asks for A <= m^l / m^L <= B at all depths; `limit`
    replaces that for a single network. Does not change the model.

    Warns: `IllConditioned`, with the layer and the density at which it would die. Raises: ValueError for a limit below
    1, otherwise as `SNIP`. Source: Hayou et al., ICLR 2021, definition 1; the prediction is `critical_density`.
    """
    if not limit >= 1:
        raise ValueError(f"limit must be at least 1, got {limit!r}")
    masks = all_kept(model) if masks is None else masks
    scores = SNIP(loss=loss, batch_norm=batch_norm)(model, masks, batches)
    alive = {name: exact(scores[name][mask]) for name, mask in masks.items() if bool(mask.any())}
    if not alive:
        raise ValueError("conditioning needs at least one alive weight")
    counts = {name: score.numel() for name, score in alive.items()}
    moments = {name: float((score**2).mean()) for name, score in alive.items()}
    least, most = min(moments.values()), max(moments.values())
    spread = most / least if least > 0 else math.inf if most > 0 else 1.0
    density, weakest = critical_density({name: math.sqrt(m) for name, m in moments.items()}, counts)
    measured, first = collapse_density(alive)
    chi = _chi(list(moments.values()))
    width = max(1, round(math.sqrt(statistics.median(counts.values()))))
    bound = 1 - theorem1_bound(chi, len(moments), width) if 0 < chi < math.inf else 0.0
    found = Conditioning(moments, spread, spread <= limit, chi, weakest, density, first, measured, bound)
    if warn and not found.well_conditioned:
        warnings.warn(
            f"ill-conditioned for pruning at initialisation: m^l differs by a factor of {spread:.3g} between layers; "
            f"{weakest!r} is expected to lose its last weight at density {density:.3g} (with these scores "
            f"{first!r} does at {measured:.3g})",
            IllConditioned,
            stacklevel=2,
        )
    return found


def _chi(moments: list[float]) -> float:
    """exp(-slope) of log m^l over the layers between the first and the last: m^l / m^L = chi^(L - l)."""
    inner = moments[1:-1] if len(moments) > 4 else moments
    if len(inner) < 3 or min(inner) <= 0:
        return math.nan
    slope, _ = statistics.linear_regression(range(len(inner)), [math.log(m) for m in inner])
    return math.exp(-slope)
