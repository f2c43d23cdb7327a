"""From the rows of the study to its tables and its picture.

    python studies/sipp/results.py runs/sipp      rows, tables and picture of the cells that are done so far
    python studies/sipp/results.py                tables and picture again, from the rows alone

Rows and tables go to studies/sipp/results (--into), the picture to docs/pictures/sipp (--picture).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tables
from study import BLOCKS

from sparsight.records.files import write_atomically
from sparsight.runs.study import write_csv

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parents[1] / "docs" / "pictures" / "sipp" / "accuracy.svg"
WORDS = ("key", "data", "network", "start", "order", "method")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tables and picture of the SiPP study.")
    parser.add_argument("study", type=Path, nargs="?", help="the folder of the study; without it from the rows alone")
    parser.add_argument("--into", type=Path, default=HERE / "results", help="where rows and tables are")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the picture")
    parser.add_argument("--no-picture", action="store_true", help="rows and tables alone")
    given = parser.parse_args(argv)
    given.into.mkdir(parents=True, exist_ok=True)
    if given.study is not None:
        write_csv(gather(given.study), given.into / "rows.csv")
    rows = read(given.into / "rows.csv")
    made = {"accuracy": tables.accuracy(rows), "potential": tables.potential(rows)}
    for name, found in made.items():
        write_csv(found, given.into / f"{name}.csv")
    write_atomically(given.into / "summary.md", [tables.summary(rows, **made).encode()])
    print(f"{len(rows)} cells: {given.into / 'summary.md'}")
    if not given.no_picture and rows:
        sys.path.append(str(PICTURE.parents[1]))
        from picture import draw

        draw(made["accuracy"], given.picture)
        print(given.picture)
    return 0


def gather(study: Path) -> list[tables.Row]:
    """Every finished cell, in the order of the plan; seconds, which no run repeats, are left out."""
    from cells import finished

    found = [row for name in BLOCKS for row in finished(study / f"rows-{name}.jsonl").values()]
    if not found:
        raise SystemExit(f"{study} has no finished cell: run study.py --out {study} first")
    columns = list(dict.fromkeys(name for row in found for name in row if name != "seconds"))
    return [{name: row.get(name) for name in columns} for row in found]


def read(path: Path) -> list[tables.Row]:
    """The rows of a table, numbers as numbers; what is empty is None."""
    with open(path, newline="") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> Any:
    if text == "" or name in WORDS:
        return text or None
    return text == "True" if text in ("True", "False") else json.loads(text)


if __name__ == "__main__":
    sys.exit(main())
