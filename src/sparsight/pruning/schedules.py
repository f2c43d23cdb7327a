"""Schedules of densities over rounds, as functions of progress in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsight.numerics.checks import MOST_LISTED, check_fraction, check_whole


@dataclass(frozen=True)
class Geometric:
    """density = final ** progress: the same rate at every round, 1 at the start, `final` in (0, 1] at the end."""

    final: float

    def __post_init__(self) -> None:
        if not 0 < self.final <= 1:
            raise ValueError(f"the final density of a geometric schedule must be in (0, 1], got {self.final!r}")

    def __call__(self, progress: float) -> float:
        return self.final**progress


@dataclass(frozen=True)
class Linear:
    """density = 1 - (1 - final) x progress, `final` in [0, 1]."""

    final: float

    def __post_init__(self) -> None:
        check_fraction(final=self.final)

    def __call__(self, progress: float) -> float:
        return 1.0 - (1.0 - self.final) * progress


@dataclass(frozen=True)
class Cubic:
    """density = final + (1 - final) x (1 - progress)^3, `final` in [0, 1] (gradual magnitude pruning)."""

    final: float

    def __post_init__(self) -> None:
        check_fraction(final=self.final)

    def __call__(self, progress: float) -> float:
        return self.final + (1.0 - self.final) * (1.0 - progress) ** 3


def rounds(schedule: Callable[[float], float], n: int) -> list[float]:
    """The density after each of n rounds: schedule(1/n), ..., schedule(1). Raises: ValueError unless n >= 1."""
    check_whole(1, MOST_LISTED, rounds=n)
    return [schedule(i / n) for i in range(1, n + 1)]
