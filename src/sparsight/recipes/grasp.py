"""GraSP: prune the untrained network so that gradients go on flowing."""

from __future__ import annotations

from typing import Literal

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.grasp import GraSP
from sparsight.recipes._at_init import Training, at_init, check_asked
from sparsight.runs.recipe import Recipe


def grasp(
    *,
    density: float = 0.05,
    temperature: float = 200.0,
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
    """Prune the untrained network by w (Hg), signed, and train what is left.

    Source: Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020;
    temperature and batch statistics as in the published code.

    Args:
        density: Share of the prunable weights that are kept.
        temperature: The outputs are divided by it while scoring.
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
    return at_init(
        "grasp",
        GraSP(temperature=temperature, batch_norm=batch_norm),
        (Global(density, min_keep=min_keep),),
        density=density,
        score_batches=score_batches,
        shuffle=shuffle,
        reinitialise=reinitialise,
        training=Training(epochs, batch_size, lr, momentum, weight_decay, clip),
        control=control,
        seed=seed,
    )
