"""Shared by the two recipes of robust pruning at initialisation."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

from sparsight.measure.criticality.activations import NAMED
from sparsight.measure.criticality.phase import CriticalStart, critical_sigma_w
from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.rescale import By, Fresh, FromStart, Rescale, Rescaled, ScoredAt
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes._at_init import AtInit
from sparsight.runs.recipe import Recipe


def critical(
    name: str, how: AtInit, score: SNIP, prune: Global, activation: str, sigma_b: float, rescale: By | None = None
) -> Recipe:
    """Draw weights at the edge of chaos, prune by |w dL/dw|, rescale if asked, and train.

    With `reinitialise`, new weights do not depend on the mask: rescaling by "neuron" is then right, and replaces
    "data".
    """
    _check_start(activation, sigma_b)
    given = NAMED.get(activation)
    start = None if activation == "own" else CriticalStart(given, sigma_b, derive(how.seed, "start"))
    scored = ScoredAt(score, start)
    if how.reinitialise and start is not None:
        start = replace(start, seed=derive(how.seed, "reinitialise"))
    if rescale is None:
        return how.recipe(name, scored, (prune,), None if start is None else FromStart(start))
    by: By = "neuron" if how.reinitialise and rescale == "data" else rescale
    drawn = Fresh(derive(how.seed, "reinitialise")) if how.reinitialise and start is None else start
    trick = Rescale(by, activation=given, sigma_b=sigma_b, start=drawn)
    if by != "data":
        return how.recipe(name, scored, (prune,), trick)
    (final,) = how.shuffled((prune,))  # factors are measured for the masks that are trained
    return replace(how, shuffle=False).recipe(name, scored, (Rescaled(final, trick),), trick)


def _check_start(activation: str, sigma_b: float) -> None:
    """Raise ValueError for a bad sigma_b, an unknown activation, or one without an edge of chaos at sigma_b."""
    if not 0 <= sigma_b < math.inf:
        raise ValueError(f"sigma_b must be finite and at least 0, got {sigma_b!r}")
    if activation in NAMED:
        with warnings.catch_warnings():  # drawing the weights warns of an unstable edge
            warnings.simplefilter("ignore")
            critical_sigma_w(NAMED[activation], sigma_b)
    elif activation not in ("auto", "own"):
        raise ValueError(f"activation must be 'auto', 'own' or one of {', '.join(NAMED)}, got {activation!r}")
