"""What the two recipes of robust pruning at initialisation share."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Literal

from sparsight.measure.criticality.activations import NAMED, Name
from sparsight.measure.criticality.phase import CriticalStart, critical_sigma_w
from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.rescale import By, Fresh, FromStart, Rescale, Rescaled, ScoredAt
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes._at_init import Training, at_init, check_asked
from sparsight.runs.recipe import Recipe

Start = Literal["auto", "own"] | Name
"""Whose edge of chaos the weights are drawn at: that of the network, or of a named activation; or its own weights."""


def critical(
    name: str,
    *,
    density: float,
    activation: Start,
    sigma_b: float,
    rescale: By | None,
    score_batches: int,
    batch_norm: Literal["train", "eval"],
    min_keep: int,
    shuffle: bool,
    reinitialise: bool,
    training: Training,
    control: bool,
    seed: int,
) -> Recipe:
    """Draw at the edge of chaos, prune by |w dL/dw|, rescale where asked, train.

    Weights that are drawn anew for the ablation, at the edge of chaos or as the modules themselves do, do not depend on
    the mask: "neuron" is right for them, and taken in the place of "data".
    """
    check_asked(density, score_batches)
    _check_start(activation, sigma_b)
    given = NAMED.get(activation)
    start = None if activation == "own" else CriticalStart(given, sigma_b, derive(seed, "start"))
    plain = at_init(
        name,
        ScoredAt(SNIP(batch_norm=batch_norm), start),
        (Global(density, min_keep=min_keep),),
        density=density,
        score_batches=score_batches,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=training,
        control=control,
        seed=seed,
    )
    if reinitialise and start is not None:
        start = replace(start, seed=derive(seed, "reinitialise"))
    if rescale is None:
        return plain if start is None else replace(plain, restart=FromStart(start))
    by: By = "neuron" if reinitialise and rescale == "data" else rescale
    drawn = Fresh(derive(seed, "reinitialise")) if reinitialise and start is None else start
    trick = Rescale(by, activation=given, sigma_b=sigma_b, start=drawn)
    if by != "data":
        return replace(plain, restart=trick)
    assert not callable(plain.levels)  # no search: `at_init` plans one level, here of one round
    ((allocator,),) = plain.levels
    return replace(plain, levels=((Rescaled(allocator, trick),),), restart=trick)


def _check_start(activation: str, sigma_b: float) -> None:
    """ValueError for an activation that is not known, or has no edge of chaos at sigma_b; one for a wrong sigma_b."""
    if not 0 <= sigma_b < math.inf:
        raise ValueError(f"sigma_b must be a finite number >= 0: got {sigma_b!r}")
    if activation in NAMED:
        with warnings.catch_warnings():  # an unstable edge is warned of where weights are drawn at it
            warnings.simplefilter("ignore")
            critical_sigma_w(NAMED[activation], sigma_b)
    elif activation not in ("auto", "own"):
        raise ValueError(f"activation is {activation!r}: allowed is 'auto', 'own' or one of {', '.join(NAMED)}")
