"""SynFlow: prune the untrained network by its synaptic flow, in many rounds and without data."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.schedules import Geometric
from sparsight.pruning.schedules import rounds as at_rounds
from sparsight.pruning.score.synflow import SynFlow
from sparsight.recipes import _options as o
from sparsight.recipes._at_init import AtInit, Control, Epochs
from sparsight.recipes._training import sgd
from sparsight.runs.recipe import Recipe


def synflow(
    *,
    density: o.Density = 0.05,
    rounds: Annotated[int, Doc("Rounds on a geometric schedule, each scored anew.")] = 100,
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
    """Prune the untrained network by its synaptic flow in many rounds, and train it.

    Uses only the shape of a training batch, not its values. Source: Tanaka et al., "Pruning neural
    networks without any data by iteratively conserving synaptic flow", NeurIPS 2020, algorithm 1.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = AtInit(density, 1, shuffle, reinitialise, plan, control, seed)
    level = tuple(Global(at, min_keep=min_keep) for at in at_rounds(Geometric(density), rounds))
    return how.recipe("synflow", SynFlow(), level)
