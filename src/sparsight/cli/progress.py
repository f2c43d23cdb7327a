"""The progress of a run: a line per level, and on a terminal a bar for the current level."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from sparsight.numerics import format as words
from sparsight.records.journal import Event
from sparsight.records.record import LevelRecord
from sparsight.report.escape import plain, printable
from sparsight.report.run_view import name
from sparsight.runs.budget import Budgeted
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Listed, Search, Until
from sparsight.train.metric import ACCURACY, LOSS, PERPLEXITY


class Watcher:
    """A `watch` for `execute`, and a context manager that owns the bar. `began`: whether training has begun.

    With a recipe it also shows elapsed and remaining time. `done` are the levels of a resumed run. If the reader goes
    away, as `head` does, the output ends but the run continues.
    """

    def __init__(self, stream: TextIO, recipe: Recipe | None = None, done: Sequence[LevelRecord] = ()) -> None:
        self.began = False
        self.unread = False  # the reader of the output has gone
        self._stream, self._recipe = stream, recipe
        self._levels = [record for record in done if record.role == "level"]
        self._since, self._epochs, self._now = monotonic(), 0.0, 0.0  # epochs of this session: done, of this level
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if stream.isatty():
            columns = (TextColumn("{task.description}", markup=False), BarColumn(8))
            console = Console(file=stream)
            self._bar = Progress(
                *columns, TextColumn("{task.fields[time]}", markup=False), console=console, transient=True,
                refresh_per_second=4, redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip

    def __enter__(self) -> Watcher:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        if not self.began:
            self.began, self._since = True, monotonic()
        self._count(event)
        if event.kind == "done" and event.record is not None:
            self.say(line(event.record) + ("" if self._bar else self._time(event)))
        if self._bar is not None:
            self._move(event, self._bar)

    def say(self, text: str) -> None:
        """Write lines, above the bar if there is one."""
        text = plain(text)
        if self._bar is not None:
            self._bar.console.print(Text(text), highlight=False)
        elif not self.unread:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except BrokenPipeError:
                self.unread = True
                discard_output()
                sys.stderr.write("sparsight: the output was closed; the run continues\n")

    def _move(self, event: Event, bar: Progress) -> None:
        if event.kind == "done" and self._task is not None:
            bar.remove_task(self._task)
            self._task = None
            return
        said = f"{name(event)}, {words.percent(event.kept / event.total)}"
        done = 0.0
        if event.observation is not None:
            seen = event.observation
            metric = next((m for m in (PERPLEXITY, ACCURACY) if seen.value(m) is not None), LOSS)
            said += f", {metric.name} {metric.text(seen.value(metric))}"
            done = event.observation.epoch
        said = printable(said)
        if self._task is None:
            self._task = bar.add_task(said, total=event.budget, time="")
        time = self._time(event).removeprefix(", ").replace("about ", "")
        bar.update(self._task, description=said, completed=done, time=time)

    # -- time --------------------------------------------------------------------------------------------------

    def _count(self, event: Event) -> None:
        """Count the epochs of this session, which give the run's speed."""
        at = event.observation.epoch if event.observation is not None else 0.0
        if event.kind == "begin":
            self._now = at
        self._epochs, self._now = self._epochs + max(0.0, at - self._now), at
        if event.kind == "done" and event.record is not None and event.role == "level":
            self._levels.append(event.record)

    def _time(self, event: Event) -> str:
        """ ", 12 s, about 48 s left"; only the first if the rest is unknown."""
        spent = monotonic() - self._since
        left = None if self._recipe is None else epochs_left(self._recipe, self._levels, event)
        if left is None or not self._epochs:
            return f", {rough(spent)}"
        return f", {rough(spent)}, about {rough(spent / self._epochs * left)} left" if left else f", {rough(spent)}"


def discard_output() -> None:
    """Send standard output nowhere: Python would complain about the missing reader at exit."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def rough(seconds: float) -> str:
    """Whole seconds, as "12 s" or "1 min 05 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else words.duration(whole)


def epochs_left(recipe: Recipe, done: Sequence[LevelRecord], event: Event) -> float | None:
    """Epochs left at most after an event; None if the search does not know how many levels follow.

    Future levels are assumed to take the mean of the pruned levels so far, or the current one's budget; a control
    takes as many as all levels together.
    """
    at = event.observation.epoch if event.observation is not None else 0.0
    here = 0.0 if event.kind == "done" else event.budget - at
    if event.role == "control":
        return here
    if isinstance(recipe.search, Budgeted):
        total, so_far = recipe.search.epochs, sum(record.epochs for record in done)
        return total - so_far - (0.0 if event.kind == "done" else at) + (total if recipe.control else 0.0)
    most = levels_left(recipe.search, done)
    if most is None:
        return None
    most -= event.kind != "done"  # the current level
    pruned = [record.epochs for record in done if record.kept < record.total]
    later = max(0, most) * (sum(pruned) / len(pruned) if pruned else float(event.budget))
    so_far = sum(record.epochs for record in done) + (0.0 if event.kind == "done" else event.budget)
    return here + later + (so_far + later if recipe.control else 0.0)


def levels_left(search: Search, done: Sequence[LevelRecord]) -> int | None:
    """Levels left at most: by their number, and by the target density at the last level's rate; None if unknown."""
    if isinstance(search, Listed):
        return len(search.levels) - len(done)
    if not isinstance(search, Until):
        return None
    by = [] if search.levels is None else [1 + search.levels - len(done)]
    before, last = done[-2:] if len(done) > 1 else (None, None)
    if search.density and before is not None and last is not None and 0 < last.kept < before.kept:
        goal = math.log(max(search.density * last.total, 1) / last.kept)
        by.append(max(0, math.ceil(goal / math.log(last.kept / before.kept) - 1e-9)))
    return max(0, min(by)) if by else None


def line(record: LevelRecord) -> str:
    """A level in one line."""
    parts = [f"density {words.percent(record.density)}"]
    if record.pq_pairs:
        p, q = record.pq_pairs[0]
        parts.append(f"PQ index ({p:g}, {q:g}) {words.index(record.pq[0])}")
    parts.append(words.plural(record.epochs, "epoch"))
    parts.append(f"validation {record.metric.name} {record.metric.text(record.value)}")
    return printable(f"{name(record)}: {', '.join(parts)}")
