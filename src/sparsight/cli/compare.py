"""`sparsight compare RUN... | STUDY`: networks side by side, as a table, a page, or rows."""

from __future__ import annotations

from sparsight.cli.errors import Misuse, refusing
from sparsight.cli.evaluate import runs_of
from sparsight.cli.output import check_outputs, give
from sparsight.cli.record_options import CompareOptions
from sparsight.compare.gather import gather, rows
from sparsight.compare.tables import check_suffix, write_rows
from sparsight.compare.text import text
from sparsight.report.table import as_csv


def main(asked: CompareOptions) -> int:
    check_outputs(asked)
    if asked.parquet is not None:
        if asked.parquet.suffix != ".parquet":
            raise Misuse(f"--parquet must end in .parquet, got {asked.parquet}")
        with refusing():
            check_suffix(asked.parquet)
    found = gather(runs_of(asked.runs), asked.levels)
    if asked.parquet is not None:
        write_rows(rows(found), asked.parquet)

    def page() -> str:
        from sparsight.compare.page import page

        return page(found)

    return give(
        asked,
        lambda: text(found),
        lambda: {"same": found.same, "networks": rows(found), "left_out": found.left_out},
        csv=lambda: as_csv(rows(found)),
        out=page,
        tell_files=True,
    )
