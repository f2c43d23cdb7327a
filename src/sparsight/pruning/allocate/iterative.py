"""Iterative SNIP and FORCE: a level of many rounds, scored by SNIP anew before each."""

from __future__ import annotations

from collections.abc import Callable

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.schedules import Geometric
from sparsight.pruning.schedules import rounds as at_rounds

Schedule = Callable[[float], Callable[[float], float]]


def IterativeSNIP(
    density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1
) -> tuple[Global, ...]:
    """A level that goes down to `density` in so many rounds; a pruned weight never returns.

    Round t of n keeps schedule(density)(t / n) of the prunable weights, rounded half up: density^(t/n) by default.
    Use it as `Recipe(score=SNIP(), levels=(Level(IterativeSNIP(0.05)),), ...)`; one round is SNIP. Errors: density
    outside (0, 1] (0 too, if the schedule takes it), fewer than one round.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1 without recovery.
    """
    return tuple(Global(density=at, min_keep=min_keep) for at in at_rounds(schedule(density), rounds))


def FORCE(density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1) -> tuple[Global, ...]:
    """As `IterativeSNIP`, but pruned weights compete at every round and may return (FOResight Connection sEnsitivity).

    SNIP scores a pruned weight by its own value times the gradient at the masked network. So the weights must be
    those before pruning during the rounds, as they are at initialisation.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1.
    """
    return tuple(Global(density=at, min_keep=min_keep, recover=True) for at in at_rounds(schedule(density), rounds))
