"""From the run folders of the study to tidy rows: runs.csv, and levels.csv with a row for every level."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsight import RunFolder
from sparsight.runs.study import Trial, write_csv

Row = dict[str, Any]

WHOLE = ("seed", "level", "levels", "kept", "total", "middle_levels", "forward", "backward", "threads")
WORDS = ("run", "key", "command", "block", "rule", "setting", "reason", "stop")
TIMES = ("prune", "train", "validate", "measure", "store")


def gather(study: Path, into: Path) -> tuple[int, int]:
    """Write the two tables of what has finished in the folder `study`; how many trials have, of how many.

    A run is named by the last ten characters of its key, a hash of everything that it was made with.
    """
    trials = json.loads((study / "study.json").read_bytes())["trials"]
    runs, levels = [], []
    for key, fields in trials.items():
        folder = study / "trials" / key
        if (folder / "run.json").exists():
            found = _one(key, Trial(**fields), folder)
            if found is not None:
                runs.append(found[0])
                levels += found[1]
    into.mkdir(parents=True, exist_ok=True)
    for name, rows in (("runs", runs), ("levels", levels)):
        write_csv([{k: short(v) for k, v in row.items()} for row in rows], into / f"{name}.csv")
    return len(runs), len(trials)


def _one(key: str, trial: Trial, folder: Path) -> tuple[Row, list[Row]] | None:
    """The row of a finished run and those of its levels; None of an unfinished one."""
    with RunFolder.open(folder) as run:
        record, evaluation, times = run.record, run.evaluation(), run.times()
        if record.status != "finished" or evaluation is None:
            return None
        done = [level for level in run.levels() if level.role == "level"]
    tested = {entry.id: entry.test_accuracy for entry in evaluation.entries}
    seconds = {spent.level: {f"seconds_{what}": getattr(spent, what) for what in TIMES} for spent in times}
    levels = []
    for level in done:
        row: Row = {"run": key[-10:], "level": level.level, "density": level.density, "kept": level.kept}
        row |= {"total": level.total, "epochs": level.epochs, "validation_accuracy": level.validation_accuracy}
        row |= {"test_accuracy": tested[level.id], **_passes(level.observations)}
        row |= seconds.get(level.level, {f"seconds_{what}": None for what in TIMES})
        levels.append({**row, "reason": level.reason, "stop": json.dumps(level.operation["stop"])})
    block, rule, setting = trial.label.partition(":")[0], trial.arguments["rule"], trial.arguments["setting"]
    what: Row = {"run": key[-10:], "block": block, "rule": rule, "setting": setting, "seed": trial.seed}
    environment = {"threads": record.environment.get("threads"), "key": key, "command": _command(record.command)}
    return {**what, **of_levels(levels), **environment}, levels


def of_levels(levels: Sequence[Row]) -> Row:
    """What a run has cost in all, and how good its first and its last level are."""
    first, last, middle = levels[0], levels[-1], levels[1:-1]
    spent = math.fsum(row["epochs"] for row in middle)
    row: Row = {"levels": len(levels) - 1, "density": last["density"], "kept": last["kept"], "total": last["total"]}
    row |= {"epochs": first["epochs"] + spent + last["epochs"], "middle_levels": len(middle), "middle_epochs": spent}
    row |= {"mean_middle_epochs": spent / len(middle) if middle else None}
    row |= {"first_epochs": first["epochs"], "last_epochs": last["epochs"]}
    for what in (*(f"seconds_{name}" for name in TIMES), "forward", "backward"):
        known = [level[what] for level in levels if level[what] is not None]
        row[what] = sum(known) if len(known) == len(levels) else None
    for split in ("validation", "test"):
        row |= {f"dense_{split}_accuracy": first[f"{split}_accuracy"], f"{split}_accuracy": last[f"{split}_accuracy"]}
    return row


def _passes(observations: Sequence[Any]) -> Row:
    """Samples that measuring passed through a network, forward and backward."""
    return {
        what: round(sum(seen.values.get(f"cost:{what} samples", 0.0) for seen in observations))
        for what in ("forward", "backward")
    }


def _command(words: str | None) -> str | None:
    """The command of the run without the place where it was put."""
    kept = (words or "").split()
    if "--out" in kept:
        at = kept.index("--out")
        kept = kept[:at] + kept[at + 2 :]
    return " ".join(word for word in kept if word != "--resume") or None


def short(value: Any) -> Any:
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
    return int(text) if name in WHOLE else float(text)
