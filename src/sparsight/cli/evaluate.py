"""`sparsight evaluate RUN...`: measure finished networks beyond accuracy, as tidy rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sparsight.cli.errors import Misuse, checked, refusing, say
from sparsight.cli.output import check_outputs, give
from sparsight.cli.record_options import EvaluateOptions
from sparsight.compare.evaluation import CORRUPTIONS, Corrupted, evaluate
from sparsight.compare.tables import check_suffix, write_rows
from sparsight.compare.text import evaluated
from sparsight.numerics.checks import check_known, check_whole


def main(asked: EvaluateOptions) -> int:
    check_outputs(asked)
    if asked.out is not None:
        with refusing():
            check_suffix(asked.out)
    rows, notes = _evaluated(asked)
    if asked.out is not None:
        write_rows(rows, asked.out)
    for note in notes:
        say(note)
    where = "" if asked.out is None else f"\n{len(rows):,} rows in {asked.out}"
    return give(asked, lambda: evaluated(rows) + where, lambda: {"rows": rows, "notes": notes})


def _evaluated(asked: EvaluateOptions) -> tuple[list[dict[str, object]], list[str]]:
    """Rows and notes of all runs. Raises: Misuse for a path that is not a run, an unknown level or corruption."""
    checked(check_known, tuple(CORRUPTIONS), corruptions=asked.corruptions)
    checked(check_known, (1, 2, 3, 4, 5), severities=asked.severities)
    checked(check_whole, 1, samples=asked.samples)
    corrupted = Corrupted(asked.corruptions or tuple(CORRUPTIONS), asked.severities, asked.samples)
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    for path in runs_of(asked.runs):
        found = evaluate(
            path, asked.metrics, levels=asked.level or None, corrupted=corrupted, model=asked.model, data=asked.data
        )
        rows += found.rows
        notes += [f"{path}: {note}" for note in found.notes]
    return rows, notes


def runs_of(paths: tuple[Path, ...]) -> Iterator[Path]:
    """The given run folders, and those of the given studies. Raises: Misuse for a path that is neither."""
    if not paths:
        raise Misuse("give at least one run folder or study folder")
    for path in paths:
        if os.path.exists(path / "run.json"):
            yield path
        elif os.path.exists(path / "study.json"):
            yield from sorted(found.parent for found in path.glob("trials/*/run.json"))
        else:
            raise Misuse(f"{path} is neither a run folder nor a study folder: it has no run.json or study.json")
