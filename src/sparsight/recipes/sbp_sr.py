"""Sensitivity-based pruning that keeps signals alive: by rescaling plain networks, or with Stable ResNets."""

from __future__ import annotations

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
    rescale: By = "data",
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
    """Draw the weights at the edge of chaos, prune by |w dL/dw|, rescale the kept weights, and train.

    Rescaling is for plain networks; it skips residual and normalised ones, with a warning. For a residual network
    choose a Stable ResNet, such as stable-resnet20: that is SBP-SR as published.

    Source: Hayou, Ton, Doucet and Teh, "Robust Pruning at Initialization", ICLR 2021.

    Args:
        rescale: One factor per layer, measured on the scored batches (data); or from the kept weights alone, a factor
            per neuron, layer or kernel offset, which is right for masks that do not depend on the data.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = AtInit(density, score_batches, shuffle, reinitialise, plan, control, seed)
    score, prune = SNIP(batch_norm=batch_norm), Global(density, min_keep=min_keep)
    return critical("sbp-sr", how, score, prune, activation, sigma_b, rescale)
