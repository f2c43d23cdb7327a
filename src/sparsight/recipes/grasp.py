"""GraSP: prune the untrained network and preserve its gradient flow."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.grasp import GraSP
from sparsight.recipes import _options as o
from sparsight.recipes._at_init import AtInit, Control, Epochs
from sparsight.recipes._training import sgd
from sparsight.runs.recipe import Recipe


def grasp(
    *,
    density: o.Density = 0.05,
    temperature: Annotated[float, Doc("Divide the outputs by this while scoring.")] = 200.0,
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
    """Prune the untrained network by w (Hg), signed, and train it.

    Source: Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020;
    temperature and batch statistics as in the published code.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = AtInit(density, score_batches, shuffle, reinitialise, plan, control, seed)
    score = GraSP(temperature=temperature, batch_norm=batch_norm)
    return how.recipe("grasp", score, (Global(density, min_keep=min_keep),))
