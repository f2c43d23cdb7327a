"""Magnitude pruning of the untrained network: a baseline."""

from __future__ import annotations

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes._at_init import Training, at_init
from sparsight.runs.recipe import Recipe


def magnitude_at_init(
    *,
    density: float = 0.05,
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
    """Prune the untrained network by |w|, over all layers together, and train what is left.

    Source: the baseline of Frankle et al., "Pruning Neural Networks at Initialization: Why are we missing the mark?",
    ICLR 2021.

    Args:
        density: Share of the prunable weights that are kept.
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
    return at_init(
        "magnitude_at_init",
        Magnitude(),
        (Global(density, min_keep=min_keep),),
        density=density,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
