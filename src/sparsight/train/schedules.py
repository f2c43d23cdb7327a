"""Learning-rate schedules of a level: from progress in [0, 1] to a multiplier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """(1 + cos(pi x progress)) / 2: from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True)
class WarmUp:
    """Linear from 0 to 1 over the first `share` of training, then `after`."""

    share: float = 0.1
    after: Callable[[float], float] = cosine

    def __call__(self, progress: float) -> float:
        if progress < self.share:
            return progress / self.share
        return self.after((progress - self.share) / (1.0 - self.share))
