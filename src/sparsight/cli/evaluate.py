"""`sparsight evaluate RUN...`: measure finished networks beyond accuracy, as tidy rows."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, check_outputs, checked, printable, say
from sparsight.cli.options import Switch, options


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure the networks of finished runs on the test split, beyond accuracy.

    Results are kept in the run folder; running the command again reads them. Metrics come in families. Corruptions
    and latency take longer and are only measured if you name them.
    """

    runs: Annotated[conf.Positional[tuple[Path, ...]], Doc("Run folders, or folders of a study.")]
    metrics: Annotated[
        tuple[
            Literal[
                "accuracy", "classes", "agreement", "calibration", "corruptions", "potential", "structure", "size",
                "latency",
            ],
            ...,
        ],
        Doc("Families of metrics to measure."),
    ] = ("accuracy", "classes", "agreement", "calibration", "potential", "structure", "size")  # fmt: skip
    level: Annotated[
        tuple[int, ...], conf.arg(metavar="N"), Doc("Levels to measure. Default: all with weights on disk.")
    ] = ()
    corruptions: Annotated[
        tuple[str, ...], conf.arg(metavar="NAME"), Doc("Corruptions to apply, such as gaussian_blur. Default: all 14.")
    ] = ()
    severities: Annotated[tuple[int, ...], conf.arg(metavar="N"), Doc("Severities of corruptions, 1 to 5.")] = (
        1,
        2,
        3,
        4,
        5,
    )
    samples: Annotated[int, conf.arg(metavar="N"), Doc("Test images to corrupt: the same share of each class.")] = 2000
    model: Annotated[str | None, Doc("The run's network, if it is not from the zoo: package.module:attribute.")] = None
    data: Annotated[str | None, Doc("The run's data, if it is your own: package.module:attribute or a path.")] = None
    out: Annotated[
        Path | None,
        conf.arg(aliases=("-o",), metavar="FILE"),
        Doc("Write the rows to this .csv, .json or .parquet file; - is standard output, as CSV."),
    ] = None
    json: Annotated[Switch, Doc("Print one JSON document instead of the table.")] = False


def main(argv: list[str]) -> int:
    asked = options(EvaluateOptions, argv, "sparsight evaluate")
    quiet = check_outputs(asked.json, out=asked.out)

    from sparsight.compare.tables import check_suffix, write_rows
    from sparsight.records.record import to_json

    if asked.out is not None:
        try:
            check_suffix(asked.out)
        except ValueError as error:
            raise Misuse(str(error)) from error
    rows, notes = _evaluated(asked)
    if asked.out is not None:
        write_rows(rows, asked.out)
    for note in notes:
        say(note)
    if asked.json:
        sys.stdout.write(json_.dumps(to_json({"rows": rows, "notes": notes}), indent=1) + "\n")
    elif not quiet:
        from sparsight.compare.evaluation.text import text

        sys.stdout.write(text(rows) + "\n")
        if asked.out is not None:
            sys.stdout.write(printable(f"{len(rows):,} rows in {asked.out}") + "\n")
    return 0


def _evaluated(asked: EvaluateOptions) -> tuple[list[dict[str, object]], list[str]]:
    """Rows and notes of all runs. Raises: Misuse for a path that is not a run, an unknown level or corruption."""
    from sparsight.compare.evaluation import CORRUPTIONS, Corrupted, evaluate
    from sparsight.numerics.checks import check_known, check_whole

    for name in asked.corruptions:
        checked(lambda value: check_known(tuple(CORRUPTIONS), corruptions=value), name)
    for severity in asked.severities:
        checked(lambda value: check_known((1, 2, 3, 4, 5), severities=value), severity)
    checked(lambda value: check_whole(1, samples=value), asked.samples)
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
