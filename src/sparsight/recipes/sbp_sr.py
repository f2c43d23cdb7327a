"""Sensitivity-based pruning with what keeps signals alive: rescaling of plain networks, Stable ResNets."""

from __future__ import annotations

from typing import Literal

from sparsight.pruning.rescale import By
from sparsight.recipes._at_init import Training
from sparsight.recipes._critical import Start, critical
from sparsight.runs.recipe import Recipe


def sbp_sr(
    *,
    density: float = 0.05,
    activation: Start = "auto",
    sigma_b: float = 0.0,
    rescale: By = "data",
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
    """Draw at the edge of chaos, prune by |w dL/dw|, rescale what is left so that signals survive, and train it.

    For a residual network choose a Stable ResNet as the model (stable-resnet20, say): that is SBP-SR as published.
    Rescaling is for plain networks; residual and normalised ones are left as they are, with a warning.

    Source: Hayou, Ton, Doucet and Teh, "Robust Pruning at Initialization", ICLR 2021.

    Args:
        density: Share of the prunable weights that are kept.
        activation: Whose edge of chaos it is: that of the network's forward (auto), or of a named activation; own
            keeps the network's own initial weights, which is SNIP.
        sigma_b: Standard deviation of the initial biases.
        rescale: How: one factor a layer, measured on the scored batches (data); or from the kept weights alone, a
            factor a neuron, a layer, or an offset of a kernel: right for masks that do not depend on the data.
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
        "sbp_sr",
        density=density,
        activation=activation,
        sigma_b=sigma_b,
        rescale=rescale,
        score_batches=score_batches,
        batch_norm=batch_norm,
        min_keep=min_keep,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
