"""Lottery-ticket pruning: a fixed rate of the remaining weights at each level, then back to the start."""

from __future__ import annotations

from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import _options as o
from sparsight.recipes._training import Iterative, sgd
from sparsight.runs.recipe import Recipe


def lottery(
    *,
    rate: o.Rate = 0.2,
    scope: o.Scope = "global",
    min_keep: o.MinKeep = 1,
    until: o.Until = "density",
    target_density: o.TargetDensity = None,
    levels: o.Levels = None,
    epochs: o.Epochs = 3,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    momentum: o.Momentum = 0.9,
    weight_decay: o.WeightDecay = 5e-4,
    clip: o.Clip = 1.0,
    rewind_epoch: o.RewindEpoch = 0,
    middle_epochs: o.MiddleEpochs = None,
    carry_on: o.CarryOn = False,
    within: o.Within = None,
    stop: o.Stop = None,
    evaluate_every: o.EvaluateEvery = None,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Remove a fixed rate of the smallest remaining weights at each level, rewind, and train again.

    Source: Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019; as the baseline of Diao et al., ICLR
    2023, with buffers rewound too and counts exact.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = Iterative(
        plan, until, target_density, levels, within, rewind_epoch, carry_on, middle_epochs, stop, evaluate_every
    )
    prune = Shrink(rate=rate, scope=scope, min_keep=min_keep, target_density=target_density or None)
    return how.recipe("lottery", Magnitude(), prune, (0.5, 1.0), control, seed)
