"""From the rows of both studies of pruning at initialisation to their tables and pictures.

    python studies/init/results.py                       of what there is in runs/init
    python studies/init/results.py --rows DIR            of the rows in another folder
    python studies/init/results.py --again               from the committed csv files alone

Writes NAME.csv (one line for each cell) and NAME.md to studies/init/results (--into), NAME.svg to
docs/pictures/init-study (--pictures).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import tables
from cells import Row, rows_of

from sparsight.records.files import write_atomically
from sparsight.runs.study import write_csv

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "docs" / "pictures" / "init-study"
STUDIES = {"trainability": tables.trainability, "methods": tables.methods}


def tidy(rows: Sequence[Row]) -> list[Row]:
    """Rows with the same columns, by block, then seed; densities of layers as JSON. None where nothing is known."""
    columns = dict.fromkeys(name for row in rows for name in row)
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    ordered = sorted(rows, key=lambda row: (blocks.index(row["block"]), row["seed"]))
    return [{name: _plain(row.get(name)) for name in columns} for row in ordered]


def _plain(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict) else value


def read(path: Path) -> list[Row]:
    """The rows of a csv file that `tidy` made: numbers, true, false and nothing are what they were."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> object:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tables and pictures of pruning at initialisation.")
    parser.add_argument("--rows", type=Path, default=Path("runs/init"), help="the folder of the rows")
    parser.add_argument("--again", action="store_true", help="from the csv files, not from the rows")
    parser.add_argument("--smoke", action="store_true", help="of the rows of a smoke run")
    parser.add_argument("--into", type=Path, default=HERE / "results", help="where csv files and tables go")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="where pictures go")
    parser.add_argument("--no-pictures", action="store_true", help="csv files and tables alone")
    given = parser.parse_args(argv)
    for name, tell in STUDIES.items():
        file = given.rows / f"{name}{'-smoke' if given.smoke else ''}.jsonl"
        rows = read(given.into / f"{name}.csv") if given.again else tidy(rows_of(file))
        if not rows:
            continue
        given.into.mkdir(parents=True, exist_ok=True)
        write_csv(rows, given.into / f"{name}.csv")
        write_atomically(given.into / f"{name}.md", [tell(rows).encode()])
        minutes = sum(row["seconds"] for row in rows) / 60
        print(f"{name}: {len(rows)} rows, {minutes:.1f} minutes of one core: {given.into / f'{name}.md'}")
        if not given.no_pictures:
            sys.path.append(str(PICTURES.parent))
            from pictures import draw

            print(draw(name, rows, given.pictures / f"{name}.svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
