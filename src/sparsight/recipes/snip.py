"""SNIP, iterative SNIP and FORCE: prune the untrained network by the sensitivity of its loss."""

from __future__ import annotations

from typing import Literal

from sparsight.pruning.allocate.iterative import FORCE, IterativeSNIP
from sparsight.pruning.score.snip import SNIP
from sparsight.recipes._at_init import Training, at_init, check_asked
from sparsight.runs.recipe import Recipe


def snip(
    *,
    density: float = 0.05,
    rounds: int = 1,
    recover: bool = False,
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
    """Prune the untrained network by |w dL/dw|, and train what is left.

    Source: Lee, Ajanthan and Torr, "SNIP", ICLR 2019; in several rounds, with and without recovery, de Jorge et al.,
    "Progressive Skeletonization", ICLR 2021.

    Args:
        density: Share of the prunable weights that are kept.
        rounds: Rounds on a geometric schedule, scored anew before each; 1 is SNIP, 60 iterative SNIP as published.
        recover: Let pruned weights return in later rounds: FORCE.
        score_batches: Training batches, without augmentation, that the scores are computed on.
        batch_norm: Batch norms take the statistics of each batch (train) or the stored ones (eval) while scoring.
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
    check_asked(density, score_batches)
    level = (FORCE if recover else IterativeSNIP)(density, rounds, min_keep=min_keep)
    return at_init(
        "snip",
        SNIP(batch_norm=batch_norm),
        level,
        density=density,
        score_batches=score_batches,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
