"""Shared by recipes that prune an untrained network: a single pruned level, and two sanity checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from sparsight.numerics.checks import check_whole
from sparsight.numerics.seeds import derive
from sparsight.pruning.allocate.shuffled import Shuffled
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.restart import rewind
from sparsight.runs.choose import AtDensity
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe, Scoring
from sparsight.train.plan import TrainingPlan
from sparsight.types import Allocator, Restart, Scorer

Epochs = Annotated[int, Doc("Epochs of training.")]
Control = Annotated[bool, Doc("Also train the dense network for as many epochs.")]


@dataclass(frozen=True)
class AtInit:
    """Prune the initial network to `density` and train it once; the dense control shows what pruning cost.

    `shuffle` permutes the final mask within each tensor; `reinitialise` draws new weights with each module's
    `reset_parameters` before training: the sanity checks of Frankle et al., ICLR 2021.

    Raises: ValueError for a density outside (0, 1], or `score_batches` below 1 (None: no batches needed).
    """

    density: float
    score_batches: int | None
    shuffle: bool
    reinitialise: bool
    plan: TrainingPlan
    control: bool
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"density must be in (0, 1], got {self.density!r}")
        if self.score_batches is not None:
            check_whole(1, score_batches=self.score_batches)

    def shuffled(self, rounds: tuple[Allocator, ...]) -> tuple[Allocator, ...]:
        """The rounds, with the last one shuffled if `shuffle` is on."""
        if not self.shuffle:
            return rounds
        return (*rounds[:-1], Shuffled(rounds[-1], seed=derive(self.seed, "shuffle")))

    def recipe(self, name: str, score: Scorer, rounds: tuple[Allocator, ...], restart: Restart | None = None) -> Recipe:
        """The recipe that prunes in these rounds; without `restart` it trains from the scored weights."""
        drawn = Reinitialise(seed=derive(self.seed, "reinitialise")) if self.reinitialise else rewind
        return Recipe(
            name=name,
            score=Scoring(score, batches=self.score_batches or 0),
            levels=(Level(self.shuffled(rounds), restart or drawn, self.plan),),
            choose=AtDensity(self.density),
            control=self.control,
            seed=self.seed,
        )
