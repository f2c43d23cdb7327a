"""What the recipes that prune an untrained network have in common: one pruned level, and two sanity checks."""

from __future__ import annotations

from dataclasses import dataclass

from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.restart import Reinitialise, rewind
from sparsight.runs.choose import AtDensity
from sparsight.runs.recipe import Level, Recipe
from sparsight.train.optimizers import NesterovSGD
from sparsight.types import Scorer


@dataclass(frozen=True)
class Training:
    """How the pruned network, and the dense one beside it, are trained."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    clip: float


def check_asked(density: float, score_batches: int) -> None:
    """ValueError for what would fail only once the run has begun."""
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1]: got {density!r}")
    if score_batches < 1:
        raise ValueError(
            f"score_batches must be at least 1, for the scores are computed on them: got {score_batches!r}"
        )


def at_init(
    name: str,
    score: Scorer,
    rounds: Level,
    *,
    density: float,
    score_batches: int = 0,
    shuffle: bool,
    reinitialise: bool,
    training: Training,
    control: bool,
    seed: int,
) -> Recipe:
    """Prune the initial network to `density` in `rounds`, train it once; the dense control says what pruning cost.

    `shuffle` permutes the final mask within each tensor, `reinitialise` draws the weights to be trained anew, by each
    module's `reset_parameters`: the sanity checks of Frankle et al., ICLR 2021.
    """
    if shuffle:
        rounds = (*rounds[:-1], Shuffled(rounds[-1], seed=derive(seed, "shuffle")))
    return Recipe(
        name=name,
        score=score,
        levels=(rounds,),
        score_batches=score_batches,
        restart=Reinitialise(seed=derive(seed, "reinitialise")) if reinitialise else rewind,
        optimizer=NesterovSGD(lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay),
        epochs=training.epochs,
        batch_size=training.batch_size,
        clip=training.clip,
        choose=AtDensity(density),
        control=control,
        seed=seed,
    )
