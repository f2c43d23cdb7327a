"""From the run folders of the study to its rows, tables and pictures.

    python studies/pq_index/results.py runs/pq-index      rows, tables and pictures of what has finished so far
    python studies/pq_index/results.py                    tables and pictures again, from the rows alone

Rows and tables go to studies/pq_index/results (--into), pictures to docs/pictures/pq-index (--pictures). The tables
and pictures are computed from the csv files of the rows, not from the runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import contests
import tables
from gather import gather, read
from runs import Run, cells, runs_of
from summary import summary

from sparsight.records.files import write_atomically
from sparsight.runs.study import write_csv

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "docs" / "pictures" / "pq-index"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rows, tables and pictures of the PQ-index study.")
    parser.add_argument("study", type=Path, nargs="?", help="the folder of the study; without it from the rows alone")
    parser.add_argument("--into", type=Path, default=HERE / "results", help="where rows and tables are")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="where pictures go")
    parser.add_argument("--no-pictures", action="store_true", help="rows and tables alone")
    given = parser.parse_args(argv)
    if given.study is not None:
        finished, planned = gather(given.study, given.into)
        text = json.dumps({"finished": finished, "planned": planned}) + "\n"
        write_atomically(given.into / "finished.json", [text.encode()])
    runs = tell(given.into)
    if not given.no_pictures and runs:
        sys.path.append(str(PICTURES.parent))
        from pictures import draw

        for path in draw(runs, given.pictures, HERE / "cifar10_trajectories.json"):
            print(path)
    return 0


def tell(into: Path) -> list[Run]:
    """Write the tables of the rows in `into`, and return the runs."""
    known = json.loads((into / "finished.json").read_bytes())
    about, counts = read(into / "runs.csv"), read(into / "counts.csv")
    runs = runs_of(about, read(into / "rows.csv"), read(into / "layers.csv"))
    grid = cells(runs)
    made = {
        "shapes": tables.shapes(grid),
        "losses": tables.losses(grid),
        "equal_density": contests.equal_density(grid),
        "equal_epochs": contests.equal_epochs(grid),
        "epochs_to": contests.epochs_to(grid),
        "robustness": tables.robustness(grid),
        "checks": tables.checks(runs, counts),
        "ablations": tables.ablations(runs, counts),
    }
    for name, rows in made.items():
        write_csv(rows, into / f"{name}.csv")
    text = summary(known["finished"], known["planned"], made)
    write_atomically(into / "summary.md", [text.encode()])
    print(f"{known['finished']} of {known['planned']} trials have finished: {into / 'summary.md'}")
    return runs


if __name__ == "__main__":
    sys.exit(main())
