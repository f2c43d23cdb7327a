"""A level: prune, restart, train."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsight.pruning.restart import rewind
from sparsight.train.plan import TrainingPlan
from sparsight.types import Allocator, Restart, check_allocator


@dataclass(frozen=True)
class Level:
    """One prune-restart-train cycle.

    `prune` are the rounds of score + allocate; without any, the level trains the network as it is, without a restart.

    Raises: TypeError if something in `prune` is not an allocator.
    """

    prune: tuple[Allocator, ...] = ()
    restart: Restart = rewind
    train: TrainingPlan = field(default_factory=TrainingPlan)

    def __post_init__(self) -> None:
        if not isinstance(self.prune, tuple):
            raise TypeError(f"prune must be a tuple of allocators, such as (Shrink(0.2),), got {self.prune!r:.60}")
        for allocator in self.prune:
            check_allocator(allocator, "prune")
