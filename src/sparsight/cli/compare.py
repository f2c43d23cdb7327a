"""`sparsight compare RUN... | STUDY`: networks side by side, as a table, a page, or rows."""

from __future__ import annotations

import json as json_
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, check_outputs, printable
from sparsight.cli.evaluate import runs_of
from sparsight.cli.options import Switch, options


@dataclass(frozen=True)
class CompareOptions:
    """Put the networks of runs side by side: a table, or a page with a scatter, a family tree and details.

    Everything is read from the records of the runs and from what `sparsight evaluate` stored; nothing is measured.
    """

    runs: Annotated[conf.Positional[tuple[Path, ...]], Doc("Run folders, or folders of a study.")]
    levels: Annotated[
        Literal["auto", "all", "chosen"],
        Doc(
            "Which networks of each run: all, or the chosen one and the dense one; auto is all of them up to "
            "1,000 networks."
        ),
    ] = "auto"
    out: Annotated[
        Path | None,
        conf.arg(aliases=("-o",), metavar="FILE"),
        Doc("Write the page to this .html file; - is standard output."),
    ] = None
    csv: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write a row for each network to this file; - is standard output.")
    ] = None
    parquet: Annotated[Path | None, conf.arg(metavar="FILE"), Doc("Write these rows to this .parquet file.")] = None
    json: Annotated[Switch, Doc("Print one JSON document instead of the table.")] = False


def main(argv: list[str]) -> int:
    asked = options(CompareOptions, argv, "sparsight compare")
    quiet = check_outputs(asked.json, out=asked.out, csv=asked.csv, parquet=asked.parquet)
    if asked.parquet is not None and asked.parquet.suffix != ".parquet":
        raise Misuse(f"--parquet must end in .parquet, got {asked.parquet}")

    from sparsight.compare.gather import gather, rows
    from sparsight.compare.tables import check_suffix, write_rows
    from sparsight.compare.text import text
    from sparsight.records.outputs import write_output
    from sparsight.records.record import to_json
    from sparsight.report.escape import plain
    from sparsight.report.table import as_csv

    if asked.parquet is not None:
        try:
            check_suffix(asked.parquet)
        except ValueError as error:
            raise Misuse(str(error)) from error
    found = gather(runs_of(asked.runs), asked.levels)
    if asked.csv is not None:
        write_output(asked.csv, [as_csv(rows(found)).encode()])
    if asked.parquet is not None:
        write_rows(rows(found), asked.parquet)
    if asked.out is not None:
        from sparsight.compare.page import page

        write_output(asked.out, [page(found).encode()])
    if asked.json:
        document = {"same": found.same, "networks": rows(found), "left_out": found.left_out}
        sys.stdout.write(json_.dumps(to_json(document), indent=1) + "\n")
    elif not quiet:
        sys.stdout.write(plain(text(found)) + "\n")
        for path in filter(None, (asked.out, asked.csv, asked.parquet)):
            sys.stdout.write(printable(f"written: {path}") + "\n")
    return 0
