"""One-shot pruning: every level is pruned by the weights of the trained dense network, then trained from the start."""

from __future__ import annotations

from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import _options as o
from sparsight.recipes._training import Iterative, sgd
from sparsight.runs.recipe import Recipe, Scoring


def oneshot(
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
    within: o.Within = None,
    stop: o.Stop = None,
    evaluate_every: o.EvaluateEvery = None,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Prune every level by the trained dense weights: level t keeps (1 - rate)^t of them, rewinds, and trains.

    Each level is one-shot magnitude pruning to its own density. Source: the one-shot baseline of Diao et al., ICLR
    2023, with a single dense network.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = Iterative(plan, until, target_density, levels, within, rewind_epoch, stop=stop, evaluate_every=evaluate_every)
    prune = Shrink(rate=rate, scope=scope, min_keep=min_keep, target_density=target_density or None)
    return how.recipe("oneshot", Scoring(Magnitude(), of="dense"), prune, (0.5, 1.0), control, seed)
