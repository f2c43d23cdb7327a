"""What is seen of a run while it runs: a line for each level, and on a terminal a bar for the present one."""

from __future__ import annotations

from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from sparsight.records.journal import Event
from sparsight.records.record import LevelRecord
from sparsight.report import format as words
from sparsight.train.metric import ACCURACY, LOSS, PERPLEXITY


class Watcher:
    """A `watch` for `execute`, and a context manager that owns the bar. `began` tells that training has begun."""

    def __init__(self, stream: TextIO) -> None:
        self.began = False
        self._stream = stream
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if stream.isatty():
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            console = Console(file=stream)
            self._bar = Progress(
                *columns, TimeElapsedColumn(), console=console, transient=True, refresh_per_second=4,
                redirect_stdout=False, redirect_stderr=False,
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
        self.began = True
        if event.kind == "done" and event.record is not None:
            self.say(line(event.record))
        if self._bar is not None:
            self._move(event, self._bar)

    def say(self, text: str) -> None:
        """Write lines, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(Text(text), highlight=False)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def _move(self, event: Event, bar: Progress) -> None:
        if event.kind == "done" and self._task is not None:
            bar.remove_task(self._task)
            self._task = None
            return
        said = f"{_name(event.role, event.level)}  density {words.percent(event.kept / event.total)}"
        done = 0.0
        if event.observation is not None:
            seen = event.observation
            metric = next((m for m in (PERPLEXITY, ACCURACY) if seen.value(m) is not None), LOSS)
            said += f"  validation {metric.name} {words.worth(metric, seen.value(metric))}"
            done = event.observation.epoch
        if self._task is None:
            self._task = bar.add_task(said, total=event.budget)
        bar.update(self._task, description=said, completed=done)


def line(record: LevelRecord) -> str:
    """A level in one line."""
    parts = [f"density {words.percent(record.density)}"]
    if record.pq_pairs:
        p, q = record.pq_pairs[0]
        parts.append(f"PQ index ({p:g}, {q:g}) {words.index(record.pq[0])}")
    parts.append(words.plural(record.epochs, "epoch"))
    parts.append(f"validation {record.metric.name} {words.worth(record.metric, record.value)}")
    return f"{_name(record.role, record.level)}: {', '.join(parts)}"


def _name(role: str, level: int) -> str:
    return "dense control" if role == "control" else f"level {level}"
