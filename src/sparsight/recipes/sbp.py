"""Sensitivity-based pruning of a network at the edge of chaos."""

from __future__ import annotations

from typing import Literal

from sparsight.recipes._at_init import Training
from sparsight.recipes._critical import Start, critical
from sparsight.runs.recipe import Recipe


def sbp(
    *,
    density: float = 0.05,
    activation: Start = "auto",
    sigma_b: float = 0.0,
    score_batches: int = 1,
    batch_norm: Literal["train", "eval"] = "train",
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
    """Draw the weights at the edge of chaos, prune them by |w dL/dw|, and train what is left.

    Source: Hayou, Ton, Doucet and Teh, "Robust Pruning at Initialization", ICLR 2021.

    Args:
        density: Share of the prunable weights that are kept.
        activation: Whose edge of chaos it is: that of the network's forward (auto), or of a named activation; own
            keeps the network's own initial weights, which is SNIP.
        sigma_b: Standard deviation of the initial biases.
        score_batches: Training batches, without augmentation, that the scores are computed on.
        batch_norm: Batch norms take the statistics of each batch (train) or the stored ones (eval) while scoring.
        min_keep: Weights that every tensor keeps at least; 0 lets layers die.
        shuffle: Ablation: keep as many weights of each layer, but other ones, drawn at random.
        reinitialise: Ablation: train from fresh weights of the same distribution instead of those that were scored.
        epochs: Epochs of training.
        batch_size: Samples of a training step.
        lr: Learning rate at the start; it falls to 0 along a cosine.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on all parameters.
        clip: Largest norm of the masked gradient.
        control: Train the dense network, from its own initial weights, for as many epochs beside it.
        seed: Seed of everything random.
    """
    return critical(
        "sbp",
        density=density,
        activation=activation,
        sigma_b=sigma_b,
        rescale=None,
        score_batches=score_batches,
        batch_norm=batch_norm,
        min_keep=min_keep,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
