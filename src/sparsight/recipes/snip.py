"""SNIP, iterative SNIP and FORCE: prune the untrained network by the sensitivity of its loss."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from sparsight.pruning.allocate.fixed import FORCE, IterativeSNIP
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes import _options as o
from sparsight.recipes._at_init import AtInit, Control, Epochs
from sparsight.recipes._training import sgd
from sparsight.runs.recipe import Recipe


def snip(
    *,
    density: o.Density = 0.05,
    rounds: Annotated[int, Doc("Rounds on a geometric schedule, each scored anew; 1 is SNIP, 60 iterative SNIP.")] = 1,
    recover: Annotated[bool, Doc("Let pruned weights return in later rounds, as in FORCE.")] = False,
    score_batches: o.ScoreBatches = 1,
    batch_norm: o.BatchNorm = "train",
    min_keep: o.LayerFloor = 1,
    shuffle: o.Shuffle = False,
    reinitialise: o.Reinitialise = False,
    epochs: Epochs = 10,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    momentum: o.Momentum = 0.9,
    weight_decay: o.WeightDecay = 5e-4,
    clip: o.Clip = 1.0,
    control: Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Prune the untrained network by |w dL/dw|, and train it.

    Source: Lee, Ajanthan and Torr, "SNIP", ICLR 2019; for several rounds, with and without recovery, de Jorge et al.,
    "Progressive Skeletonization", ICLR 2021.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = AtInit(density, score_batches, shuffle, reinitialise, plan, control, seed)
    level = (FORCE if recover else IterativeSNIP)(density, rounds, min_keep=min_keep)
    return how.recipe("snip", SNIP(batch_norm=batch_norm), level)
