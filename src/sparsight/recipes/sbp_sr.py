"""Sensitivity-based pruning with what keeps signals alive: rescaling of plain networks, Stable ResNets."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.rescale import By
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes import _options as o
from sparsight.recipes._at_init import AtInit, Control, Epochs
from sparsight.recipes._critical import critical
from sparsight.recipes._training import sgd
from sparsight.runs.recipe import Recipe


def sbp_sr(
    *,
    density: o.Density = 0.05,
    activation: o.Start = "auto",
    sigma_b: o.SigmaB = 0.0,
    rescale: Annotated[
        By,
        Doc(
            "One factor a layer, measured on the scored batches (data); or from the kept weights alone, a factor per "
            "neuron, layer or offset of a kernel, which is right for masks that do not depend on the data."
        ),
    ] = "data",
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
    """Draw at the edge of chaos, prune by |w dL/dw|, rescale what is left so that signals survive, and train it.

    For a residual network choose a Stable ResNet as the model (stable-resnet20, say): that is SBP-SR as published.
    Rescaling is for plain networks; residual and normalised ones are left as they are, with a warning.

    Source: Hayou, Ton, Doucet and Teh, "Robust Pruning at Initialization", ICLR 2021.
    """
    how = AtInit(
        density=density, score_batches=score_batches, shuffle=shuffle, reinitialise=reinitialise,
        plan=sgd(epochs, batch_size, lr, momentum, weight_decay, clip), control=control, seed=seed,
    )  # fmt: skip
    score, prune = SNIP(batch_norm=batch_norm), Global(density, min_keep=min_keep)
    return critical("sbp-sr", how, score, prune, activation, sigma_b, rescale)
