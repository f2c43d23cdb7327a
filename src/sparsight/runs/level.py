"""A level: prune, restart, train."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsight.pruning.restart import rewind
from sparsight.train.plan import TrainingPlan
from sparsight.types import Allocator, Restart


@dataclass(frozen=True)
class Level:
    """One prune-restart-train cycle.

    `prune` are the rounds of score + allocate; without any the level trains the network as it is, and does not restart.

    Raises: TypeError for something in `prune` that is not an allocator, naming what it lacks.
    """

    prune: tuple[Allocator, ...] = ()
    restart: Restart = rewind
    train: TrainingPlan = field(default_factory=TrainingPlan)

    def __post_init__(self) -> None:
        if not isinstance(self.prune, tuple):
            raise TypeError(f"prune must be a tuple of allocators, such as (Shrink(0.2),), got {self.prune!r:.60}")
        for allocator in self.prune:
            lacks = [name for name in ("monotone", "plan", "__call__") if not hasattr(allocator, name)]
            if isinstance(allocator, type) or lacks:
                why = "it is a class" if isinstance(allocator, type) else f"it lacks {', '.join(lacks)}"
                raise TypeError(
                    f"prune holds {allocator!r:.60}, which is not an allocator: {why}; one of your own inherits "
                    "from sparsight.types.Allocator"
                )


__all__ = ["Level"]
