"""The path of a run: PQ index and accuracy of its levels against density, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsight.measure.pq.turning_points import Phase, TurningPoints, turning_points
from sparsight.numerics import format as words
from sparsight.records.record import Evaluation, LevelRecord
from sparsight.records.verify import whole


@dataclass(frozen=True)
class Step:
    """One level of a path."""

    level: int
    density: float
    index: float  # PQ index of all alive weights
    validation_accuracy: float | None
    test_accuracy: float | None


@dataclass(frozen=True)
class Trajectory:
    """A run's path. `minimum` and `peak` are positions in `steps`; see `turning_points` for the rule."""

    source: str
    recipe: str
    p: float
    q: float
    steps: tuple[Step, ...]
    minimum: int | None
    confirmed: bool
    peak: int | None
    phase: Phase
    meaning: str  # one paragraph

    @property
    def marks(self) -> dict[int | None, str]:
        """The names of the turning points, by position."""
        return {self.minimum: "minimum" if self.confirmed else "lowest so far", self.peak: "peak"}


def trajectory(run: str | Path, p: float | None = None, q: float | None = None) -> Trajectory:
    """The path of the run in a folder, finished or not, from its records alone.

    (p, q) is a pair that the run recorded, by default the first. Raises: ValueError for an unrecorded pair or without
    levels; FileNotFoundError; DamagedFile.
    """
    with whole(Path(run)) as folder:
        levels = sorted((x for x in folder.levels() if x.role == "level"), key=lambda x: x.level)
        return path_of(str(run), folder.record.recipe, levels, folder.evaluation(), p, q)


def path_of(
    source: str, recipe: str, levels: Sequence[LevelRecord], evaluation: Evaluation | None,
    p: float | None = None, q: float | None = None,
) -> Trajectory:  # fmt: skip
    pairs = levels[0].pq_pairs if levels else ()
    if not pairs:
        raise ValueError(f"{source} has no level with a PQ index yet")
    wanted = [x for x in pairs if p in (None, x[0]) and q in (None, x[1])]
    if not wanted:
        raise ValueError(f"{source} has no PQ index at ({p}, {q}), only at {', '.join(map(str, pairs))}")
    at, tested = pairs.index(wanted[0]), {}
    if evaluation is not None:
        tested = {x.level: x.test_accuracy for x in evaluation.entries if x.role == "level"}
    steps = tuple(Step(x.level, x.density, x.pq[at], x.validation_accuracy, tested.get(x.level)) for x in levels)
    found = turning_points([s.density for s in steps], [s.index for s in steps])
    turns = (found.minimum, found.confirmed, found.peak, found.phase)
    return Trajectory(source, recipe, *wanted[0], steps, *turns, _meaning(steps, found))


def _meaning(steps: Sequence[Step], found: TurningPoints) -> str:
    if found.minimum is None:
        return "The PQ index is not defined at any level."
    low, last = steps[found.minimum], steps[-1]
    head = f"The PQ index starts at {words.index(steps[0].index)} and is lowest, {words.index(low.index)}, at level "
    head += f"{low.level}, where {words.percent(low.density)} of the weights are left{_cost(steps[0], low)}. "
    if found.phase == "regularising":
        rise = "It is still falling" if found.confirmed or low is last else "It has not risen clearly since"
        return head + (
            f"{rise}: the remaining weights have not become more uneven, and pruning still regularises. By the "
            "hypothesis, there is room to prune further, until the index turns up."
        )
    highest = words.index(max(s.index for s in steps[found.minimum :]))
    head += f"Since then it has risen to {highest}: the remaining weights are more uneven again, so pruning now "
    head += "compresses and costs accuracy"
    if found.phase == "compressing" or found.peak is None:
        return head + f"{_cost(low, last, 'since the minimum')}. Stopping at the minimum costs little."
    top = steps[found.peak]
    return head + (
        f". It peaked at level {top.level} ({words.percent(top.density)} left{_cost(steps[0], top)}) and has "
        f"fallen since: the network is collapsing{_cost(steps[0], last, 'at the last level')}. "
        "Choose a level near the minimum."
    )


def _cost(before: Step, after: Step, when: str = "") -> str:
    """ " (test accuracy 90.1 %, 0.3 points below level 0)"."""
    for name in ("test_accuracy", "validation_accuracy"):
        a, b = getattr(before, name), getattr(after, name)
        if a is not None and b is not None:
            said = f"{name.replace('_', ' ')} {words.accuracy(b, 1)}"
            if after.level != before.level:
                said += f", {words.apart(b, a, f'level {before.level}', 1)}"
            return f" ({f'{when}: ' if when else ''}{said})"
    return ""
