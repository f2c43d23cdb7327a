"""The results of a study: tidy rows, means and intervals over seeds, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsight.numerics.intervals import mean
from sparsight.records.files import canonical
from sparsight.records.outputs import write_output
from sparsight.records.record import LevelRecord, RunRecord
from sparsight.records.trials import Trial, begun, read_study
from sparsight.records.verify import whole
from sparsight.report.escape import printable
from sparsight.report.table import as_csv
from sparsight.train.batches import USUAL
from sparsight.train.metric import ACCURACY

Row = dict[str, Any]

COSTS = ("cumulative_epochs", "cumulative_steps", "forward_equivalents", "seconds")
"""The columns of a run's cost up to a level."""


def rows(out: Path) -> list[Row]:
    """One row per trial and level, including the dense control, of the study in `out`, finished or not.

    Columns: those of the trial (arguments and options as JSON), status, level, role, density, kept, total, a PQ index
    for each recorded pair ("pq(1, 2)"), epochs, steps, the cost of the run so far (cumulative_epochs, cumulative_steps,
    forward_equivalents, seconds; with shared training; the control's own), validation_accuracy, test_accuracy, the
    same for the metric that chooses levels if it is another, chosen, reason. Every row has all columns; None: unknown.

    Raises: FileNotFoundError if `out` holds no study; DamagedFile for study.json or a file of a run.
    """
    found: list[Row] = []
    for key, trial in read_study(out)[0].items():
        folder = out / "trials" / key
        if begun(folder):
            found += _trial_rows(trial, folder)
    pairs = dict.fromkeys(name for row in found for name in row if name.startswith("pq("))
    judged = dict.fromkeys(name for row in found for name in row if name.startswith(("validation_", "test_")))
    last = ("epochs", "cumulative_epochs", "steps", *COSTS[1:], *judged, "chosen", "reason")
    first = [name for name in (found[0] if found else ()) if name not in pairs and name not in last]
    return [{name: row.get(name) for name in (*first, *pairs, *last)} for row in found]


def _trial_rows(trial: Trial, folder: Path) -> list[Row]:
    with whole(folder) as run:
        record, levels, evaluation = run.record, run.levels(), run.evaluation()
        times = {(t.level, t.role): t.total for t in run.times()}
    tested = {entry.id: entry for entry in evaluation.entries} if evaluation else {}
    about = {
        "label": trial.label,
        "recipe": trial.recipe,
        "arguments": canonical(dict(trial.arguments)),
        "options": canonical(dict(trial.options)),
        "seed": trial.seed,
        "model": trial.model,
        "data": trial.data,
        "status": record.status,
    }
    so_far: tuple[float | None, ...] = (0,) * len(COSTS)
    found: list[Row] = []
    for level in levels:
        cost = (level.epochs, level.steps, forward_equivalents(record, level), times.get((level.level, level.role)))
        if level.role == "level":
            both = zip(so_far, cost, strict=True)
            cost = so_far = tuple(None if a is None or b is None else a + b for a, b in both)
        chosen = record.chosen is not None and record.chosen.id == level.id
        found.append({**about, **_level_row(level), **dict(zip(COSTS, cost, strict=True)), "chosen": chosen})
        for metric in dict.fromkeys((ACCURACY, level.metric)):
            found[-1][f"validation_{metric.name}"] = (
                level.observations[-1].value(metric) if level.observations else None
            )
            found[-1][f"test_{metric.name}"] = tested[level.id].value(metric) if level.id in tested else None
    return found


def _level_row(level: LevelRecord) -> Row:
    return {
        "level": level.level,
        "role": level.role,
        "density": level.density,
        "kept": level.kept,
        "total": level.total,
        **{f"pq({p:g}, {q:g})": x for (p, q), x in zip(level.pq_pairs, level.pq, strict=True)},
        "epochs": level.epochs,
        "steps": level.steps,
        "reason": level.reason,
    }


def summarise(rows: Iterable[Row], by: Sequence[str], value: str, confidence: float = 0.95) -> list[Row]:
    """n, mean, sample standard deviation and half-width of the Student-t interval of `value`, for equal `by`.

    Computed by `mean`. Leaves out rows without a value. For n = 1, deviation and half-width are None. Groups are in
    order of appearance. Raises: KeyError if a row lacks a column; ValueError unless 0 < confidence < 1.
    """
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row[value] is not None:
            groups.setdefault(tuple(row[name] for name in by), []).append(row[value])
    found = []
    for at, values in groups.items():
        over = mean(values, confidence)
        assert over is not None  # a group has a value, or it would not be one
        numbers = {"n": over.n, "mean": over.mean, "standard_deviation": over.deviation, "half_width": over.half_width}
        found.append({**dict(zip(by, at, strict=True)), "value": value, **numbers})
    return found


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV to a file, a device or "-" (`write_output`), with numbers in full and None as an empty cell."""
    write_output(path, [as_csv(rows).encode()])


def write_markdown(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a Markdown table, as `write_csv` does, with numbers to five significant digits."""
    lines = [map(_cell, rows[0]), ["---"] * len(rows[0]), *(map(_cell, row.values()) for row in rows)] if rows else []
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_output(path, [text.encode()])


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")


# -- costs, counted in the same way for every method, including shared training -------------------------------

FORWARD, BACKWARD = 1.0, 2.0
"""Costs in forward passes: a backward pass computes two products for each one of a forward pass."""

PASSES = {"SiPP": FORWARD, "GraSP": 3 * (FORWARD + BACKWARD)}
"""Costs of scorers other than one gradient: SiPP reads activations; GraSP differentiates its gradient again."""


def forward_equivalents(run: RunRecord, level: LevelRecord) -> float | None:
    """The cost of a level in forward passes of one sample: training, validation, scores, measurements of its rule.

    3 for each sample of training, 1 of validation; in each round of scores, 3 for each sample, 1 with SiPP, 9 with
    GraSP; SynFlow scores a single sample. None if the length of a split is unknown.
    """
    splits = run.data.get("splits", {})
    trained, validated = ((splits.get(name) or {}).get("samples") for name in ("train", "validation"))
    if trained is None or validated is None:
        return None
    found = (FORWARD + BACKWARD) * level.epochs * trained + FORWARD * len(level.observations) * validated
    for seen in level.observations:
        found += FORWARD * seen.values.get("cost:forward samples", 0.0)
        found += BACKWARD * seen.values.get("cost:backward samples", 0.0)
    return found + _scored(run.description, level.operation, trained)


def _scored(recipe: Mapping[str, Any], operation: Mapping[str, Any], trained: int) -> float:
    scoring = recipe.get("score") or {}
    rounds, batches = len(operation.get("rounds") or ()), scoring.get("batches", 0)
    scorer = scoring.get("scorer") or {}
    scorer = scorer.get("score", scorer) if isinstance(scorer, dict) else {}
    kind = scorer.get("type") if isinstance(scorer, dict) else None
    if kind == "SynFlow":
        return rounds * (FORWARD + BACKWARD)
    samples = min(trained, batches * (_batch_size(recipe.get("levels")) or USUAL))
    return rounds * samples * PASSES.get(str(kind), FORWARD + BACKWARD)


def _batch_size(levels: Any) -> int | None:
    """The batch size of level 0's plan, also used by the scorer: the first in the description of the levels."""
    parts = levels if isinstance(levels, list) else [*levels.values()] if isinstance(levels, dict) else []
    if isinstance(levels, dict) and "batch_size" in levels:
        return levels["batch_size"]
    return next((size for part in parts if (size := _batch_size(part)) is not None), None)
