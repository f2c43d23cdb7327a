"""From the run folders of the study to its rows and tables.

    python studies/comparison/results.py OUT...           evaluates what has finished, then writes rows and tables
    python studies/comparison/results.py OUT --latency    adds the latency of seed 0's networks: on a quiet machine
    python studies/comparison/results.py                  tables again, from the rows alone

From the root of the repository. Rows go to studies/comparison/results/rows.csv, one for each run and metric; tables to
tables.md beside it. What has been evaluated is kept in the run folders and not evaluated again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from images import fashion_10k
from networks import small_cnn

from sparsight.compare import Corrupted, evaluate, stored
from sparsight.compare.evaluation import predictions
from sparsight.compare.evaluation.evaluate import Family
from sparsight.compare.statistics import ranking
from sparsight.numerics.intervals import mean, paired
from sparsight.records.files import write_atomically
from sparsight.runs.study import Trial, read_study, write_csv

HERE = Path(__file__).resolve().parent
FAMILIES: tuple[Family, ...] = ("accuracy", "classes", "calibration", "corruptions", "structure", "size")
METRICS = {
    "accuracy", "nll", "ece", "brier", "class_accuracy", "worst_class_accuracy", "corrupted_accuracy",
    "robust_accuracy", "packed_bytes", "latency", "dead_outputs",
}  # fmt: skip
SEVERITY, SAMPLES = 3, 2000
NETWORKS = {"lenet-300-100": "LeNet-300-100", "studies.comparison.networks:small_cnn": "LeNet-5"}
DENSE, REFERENCE = "dense", "lottery ticket"
Row = dict[str, Any]


def gathered(finished: Mapping[Path, Trial], latency: bool) -> Iterator[Row]:
    """A row for each run and metric of the network that it chose."""
    data, corrupted = fashion_10k(), Corrupted(severities=(SEVERITY,), samples=SAMPLES)
    for folder, trial in finished.items():
        model = None if ":" not in trial.model else small_cnn()
        measured: tuple[Family, ...] = ("latency",) if latency and trial.seed == 0 else ()
        found = evaluate(folder, (*FAMILIES, *measured), corrupted=corrupted, model=model, data=data)
        last = max(row["level"] for row in found.rows if row["role"] == "level")
        for row in (*found.rows, *(() if measured else stored(folder, ["latency"]).rows)):
            if row["metric"] in METRICS and row["level"] == last and row["role"] == "level":
                yield {**_about(trial), "metric": row["metric"], "group": row["group"], "value": row["value"]}
        print(folder.name, flush=True)


def _about(trial: Trial) -> Row:
    density = round(float(trial.arguments.get("target_density", trial.arguments.get("density", 1.0))), 4)
    return {"network": NETWORKS[trial.model], "density": density, "method": trial.label, "seed": trial.seed}


def harmed(finished: Mapping[Path, Trial]) -> Iterator[Row]:
    """Rows for the class that loses most accuracy beside the dense network of the same seed."""
    dense = {(t.model, t.seed): folder for folder, t in finished.items() if t.label == DENSE}
    for folder, trial in finished.items():
        if trial.label == DENSE or (trial.model, trial.seed) not in dense:
            continue
        mine, theirs = _right(folder), _right(dense[trial.model, trial.seed])
        labels = predictions(folder)["labels"]
        lost = [float((theirs[labels == c].float() - mine[labels == c].float()).mean()) for c in labels.unique()]
        yield {**_about(trial), "metric": "largest_class_loss", "group": "", "value": max(lost)}


def _right(folder: Path) -> torch.Tensor:
    """Which test samples the chosen network gets right."""
    found = predictions(folder)
    labels = found.pop("labels")
    (last,) = list(found.values())[-1:]
    return last == labels


# -- tables ------------------------------------------------------------------------------------------------------


def tables(found: Sequence[Row]) -> str:
    """The page of tables: means over seeds with 95 % Student-t intervals, and orders as far as noise allows them."""
    parts = ["# All methods at one budget: tables",
             "Written by `studies/comparison/results.py` from `rows.csv`: means over seeds ± the half-width of a 95 %\n"
             "Student-t interval; in points, but for nats, bytes and milliseconds."]  # fmt: skip
    densities = sorted({r["density"] for r in found if r["density"] < 1}, reverse=True)
    parts += [_table(found, network, density) for network in NETWORKS.values() for density in densities]
    return "\n\n".join(parts) + "\n"


COLUMNS = {  # heading: (metric, group, scale, digits)
    "accuracy": ("accuracy", "", 100, 2), "worst class": ("worst_class_accuracy", "", 100, 1),
    "most that a class loses": ("largest_class_loss", "", 100, 1), "ECE": ("ece", "", 100, 2),
    "NLL, nats": ("nll", "", 1, 3), "14 corruptions": ("robust_accuracy", "", 100, 1),
    "packed, kB": ("packed_bytes", "", 1e-3, 1), "ms": ("latency", "sparsight, batch 1, 1 thread", 1e3, 3),
}  # fmt: skip


def _table(found: Sequence[Row], network: str, density: float) -> str:
    here = [r for r in found if r["network"] == network and r["density"] in (density, 1.0)]
    methods = list(dict.fromkeys(r["method"] for r in here))
    accuracy = {name: _by_seed(here, name, "accuracy") for name in methods}
    order = ranking({name: v for name, v in accuracy.items() if name != DENSE})
    head = ["method", "seeds", *COLUMNS, f"accuracy − {REFERENCE}", "place"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in (n for n in (DENSE, *order.names) if n in accuracy):
        cells = [_cell(_by_seed(here, name, metric, group).values(), scale, digits)
                 for metric, group, scale, digits in COLUMNS.values()]  # fmt: skip
        beside = paired(accuracy[name], accuracy.get(REFERENCE, {}))
        if name in (DENSE, REFERENCE) or beside is None or beside.half_width is None:
            apart = "–"
        else:
            apart = f"{100 * beside.mean:+.2f} ± {100 * beside.half_width:.2f}"
        low, high = order.places.get(name, ("–", "–"))
        lines.append([name, str(len(accuracy[name])), *cells, apart, f"{low}" if low == high else f"{low} to {high}"])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"## {network}, {100 * density:g} % of the weights\n\n{text}"


def _by_seed(found: Iterable[Row], method: str, metric: str, group: str = "") -> dict[int, float]:
    return {r["seed"]: r["value"] for r in found
            if r["method"] == method and r["metric"] == metric and (not group or r["group"] == group)}  # fmt: skip


def _cell(values: Iterable[float], scale: float, digits: int) -> str:
    found = mean([scale * value for value in values])
    if found is None:
        return "–"
    return f"{found.mean:.{digits}f}" + ("" if found.half_width is None else f" ± {found.half_width:.{digits}f}")


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [{**row, "density": float(row["density"]), "seed": int(row["seed"]), "value": float(row["value"])}
                for row in csv.DictReader(file)]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rows and tables of the comparison of all methods.")
    parser.add_argument("studies", type=Path, nargs="*", help="folders of the study; without any, from the rows alone")
    parser.add_argument("--latency", action="store_true", help="measure the latency of seed 0's networks too")
    parser.add_argument("--into", type=Path, default=HERE / "results", help="where rows and tables are")
    given = parser.parse_args(argv)
    given.into.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    if given.studies:
        trials = {s / "trials" / k: t for s in given.studies for k, t in read_study(s)[0].items()}
        finished = {folder: trial for folder, trial in trials.items() if (folder / "evaluation.json").exists()}
        write_csv([*gathered(finished, given.latency), *harmed(finished)], given.into / "rows.csv")
    write_atomically(given.into / "tables.md", [tables(read(given.into / "rows.csv")).encode()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
