"""SynFlow: prune the untrained network by what flows through it, in many rounds and without data."""

from __future__ import annotations

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.schedules import Geometric
from sparsight.pruning.schedules import rounds as at_rounds
from sparsight.pruning.score.synflow import SynFlow
from sparsight.recipes._at_init import Training, at_init
from sparsight.runs.recipe import Recipe


def synflow(
    *,
    density: float = 0.05,
    rounds: int = 100,
    min_keep: int = 1,
    shuffle: bool = False,
    reinitialise: bool = False,
    epochs: int = 10,
    batch_size: int = 250,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float = 1.0,
    control: bool = True,
    seed: int = 0,
) -> Recipe:
    """Prune the untrained network by its synaptic flow in many rounds, and train what is left.

    One training batch is drawn for its shape; its values are not looked at. Source: Tanaka et al., "Pruning neural
    networks without any data by iteratively conserving synaptic flow", NeurIPS 2020, algorithm 1.

    Args:
        density: Share of the prunable weights that are kept.
        rounds: Rounds on a geometric schedule, scored anew before each.
        min_keep: Weights that every tensor keeps at least; 0 lets layers die.
        shuffle: Ablation: keep as many weights of each layer, but other ones, drawn at random.
        reinitialise: Ablation: train from fresh weights instead of those that were scored.
        epochs: Epochs of training.
        batch_size: Samples of a training step.
        lr: Learning rate at the start; it falls to 0 along a cosine.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on all parameters.
        clip: Largest norm of the masked gradient.
        control: Train the dense network for as many epochs beside it.
        seed: Seed of everything random.
    """
    level = tuple(Global(at, min_keep=min_keep) for at in at_rounds(Geometric(density), rounds))
    return at_init(
        "synflow",
        SynFlow(),
        level,
        density=density,
        score_batches=1,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
