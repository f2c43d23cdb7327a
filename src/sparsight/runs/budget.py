"""A budget of epochs for a whole run: the last level trains for all epochs that are left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsight.numerics.checks import check_whole
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Done, History, Listed, Search, Until
from sparsight.train.stop import FixedEpochs, StoppingRule
from sparsight.types import Allocator


@dataclass(frozen=True)
class Budgeted(Search):
    """`search`, with levels that train for `epochs` epochs in total.

    The last level trains for the epochs that are left. With `Until`, a level becomes the last, and is pruned straight
    to the target, if another level and the last would not fit after it.
    """

    search: Until | Listed
    epochs: int

    @property
    def rules(self) -> tuple[StoppingRule, ...]:
        return self.search.rules

    def next(self, history: History) -> Level | Done:
        found = self.search.next(history)
        if isinstance(found, Done) or not history:
            return found
        if self.left(history) < 1:
            return Done(f"all {self.epochs} epochs are spent")
        if isinstance(self.search, Until) and self._full(history):
            return replace(found, prune=_end(self.search).prune)
        return found

    def after_pruning(self, history: History, level: Level, kept: int, total: int) -> Level:
        level = self.search.after_pruning(history, level, kept, total)
        full = isinstance(self.search, Until) and bool(history) and self._full(history)
        if not full and not self.search.ends(history, kept, total):
            return level
        if full and isinstance(self.search, Until):
            level = replace(level, restart=_end(self.search).restart, train=_end(self.search).train)
        return replace(level, train=replace(level.train, epochs=self.left(history)))

    def upcoming(self, history: History) -> tuple[Allocator, ...]:
        return self.search.upcoming(history)

    def left(self, history: History) -> int:
        """Epochs left after the levels so far."""
        return round(self.epochs - sum(record.epochs for record in history))

    def _full(self, history: History) -> bool:
        """Whether a normal level would leave fewer epochs than the last level takes."""
        assert isinstance(self.search, Until)
        return self.left(history) < self.search.level.train.epochs + _end(self.search).train.epochs


def _end(search: Until) -> Level:
    return search.last or search.level


def budgeted(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with exactly `epochs` epochs in total.

    Raises: ValueError if any level may be the last, if the levels need more epochs, or if they end inside an epoch.
    """
    check_whole(1, total_epochs=epochs)
    search = recipe.search
    if not isinstance(search, Until | Listed):
        raise _cannot(recipe, epochs, f"only {type(search).__name__} knows which level is the last")
    if isinstance(search, Until):
        if search.stop is not None:
            raise _cannot(recipe, epochs, "any of its levels may be the last; use --until density")
        plans = [(search.first or search.level).train, search.level.train, _end(search).train]
        before = 0 if search.levels == 0 else plans[0].epochs + (plans[2].epochs - 1)
    else:
        plans = [level.train for level in search.levels]
        before = sum(plan.epochs for plan in plans[:-1])
    if before >= epochs:
        raise _cannot(recipe, epochs, f"its levels need at least {before + 1}; lower --epochs")
    inside = [p.evaluate_every for p in plans if not isinstance(p.stop, FixedEpochs) and p.evaluate_every % 1]
    if inside:
        raise _cannot(recipe, epochs, f"its levels may end inside an epoch; set evaluate_every={inside[0]:g} to 1")
    return replace(recipe, levels=Budgeted(search, epochs))


def _cannot(recipe: Recipe, epochs: int, why: str) -> ValueError:
    return ValueError(f"{recipe.name} cannot train for {epochs} epochs in total: {why}")
