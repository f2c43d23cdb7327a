"""From the run folders of the study to tidy rows: runs.csv, rows.csv, layers.csv and counts.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsight import RunFolder
from sparsight.records import LevelRecord
from sparsight.runs.study import Trial, write_csv

Row = dict[str, Any]

NETWORKS = {"mlp": "mlp", "lenet-300-100": "lenet-300-100", "linear": "linear", "networks:cnn": "cnn"}
PAIRS = {(0.5, 1.0): "pq_05_1", (1.0, 2.0): "pq_1_2"}
WHOLE = ("seed", "level", "kept", "total", "steps", "levels", "d", "c", "rows", "empty_rows", "removed", "floors")
WORDS = (
    "run",
    "key",
    "command",
    "label",
    "kind",
    "network",
    "scope",
    "method",
    "status",
    "layer",
    "group",
    "why_ended",
)


def gather(study: Path, into: Path) -> tuple[int, int]:
    """Write the four tables of what has finished in the folder `study`; how many trials have, of how many.

    A run is named by the last ten characters of its key, a hash of everything that it was made with.
    """
    trials = json.loads((study / "study.json").read_bytes())["trials"]
    tables: dict[str, list[Row]] = {name: [] for name in ("runs", "rows", "layers", "counts")}
    for key, fields in trials.items():
        folder = study / "trials" / key
        if (folder / "run.json").exists():
            for name, found in _one(key, Trial(**fields), folder):
                tables[name].append(found)
    into.mkdir(parents=True, exist_ok=True)
    for name, found in tables.items():
        write_csv([{k: _short(k, v) for k, v in row.items()} for row in found], into / f"{name}.csv")
    return len(tables["runs"]), len(trials)


def about(key: str, trial: Trial) -> Row:
    """What the trial is, in the words of the tables."""
    own = {name: trial.arguments.get(name) for name in ("p", "q", "eta", "gamma", "beta", "rate")}
    kind = "ablation" if trial.label.startswith("ablation") else "grid"
    return {
        "run": key[-10:],
        "kind": kind,
        "network": NETWORKS.get(trial.model, trial.model),
        "scope": trial.arguments["scope"],
        "method": method(trial),
        **own,
        "seed": trial.seed,
    }


def method(trial: Trial) -> str:
    recipe = trial.recipe.rpartition(":")[2]
    if recipe != "sap":
        return {"lottery": "lottery ticket", "oneshot": "one-shot"}[recipe]
    return f"SAP ({trial.arguments['p']:g}, {trial.arguments['q']:g})"


def _one(key: str, trial: Trial, folder: Path) -> Iterator[tuple[str, Row]]:
    """The rows of one finished run, each with the name of its table; nothing of an unfinished one."""
    with RunFolder.open(folder) as run:
        record, evaluation = run.record, run.evaluation()
        if record.status != "finished" or evaluation is None:
            return
        levels = [level for level in run.levels() if level.role == "level"]
        tested = {entry.id: entry.test_accuracy for entry in evaluation.entries}
        what = about(key, trial)
        ended = {"levels": len(levels) - 1, "status": record.status, "why_ended": record.why_ended}
        yield "runs", {**what, **ended, "key": key, "label": trial.label, "command": _command(record.command)}
        so_far = 0.0
        for level in levels:
            so_far += level.epochs
            rows = {name: _rows(mask) for name, mask in run.masks(level).items()}
            yield "rows", {**what, **_level(level, so_far, levels[0].epochs, trial), "test_accuracy": tested[level.id]}
            for layer in level.layers:
                index = _indices(level, layer.pq if layer.kept else None)
                counted = dict(zip(("rows", "empty_rows"), rows[layer.name], strict=True))
                shares = {"kept": layer.kept, "total": layer.total, "density": layer.density}
                yield (
                    "layers",
                    {"run": what["run"], "level": level.level, "layer": layer.name, **shares, **counted, **index},
                )
            for found in _counts(what, level):
                yield "counts", found


def _level(level: LevelRecord, so_far: float, dense_epochs: float, trial: Trial) -> Row:
    """`needed_epochs`: a one-shot level needs the dense network and its own training, not the levels before it."""
    alone = trial.recipe.endswith("oneshot") and level.level > 0
    return {
        "level": level.level,
        "density": level.density,
        "kept": level.kept,
        "total": level.total,
        **_indices(level, level.pq),
        "epochs": level.epochs,
        "cumulative_epochs": so_far,
        "needed_epochs": dense_epochs + level.epochs if alone else so_far,
        "steps": level.steps,
        "removed": sum(group.c for group in level.groups),
        "floors": len(level.floors),
        "validation_accuracy": level.validation_accuracy,
    }


def _indices(level: LevelRecord, values: Sequence[float] | None) -> Row:
    known = dict(zip(level.pq_pairs, values, strict=True)) if values else {}
    return {name: known.get(pair) for pair, name in PAIRS.items()}


def _counts(what: Row, level: LevelRecord) -> Iterator[Row]:
    """What SAP measured and decided: each group of the global and layer scope; of the neuron scope at level 1."""
    if not what["method"].startswith("SAP") or (what["scope"] == "neuron" and level.level != 1):
        return
    for group in level.groups:
        measured = {"d": group.d, "index": repr(group.index), "r": repr(group.r), "c": group.c}
        floor = {"defined": group.defined, "floor_bound": group.floor_bound}
        yield {"run": what["run"], "level": level.level, "group": group.name, **measured, **floor}


def _rows(mask: Tensor) -> tuple[int, int]:
    """(output rows, those without any weight) of a tensor."""
    alive = mask.flatten(1).any(1)
    return len(alive), int((~alive).sum())


def _command(words: str | None) -> str | None:
    """The command of the run without the place where it was put."""
    kept = (words or "").split()
    if "--out" in kept:
        at = kept.index("--out")
        kept = kept[:at] + kept[at + 2 :]
    return " ".join(word for word in kept if word != "--resume") or None


def _short(name: str, value: Any) -> Any:
    return float(f"{value:.8g}") if isinstance(value, float) else value


def read(path: Path) -> list[Row]:
    """The rows of one of the tables, numbers as numbers; what is empty is None."""
    with open(path, newline="") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    if name in WORDS:
        return text
    if text in ("True", "False"):
        return text == "True"
    return int(text) if name in WHOLE else float(text)


def with_runs(rows: Sequence[Row], runs: Mapping[str, Row]) -> list[Row]:
    """Rows of layers.csv or counts.csv with what is known of their run."""
    return [{**runs[row["run"]], **row} for row in rows]
