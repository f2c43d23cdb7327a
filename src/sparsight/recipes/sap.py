"""Sparsity-informed adaptive pruning: the PQ index decides how many weights each level removes."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import _options as o
from sparsight.recipes._training import Iterative, sgd, target_of
from sparsight.runs.recipe import Recipe


def sap(
    *,
    p: o.P = 1.0,
    q: o.Q = 2.0,
    eta: Annotated[float, Doc("Share of the p-mass that pruning may lose; larger prunes more.")] = 0.0,
    gamma: Annotated[float, Doc("Factor on the number of weights that the bound removes; larger prunes more.")] = 1.0,
    beta: Annotated[float, Doc("Remove at most this share of the remaining weights at each level.")] = 0.9,
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
    """Prune as many weights at each level as the PQ index finds redundant, restart, and train again.

    Source: Diao et al., "Pruning Deep Neural Networks from a Sparsity Perspective", ICLR 2023, algorithm 1. Trains as
    in the paper (Nesterov SGD, cosine, gradients clipped after masking) for fewer epochs.
    """
    plan = sgd(epochs, batch_size, lr, momentum, weight_decay, clip)
    how = Iterative(
        plan, until, target_density, levels, within, rewind_epoch, carry_on, middle_epochs, stop, evaluate_every
    )
    aim = target_of(until, target_density)
    prune = SAP(p=p, q=q, eta=eta, gamma=gamma, beta=beta, scope=scope, min_keep=min_keep, target_density=aim)
    return how.recipe("sap", Magnitude(), prune, (p, q), control, seed)
