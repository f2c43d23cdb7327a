"""Random pruning of the untrained network: a baseline."""

from __future__ import annotations

from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.random import Random
from sparsight.recipes import _options as o
from sparsight.recipes._at_init import AtInit, Control, Epochs
from sparsight.recipes._training import sgd
from sparsight.runs.recipe import Recipe


def random_at_init(
    *,
    density: o.Density = 0.05,
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
    """Prune the untrained network at random, over all layers together, and train it.

    Every layer keeps about the same share. Source: the baseline of Frankle et al., "Pruning Neural Networks at
    Initialization: Why are we missing the mark?", ICLR 2021.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = AtInit(density, None, shuffle, reinitialise, plan, control, seed)
    return how.recipe("random-at-init", Random(seed=derive(seed, "prune")), (Global(density, min_keep=min_keep),))
