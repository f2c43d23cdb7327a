"""The CNN of the stopping study pruned in several ways, with the full budget: SiPP by each reduction, and refilled.

    python studies/stopping/ways.py --out runs/ways --workers 2      run what has not finished, then write the rows
    python studies/stopping/ways.py --out runs/ways --rows           rows of what has finished so far

Block cnn-sipp of `study.py` with the rule `fixed 9`: 12 000 images of Fashion-MNIST, 12-24-48 channels with batch norm,
densities 0.7, 0.49, ... 0.0577 (781 of 13 548 weights), 9 epochs a level, weights that go on. The same command goes on
after any end of it; seed 100 of every way comes before seed 101. Rows go to `results-sipp/ways.csv`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gather import Row, short
from study import LATER, _run

from sparsight import RunFolder
from sparsight.runs.study import Trial, write_csv

HERE = Path(__file__).resolve().parent
SEEDS = (100, 101)
WAYS: dict[str, dict[str, Any]] = {
    "det, mean": {"by": "det"},
    "det, mean, refilled": {"by": "det", "refill": True},
    "hybrid, refilled": {"by": "hybrid", "refill": True},
    "magnitude": {"by": "magnitude"},
    "magnitude, refilled": {"by": "magnitude", "refill": True},
    "hybrid": {"by": "hybrid"},
    "det, maximum": {"by": "det", "reduction": "max"},
}


def trials(seeds: Sequence[int] = SEEDS) -> list[Trial]:
    """Every way with the seeds of the block, seed by seed."""
    block = LATER["cnn-sipp"]
    shared = {**block.arguments, "rule": "fixed", "setting": "9", "epochs": 9}
    return [
        Trial(block.recipe, {**shared, **own}, seed, block.model, block.data, label=way)
        for seed in seeds
        for way, own in WAYS.items()
    ]


def rows(out: Path) -> list[Row]:
    """A row for every level of every finished run."""
    found = []
    for key, fields in json.loads((out / "study.json").read_bytes())["trials"].items():
        folder, trial = out / "trials" / key, Trial(**fields)
        if not (folder / "run.json").exists():
            continue
        with RunFolder.open(folder) as run:
            evaluation = run.evaluation()
            if run.record.status != "finished" or evaluation is None:
                continue
            levels = [level for level in run.levels() if level.role == "level"]
        tested = {entry.id: entry.test_accuracy for entry in evaluation.entries}
        for level in levels:
            row: Row = {"way": trial.label, "seed": trial.seed, "level": level.level, "kept": level.kept}
            row |= {layer.name: layer.kept for layer in level.layers}
            accuracies = {"validation_accuracy": level.validation_accuracy, "test_accuracy": tested[level.id]}
            found.append({name: short(value) for name, value in {**row, **accuracies, "epochs": level.epochs}.items()})
    return sorted(found, key=lambda row: (list(WAYS).index(row["way"]), row["seed"], row["level"]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The CNN of the stopping study, pruned in several ways.")
    parser.add_argument("--out", type=Path, default=Path("runs/ways"), help="the folder of the runs")
    parser.add_argument("--workers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="the seeds")
    parser.add_argument("--rows", action="store_true", help="run nothing, write the rows")
    parser.add_argument("--into", type=Path, default=HERE / "results-sipp", help="where the rows go")
    given = parser.parse_args(argv)
    failed = 0 if given.rows else _run(trials(given.seeds), given.out, given.workers)
    found = rows(given.out)
    write_csv(found, given.into / "ways.csv")
    print(f"{len({(row['way'], row['seed']) for row in found})} runs: {given.into / 'ways.csv'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
