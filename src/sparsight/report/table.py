"""The levels of a run as a table: text, Markdown, JSON, or for a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sparsight.numerics import format as words
from sparsight.records.record import Evaluation, LevelRecord, RunRecord, to_json
from sparsight.report.escape import cell, columns, printable
from sparsight.report.run_view import Story, pq_of, story
from sparsight.train.metric import ACCURACY

if TYPE_CHECKING:
    from rich.table import Table

CHOSEN, WIDTH = "*", 80
"""Mark of the chosen level; columns of a terminal."""


def table(
    run: RunRecord,
    levels: Sequence[LevelRecord],
    evaluation: Evaluation | None = None,
    *,
    format: Literal["text", "markdown", "json", "csv"] = "text",
) -> str:
    """One row per level, then the dense control: density, PQ index, epochs, accuracies.

    The PQ index is over all alive weights, at the first recorded (p, q). "*" marks the chosen level. JSON and CSV hold
    the numbers as recorded (NaN as "nan"); text and Markdown round them. Headings of text are stacked to fit 80
    columns. No colour codes.
    Raises: ValueError for another format.
    """
    s = story(run, levels, (), evaluation)
    if format == "json":
        return json.dumps(to_json(_values(s)), indent=2, allow_nan=False)
    if format == "csv":
        return as_csv(_values(s)["rows"])
    if format not in ("text", "markdown"):
        raise ValueError(f"unknown format {format!r}, expected one of 'text', 'markdown', 'json', 'csv'")
    note = _note(s)
    if format == "markdown":
        heads = _headings(s)
        lines = [_markdown(heads), "|" + " ---: |" * len(heads), *map(_markdown, _rows(s))]
        return "\n".join([*lines, *(["", note.replace(CHOSEN, "\\*", 1)] if note else [])])
    return "\n".join([*grid(_headings(s), _rows(s), width=10), *([note] if note else [])])


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the keys of the first, as CSV: None is empty, numbers are unrounded, text is harmless (`cell`)."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    names = list(rows[0]) if rows else []
    write(map(cell, names))
    for row in rows:
        write(cell(row[name]) for name in names)
    return out.getvalue()


def rich_table(run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None = None) -> Table:
    """The same table for a terminal: `console.print(rich_table(run, levels, evaluation))`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    s = story(run, levels, (), evaluation)
    drawn = Table(box=box.SIMPLE_HEAD, caption=Text(_note(s)) if _note(s) else None, caption_justify="left")
    for lines in stacked(_headings(s)):
        drawn.add_column(Text("\n".join(lines)), justify="right", no_wrap=True)
    for record, row in zip(s.records, _rows(s), strict=True):
        style = "bold" if record is s.chosen else "dim" if record is s.control else ""
        if record is s.control and s.levels:
            drawn.add_section()
        drawn.add_row(*map(Text, row), style=style)
    return drawn


def _headings(s: Story) -> list[str]:
    metric = printable(s.metric.name)
    headings = ["level", "density", s.index_name, "epochs", f"validation {metric}"]
    return [*headings, f"test {metric}"] if s.tests else headings


def stacked(headings: Sequence[str], width: int = 10) -> list[list[str]]:
    """Each heading in lines of about `width`, without breaking words, all with the same number of lines."""
    parts = [textwrap.wrap(text.replace("_", "_ "), width, break_long_words=False) or [""] for text in headings]
    most = max(map(len, parts))
    return [[""] * (most - len(lines)) + [line.replace("_ ", "_") for line in lines] for lines in parts]


def grid(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[int] = (),
    width: int = 7,
    ruled: bool = True,
) -> list[str]:
    """Columns under stacked headings, with a rule between if `ruled`; columns in `left` are left-aligned."""
    heads = [*zip(*stacked(headings, width), strict=True)]
    widths = [max(map(columns, column)) for column in zip(*heads, *rows, strict=True)]
    lines = []
    for row in (*heads, *([["-" * w for w in widths]] if ruled else []), *rows):
        padded = [(cell, " " * (w - columns(cell))) for cell, w in zip(row, widths, strict=True)]
        lines.append("  ".join(c + pad if i in left else pad + c for i, (c, pad) in enumerate(padded)).rstrip())
    return lines


def wrapped(*lines: str) -> list[str]:
    """Prose in lines of at most 80 columns; longer words stay whole."""
    return [part for line in lines for part in textwrap.wrap(line, WIDTH, break_long_words=False)]


def _rows(s: Story) -> list[list[str]]:
    rows = []
    for x in s.records:
        label = "control" if x is s.control else f"{f'{CHOSEN} ' if x is s.chosen else ''}{x.level}"
        row = [label, words.percent(x.density), words.index(pq_of(x, s.pair)), words.count(x.epochs)]
        row.append(s.metric.text(x.value))
        rows.append([*row, s.metric.text(s.test_value(x))] if s.tests else row)
    return rows


def _values(s: Story) -> dict[str, Any]:
    named = s.metric.name
    rows = [
        {
            "level": x.level,
            "role": x.role,
            "id": x.id,
            "chosen": x is s.chosen,
            "kept": x.kept,
            "total": x.total,
            "density": x.density,
            "compression": x.total / x.kept if x.kept else math.inf,
            "pq_index": pq_of(x, s.pair),
            "epochs": x.epochs,
            "validation_accuracy": x.validation_accuracy,
            "test_accuracy": s.test_value(x, ACCURACY),
            **({} if s.metric == ACCURACY else {f"validation_{named}": x.value, f"test_{named}": s.test_value(x)}),
            "reason": x.reason,
        }
        for x in s.records
    ]
    why = s.run.chosen.why if s.run.chosen else None
    return {"recipe": s.run.recipe, "status": s.run.status, "pq_pair": s.pair, "why_chosen": why, "rows": rows}


def _markdown(row: Sequence[str]) -> str:
    escaped = (text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*") for text in row)
    return "| " + " | ".join(escaped) + " |"


def _note(s: Story) -> str:
    """Why the marked level was chosen, in one line."""
    return f"{CHOSEN} chosen: {printable(' '.join(s.run.chosen.why.split()))}" if s.run.chosen and s.chosen else ""
