"""From the run folders of the study to its rows, tables and picture.

    python studies/stopping/results.py runs/stopping      rows, tables and picture of what has finished so far
    python studies/stopping/results.py                    tables and picture again, from the rows alone

Rows and tables go to studies/stopping/results (--into), the picture to docs/pictures/stopping (--pictures). Tables
and picture are computed from the csv files of the rows, not from the runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gather import Row, gather, read
from summary import summary
from tables import candidates, cells, confirmation, densities, table

from sparsight.records.files import write_atomically
from sparsight.runs.study import write_csv

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "docs" / "pictures" / "stopping"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rows, tables and picture of the stopping study.")
    parser.add_argument("study", type=Path, nargs="?", help="the folder of the study; without it from the rows alone")
    parser.add_argument("--into", type=Path, default=HERE / "results", help="where rows and tables are")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="where the picture goes")
    parser.add_argument("--no-pictures", action="store_true", help="rows and tables alone")
    given = parser.parse_args(argv)
    if given.study is not None:
        finished, planned = gather(given.study, given.into)
        text = json.dumps({"finished": finished, "planned": planned}) + "\n"
        write_atomically(given.into / "finished.json", [text.encode()])
    rows = tell(given.into)
    if not given.no_pictures:
        sys.path.append(str(PICTURES.parent))
        from pictures import draw

        print(draw(rows, given.pictures))
    return 0


def tell(into: Path) -> list[Row]:
    """Write the tables of the rows in `into`, and return the rows of the main one."""
    known = json.loads((into / "finished.json").read_bytes())
    runs = read(into / "runs.csv")
    search, confirming = cells(runs, searched=True), cells(runs, searched=False)
    rows = table(search)
    made = {
        "table": rows,
        "densities": densities(search) + densities(confirming),
        "candidates": candidates(rows),
        "confirmation": confirmation(confirming),
    }
    for name, found in made.items():
        write_csv(found, into / f"{name}.csv")
    text = summary(known["finished"], known["planned"], made)
    write_atomically(into / "summary.md", [text.encode()])
    print(f"{known['finished']} of {known['planned']} trials have finished: {into / 'summary.md'}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
