"""Schedules of pruning during training: gradually to a density, or before given epochs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sparsight.model.masks import counts
from sparsight.numerics.checks import MOST_LISTED, check_fraction, check_whole
from sparsight.pruning.allocate.counts import share
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.schedules import Cubic, rounds
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.types import Allocator, Batch, Masks, Scorer, check_allocator


@dataclass(frozen=True)
class Place:
    """A training's position before a step. None: unknown."""

    step: int  # steps done
    steps: int | None  # total steps
    epoch: int | None  # epochs done, if an epoch begins here
    epochs: int | None  # total epochs


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """When to prune, and how. Stateless: `due` depends only on the position and the masks.

    `score` ranks the weights, with `batches` if it needs data; `include` and `exclude` are those of `dense`. Your own
    schedule inherits from it and defines `due`.
    """

    score: Scorer = field(default_factory=Magnitude)
    batches: Sequence[Batch] = ()
    include: str | Iterable[str] = ()
    exclude: str | Iterable[str] = ()

    @abstractmethod
    def due(self, place: Place, since: int, masks: Masks) -> Allocator | None:
        """The allocators to apply before the step at `place`; `since` is the step of the last call, -1 at first."""

    def check(self, place: Place, masks: Masks) -> None:  # noqa: B027
        """Raise ValueError if it does not fit a training of this length that starts with these masks."""

    def left(self, masks: Masks) -> str:
        """What these masks lack of the goal, in words; "" if nothing."""
        return ""


@dataclass(frozen=True)
class Gradual(Schedule):
    """Prune to `density` of the prunable weights in evenly spaced rounds during training.

    Rounds come between the shares `begin` and `end` of all steps; the last leaves round-half-up(density x prunable)
    weights. After round i of n, the share shape(density)(i / n) remains: by default
    density + (1 - density) (1 - i / n)^3. `allocate` makes a round's allocator from its density.

    Raises: ValueError for density, begin or end outside [0, 1], begin after end, fewer than one round, a training of
    unknown length, or a density that the allocator cannot reach because it keeps a weight of each tensor.
    Source: Zhu & Gupta, "To prune, or not to prune", 2017, equation 1.
    """

    density: float
    rounds: int = 20
    begin: float = 0.0
    end: float = 0.7
    shape: Callable[[float], Callable[[float], float]] = Cubic
    allocate: Callable[[float], Allocator] = Global

    def __post_init__(self) -> None:
        check_fraction(density=self.density, begin=self.begin, end=self.end)
        check_whole(1, MOST_LISTED, rounds=self.rounds)
        if self.begin > self.end:
            raise ValueError(f"begin must not come after end, got begin={self.begin} and end={self.end}")
        check_allocator(self.allocate(self.density), "allocate")

    def check(self, place: Place, masks: Masks) -> None:
        if place.steps is None:
            raise ValueError("Gradual needs to know how long the training is: give the Trainer a number of steps")
        if self.left(masks):
            self.allocate(self.density)({name: mask.float() for name, mask in masks.items()}, masks)

    def due(self, place: Place, since: int, masks: Masks) -> Allocator | None:
        done = self._rounds(place.step, place.steps or 0)
        if not done or done == self._rounds(since, place.steps or 0):
            return None
        target = rounds(self.shape(self.density), self.rounds)[done - 1]
        kept, total = counts(masks)
        return self.allocate(target) if share(target, total) < kept else None

    def _rounds(self, step: int, steps: int) -> int:
        """The number of rounds before a step. The last one comes before the last step at the latest."""
        first, last = (min(round(x * steps), max(0, steps - 1)) for x in (self.begin, self.end))
        return sum(first + (last - first) * i // self.rounds <= step for i in range(1, self.rounds + 1))

    def left(self, masks: Masks) -> str:
        kept, total = counts(masks)
        goal = share(self.density, total)
        return f"{kept:,} of {total:,} weights are left, and {goal:,} were asked for" if kept > goal else ""


@dataclass(frozen=True)
class AtEpochs(Schedule):
    """Prune by `allocator` before each of `epochs`; 0 is the first of a training.

    With `AtEpochs(SAP(), epochs=(1, 2, 3))` the PQ index says how much to prune; `AtEpochs(Shrink(0.2), range(1, 6))`
    removes a fifth of the remaining weights each time, like a lottery ticket without rewinding.

    Raises: ValueError without epochs, for one below 0, twice or beyond the training, or epochs of unknown length.
    """

    allocator: Allocator
    epochs: Sequence[int]

    def __post_init__(self) -> None:
        check_allocator(self.allocator, "AtEpochs")
        for epoch in self.epochs:
            check_whole(0, epochs=epoch)
        if not self.epochs or len(set(self.epochs)) < len(self.epochs):
            raise ValueError(f"epochs must be at least one number, each once, got {list(self.epochs)}")

    def check(self, place: Place, masks: Masks) -> None:
        if place.epochs is None:
            raise ValueError("AtEpochs needs to know the epochs: give the Trainer their number, and data with a length")
        if max(self.epochs) >= place.epochs:
            raise ValueError(
                f"the training has {place.epochs} epochs, 0 to {place.epochs - 1}, and is to prune before epoch "
                f"{max(self.epochs)}: name epochs that it has"
            )

    def due(self, place: Place, since: int, masks: Masks) -> Allocator | None:
        return self.allocator if place.epoch in self.epochs and place.step > since else None
