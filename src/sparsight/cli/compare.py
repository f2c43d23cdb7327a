"""`sparsight compare`, `evaluate`, `verdict` and `report`: networks of runs side by side, beyond accuracy, in words."""

from __future__ import annotations

import os
import textwrap
import webbrowser
from collections.abc import Iterator
from pathlib import Path

from sparsight import compare as comparing
from sparsight.cli.errors import Misuse, checked, print_lines, refusing, say
from sparsight.cli.output import check_outputs, give
from sparsight.cli.record_options import CompareOptions, EvaluateOptions, ReportOptions, VerdictOptions
from sparsight.cli.show import opened
from sparsight.compare import evaluation
from sparsight.compare.gather import gather, rows
from sparsight.compare.page import page
from sparsight.compare.tables import check_suffix, write_rows
from sparsight.compare.text import evaluated, text
from sparsight.compare.verdict import report as write_report
from sparsight.numerics.checks import check_known, check_not_negative, check_whole
from sparsight.report.escape import printable
from sparsight.report.table import as_csv
from sparsight.report.verdict import document, paragraph

_OF_CORRUPTIONS = ("corruptions", "severities", "samples")
WIDTH = 80
"""Columns of a verdict's paragraphs."""


def compare(asked: CompareOptions) -> int:
    check_outputs(asked)
    if asked.parquet is not None:
        if asked.parquet.suffix != ".parquet":
            raise Misuse(f"--parquet must end in .parquet, got {asked.parquet}")
        with refusing():
            check_suffix(asked.parquet)
    found = gather(runs_of(asked.runs), asked.levels)
    if asked.parquet is not None:
        write_rows(rows(found), asked.parquet)
    return give(
        asked,
        lambda: text(found),
        lambda: {"same": found.same, "networks": rows(found), "left_out": found.left_out},
        csv=lambda: as_csv(rows(found)),
        out=lambda: page(found),
        tell_files=True,
    )


def evaluate(asked: EvaluateOptions) -> int:
    check_outputs(asked)
    if asked.out is not None:
        with refusing():
            check_suffix(asked.out)
    checked(check_known, tuple(evaluation.CORRUPTIONS), corruptions=asked.corruptions)
    checked(check_known, (1, 2, 3, 4, 5), severities=asked.severities)
    checked(check_whole, 1, samples=asked.samples)
    if not asked.metrics:
        raise Misuse("--metrics needs at least one family")
    given = [name for name in _OF_CORRUPTIONS if getattr(asked, name) != getattr(EvaluateOptions(()), name)]
    if given and "corruptions" not in asked.metrics:
        raise Misuse(f"--{given[0]} needs --metrics corruptions")
    names = asked.corruptions or tuple(evaluation.CORRUPTIONS)
    corrupted = evaluation.Corrupted(names, asked.severities, asked.samples)
    found, notes = [], []
    for path in runs_of(asked.runs):
        with refusing():
            of_run = evaluation.evaluate(
                path, asked.metrics, levels=asked.level or None, corrupted=corrupted, model=asked.model, data=asked.data
            )
        found += of_run.rows
        notes += [f"{path}: {note}" for note in of_run.notes]
    if asked.out is not None:
        write_rows(found, asked.out)
    for note in notes:
        say(note)
    where = "" if asked.out is None else f"\n{len(found):,} rows in {asked.out}"
    return give(asked, lambda: evaluated(found) + where, lambda: {"rows": found, "notes": notes})


def verdict(asked: VerdictOptions) -> int:
    checked(check_not_negative, within=asked.within)
    if not 50 < asked.confidence < 100:
        raise Misuse(f"--confidence must be greater than 50 and less than 100, got {asked.confidence}")
    with refusing():
        found = comparing.verdicts(runs_of(asked.runs), asked.within, asked.confidence / 100)
    told = (textwrap.fill(printable(paragraph(each)), WIDTH, break_on_hyphens=False) for each in found)
    return give(asked, lambda: "\n\n".join(told), lambda: document(found))


def report(asked: ReportOptions) -> int:
    with opened(asked.run) as folder:
        before = folder.record.status, len(folder.levels())
        path = write_report(folder)
    with opened(asked.run) as now:
        if (now.record.status, len(now.levels())) != before:  # the run continued meanwhile
            write_report(now)
    print_lines(str(path))
    if asked.open:
        webbrowser.open(path.resolve().as_uri())
    return 0


def runs_of(paths: tuple[Path, ...]) -> list[Path]:
    """The given run folders, and those of the given studies, each once. Raises: Misuse for a path that is neither."""
    if not paths:
        raise Misuse("give at least one run folder or study folder")
    found: dict[str, Path] = {}
    for path in _runs_of(paths):
        found.setdefault(os.path.realpath(path), path)
    return [*found.values()]


def _runs_of(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if os.path.exists(path / "run.json"):
            yield path
        elif os.path.exists(path / "study.json"):
            yield from sorted(found.parent for found in path.glob("trials/*/run.json"))
        else:
            raise Misuse(f"{path} is neither a run folder nor a study folder: it has no run.json or study.json")
