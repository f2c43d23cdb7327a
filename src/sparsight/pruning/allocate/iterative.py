"""Iterative SNIP and FORCE: a level of many rounds, each scored by SNIP."""

from __future__ import annotations

from collections.abc import Callable

from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.schedules import Geometric
from sparsight.pruning.schedules import rounds as at_rounds

Schedule = Callable[[float], Callable[[float], float]]


def IterativeSNIP(
    density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1
) -> tuple[Global, ...]:
    """A level that prunes to `density` in `rounds` rounds; pruned weights never return.

    Round t of n keeps schedule(density)(t / n) of the prunable weights, rounded half up: density^(t/n) by default.
    Use it as `Recipe(score=SNIP(), levels=(Level(IterativeSNIP(0.05)),), ...)`; one round is SNIP.

    Raises: ValueError for a density that the schedule refuses, or fewer than one round.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1 without recovery.
    """
    return tuple(Global(density=at, min_keep=min_keep) for at in at_rounds(schedule(density), rounds))


def FORCE(density: float, rounds: int = 60, *, schedule: Schedule = Geometric, min_keep: int = 1) -> tuple[Global, ...]:
    """Like `IterativeSNIP`, but pruned weights compete in every round and may return.

    SNIP scores a pruned weight by its value before pruning times the gradient of the masked network.

    Source: de Jorge et al., "Progressive Skeletonization", ICLR 2021, algorithm 1.
    """
    return tuple(Global(density=at, min_keep=min_keep, recover=True) for at in at_rounds(schedule(density), rounds))
