"""Evaluates the networks of a run as tidy rows, reusing stored measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sparsight.compare.evaluation import derived
from sparsight.compare.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from sparsight.compare.evaluation.metrics import CLEAN, share
from sparsight.compare.evaluation.networks import Networks
from sparsight.compare.verdict.verdict import report
from sparsight.deploy.ledger.of_run import of_run
from sparsight.deploy.ledger.records import Ledger, Request
from sparsight.numerics.checks import check_known, check_whole
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord, dense_of
from sparsight.records.rows import Row, store_predictions, store_rows, stored_predictions, stored_rows
from sparsight.types import Data

Family = Literal[
    "accuracy", "classes", "agreement", "calibration", "corruptions", "potential", "structure", "size", "latency"
]
FAMILIES: tuple[Family, ...] = get_args(Family)
USUAL: tuple[Family, ...] = ("accuracy", "classes", "agreement", "calibration", "potential", "structure", "size")
"""The default: all families that take only seconds."""

OF_THE_TEST_SPLIT = frozenset({"accuracy", "classes", "agreement", "calibration", "corruptions", "potential"})

_SIZES = ("alive", "dense_bytes", "packed_bytes", "floor_bytes", "dense_macs", "effective_macs")
_STORED: Mapping[Family, tuple[str, ...]] = {
    "accuracy": ("accuracy", "nll"),
    "calibration": ("ece", "brier"),
    "size": _SIZES,
    "latency": ("latency", "speedup", "faster"),
}
"""Families with rows that are stored as they are shown, and their metrics."""


@dataclass(frozen=True)
class Corrupted:
    """Which corruptions, at which severities, on how many test images (the same share of each class).

    Raises: ValueError for an unknown one, or fewer than 1 image.
    """

    names: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = SEVERITIES
    samples: int = 2000

    def __post_init__(self) -> None:
        for name in self.names:
            check_known(tuple(CORRUPTIONS), corruption=name)
        for severity in self.severities:
            check_known(SEVERITIES, severity=severity)
        check_whole(1, samples=self.samples)


@dataclass(frozen=True)
class Evaluated:
    """Tidy rows, each a dictionary with the same keys, and what could not be measured."""

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


def evaluate(
    run: Path | str,
    metrics: Sequence[Family] = USUAL,
    *,
    levels: Sequence[int] | None = None,
    corrupted: Corrupted = Corrupted(),
    model: str | nn.Module | None = None,
    data: str | Data | None = None,
) -> Evaluated:
    """Evaluate a finished run's networks on disk, or only those of `levels`, by families of metrics.

    Each network reads the test split once for all metrics without corruption. Results are stored in the run folder
    (rows.json, predictions.safetensors); later calls measure only what is new. The dense parent is the run's dense
    level, otherwise its dense control. Pass `model` and `data` unless they come from the zoo.

    Row: run, recipe, seed, level, role, density, metric, group (class, corruption, layer or runtime), severity, value,
    low, high (95 %), n. Rows about the whole run, the prune potentials, have no level.

    Raises: ValueError for an unknown metric or level, an unfinished run, other data than the run's, or a network that
    does not score classes; FileNotFoundError, DamagedFile, LockedRun.
    """
    for name in metrics:
        check_known(FAMILIES, metric=name)
    path = Path(run)
    with RunFolder.open(path, write=True) as folder:
        if folder.record.status != "finished":
            raise ValueError(
                f"cannot evaluate {path}: the run is {folder.record.status}, and only a finished run may read the test "
                "split: resume it first (--resume)"
            )
        work = _Work(folder, Networks(folder, model, data), corrupted)
        wanted, notes = _wanted(folder, levels)
        measured = work.measured(metrics, wanted)
        if measured and not (path / "report.html").exists():
            report(folder)
        return Evaluated(tuple(work.table(metrics, wanted)), (*notes, *work.notes))


def stored(run: Path | str, metrics: Sequence[Family] = FAMILIES) -> Evaluated:
    """The rows stored for a run, and those computed from them. Measures nothing. Raises: as `RunFolder.open`."""
    with RunFolder.open(Path(run)) as folder:
        rows = [row for row in stored_rows(folder) if row.metric == "corrupted_accuracy"]
        most = max((row.n or 0 for row in rows), default=1)
        work = _Work(folder, Networks(folder), replace(Corrupted(), samples=most))
        there = {row.id for row in work.rows}
        return Evaluated(tuple(work.table(metrics, [x for x in folder.levels() if x.id in there])))


def _wanted(folder: RunFolder, levels: Sequence[int] | None) -> tuple[list[LevelRecord], tuple[str, ...]]:
    """The requested records with weights on disk, and a note about the others."""
    every = folder.levels()
    if levels is not None:
        known = {x.level: x for x in every if x.role == "level"}
        for level in levels:
            if level not in known:
                raise ValueError(f"{folder.path} has no level {level}: expected one of {', '.join(map(str, known))}")
        every = tuple(known[level] for level in dict.fromkeys(levels))
    gone = [f"{x.role} {x.level}" for x in every if not folder.keeps(x)]
    keep = folder.record.keep
    notes = (f"not evaluated, because not kept on disk (keep={keep!r}): {', '.join(gone)}",) if gone else ()
    return [x for x in every if folder.keeps(x)], notes


class _Work:
    """A run's stored measurements, and the means to add missing ones."""

    def __init__(self, folder: RunFolder, networks: Networks, corrupted: Corrupted) -> None:
        self.folder, self.networks, self.corrupted = folder, networks, corrupted
        self.rows, self.predictions = list(stored_rows(folder)), stored_predictions(folder)
        self.parent = dense_of(folder.levels())
        self.notes: list[str] = []
        sizes = folder.record.data.get("splits", {}).get("test") or {}
        self.samples = min(corrupted.samples, sizes.get("samples", corrupted.samples))

    def measured(self, metrics: Sequence[Family], wanted: Sequence[LevelRecord]) -> bool:
        """Measure and store what is missing, network by network. Returns whether anything was."""
        before = len(self.rows)
        records = self._with_parent(wanted) if OF_THE_TEST_SPLIT & {*metrics} else []
        for record in records:
            if record.id not in self.predictions or not self._of(record, "accuracy"):
                self._store(self._clean(record))
        if "corruptions" in metrics:
            self._corrupt(records)
        for record in wanted:
            if "size" in metrics and not self._of(record, "dense_bytes"):
                counted = self._ledger(record).counted
                sizes = {name: getattr(counted, name) for name in _SIZES}
                self._store([derived.row(record, name, size) for name, size in sizes.items() if size is not None])
            if "latency" in metrics and not self._of(record, "latency"):
                self._store(list(_latencies(record, self._ledger(record, Request()))))
        return len(self.rows) > before

    def _ledger(self, record: LevelRecord, measure: Request | None = None) -> Ledger:
        model = None if self.networks.model is None else self.networks.module
        found = of_run(self.folder, record, model=model, measure=measure)
        gone = {name: why for name, why in found.missing.items() if name in (("latency",) if measure else _SIZES)}
        named = f"{record.role} {record.level}"
        self.notes += [f"{named} has no {name.replace('_', ' ')}: {why}" for name, why in gone.items()]
        return found

    def _with_parent(self, wanted: Sequence[LevelRecord]) -> list[LevelRecord]:
        """The records, with the dense parent first if it is on disk."""
        parent, keep = self.parent, self.folder.record.keep
        if parent is not None and self.folder.keeps(parent):
            return [parent, *(x for x in wanted if x.id != parent.id)]
        if parent is not None and parent.id not in self.predictions:
            self.notes.append(
                f"nothing is compared with the dense network, which was not kept (keep={keep!r}): run with --keep all"
            )
        return list(wanted)

    def _store(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        new = {(row.id, row.metric, row.group, row.severity, row.n) for row in rows}
        kept = [r for r in self.rows if (r.id, r.metric, r.group, r.severity, r.n) not in new]
        self.rows = [*kept, *rows]
        store_rows(self.folder, self.rows)

    def _clean(self, record: LevelRecord) -> list[Row]:
        """The rows of the test split. Stores predictions, also those for the validation split, which verdicts use."""
        outputs, validation = self.networks.outputs(record), self.networks.outputs(record, self.networks.validation)
        for name, values in ((record.id, validation.predictions), ("labels", validation.labels)):
            self.predictions[f"validation {name}"] = values.to(torch.int32)
        self.predictions[record.id] = outputs.predictions.to(torch.int32)
        self.predictions["labels"] = outputs.labels.to(torch.int32)
        store_predictions(self.folder, self.predictions)
        return [derived.row(record, name, function(outputs)) for name, function in CLEAN]

    def _corrupt(self, records: Sequence[LevelRecord]) -> None:
        """Evaluate on corrupted images, making each corruption once for all networks."""
        known = {(r.id, r.group, r.severity) for x in records for r in self._of(x, "corrupted_accuracy")}
        asked = [(name, severity) for name in self.corrupted.names for severity in self.corrupted.severities]
        for name, severity in [("none", 0), *asked]:
            split, found = None, []
            for record in records:
                if (record.id, name, severity) not in known:
                    split = split or self.networks.corrupted(name, severity, self.samples)
                    right = self.networks.outputs(record, split).right
                    found.append(derived.row(record, "corrupted_accuracy", share(right), name, severity))
            self._store(found)

    def _of(self, record: LevelRecord, metric: str) -> list[Row]:
        found = [row for row in self.rows if row.id == record.id and row.metric == metric]
        return [row for row in found if row.n == self.samples] if metric == "corrupted_accuracy" else found

    # -- the table -------------------------------------------------------------------------------------------------

    def table(self, metrics: Sequence[Family], wanted: Sequence[LevelRecord]) -> Iterator[dict[str, Any]]:
        run = self.folder.record
        about = {"run": str(self.folder.path), "recipe": run.recipe, "seed": run.seed}
        for record in wanted:
            where = {**about, "level": record.level, "role": record.role, "density": record.density}
            for name in FAMILIES:
                found = self._family(name, record) if name in metrics else ()
                yield from (where | _numbers(row) for row in found)
        if "potential" in metrics:
            where = {**about, "level": None, "role": "run", "density": None}
            yield from (where | _numbers(row) for row in self._potentials(wanted))

    def _family(self, name: Family, record: LevelRecord) -> Iterator[Row]:
        for metric in _STORED.get(name, ()):
            yield from self._of(record, metric)
        if name == "classes" and record.id in self.predictions:
            yield from derived.by_class(record, self.predictions, self.parent, self.folder.record.data)
        elif name == "agreement" and record.id in self.predictions:
            yield from derived.against_parent(record, self.predictions, self.parent)
        elif name == "corruptions":
            yield from self._asked(record)
            if (mine := self._errors(record)) is not None:
                yield from derived.robustness(record, mine, self._errors(self.parent))
        elif name == "structure":
            yield from derived.structure(record)

    def _asked(self, record: LevelRecord) -> list[Row]:
        names, severities = {*self.corrupted.names, "none"}, {*self.corrupted.severities, 0}
        found = self._of(record, "corrupted_accuracy")
        return [row for row in found if row.group in names and row.severity in severities]

    def _errors(self, record: LevelRecord | None) -> derived.Errors | None:
        return None if record is None else derived.errors_of(self._asked(record))

    def _potentials(self, wanted: Sequence[LevelRecord]) -> Iterator[Row]:
        if self.parent is not None:
            every = [*wanted, self.parent]
            errors = {x.id: found for x in every if (found := self._errors(x)) is not None}
            accuracies = {row.id: row.value for row in self.rows if row.metric == "accuracy"}
            yield from derived.potentials(wanted, accuracies, errors, self.parent)


def _numbers(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("metric", "group", "severity", "value", "low", "high", "n")}


def _latencies(record: LevelRecord, found: Ledger) -> Iterator[Row]:
    """For each runtime: median seconds of a call, speed-up over the dense weights, and whether it is significant."""
    for one in found.measured.latency if found.measured else ():
        where = f"{one.runtime}, batch {one.batch}, {one.threads} thread{'s' * (one.threads != 1)}"
        yield derived.row(record, "latency", one.sparse.median, where)
        yield derived.row(record, "speedup", one.ratio, where)
        yield derived.row(record, "faster", float(one.faster), where)


def predictions(run: Path | str, split: Literal["test", "validation"] = "test") -> dict[str, Tensor]:
    """The predicted classes of each evaluated network of a run, by network id; "labels" holds the right ones.

    Empty if nothing was evaluated. Raises: as `RunFolder.open`.
    """
    with RunFolder.open(Path(run)) as folder:
        found = stored_predictions(folder)
    before = "validation " if split == "validation" else ""
    names = [name for name in found if name.startswith("validation ") == bool(before)]
    return {name.removeprefix(before): found[name] for name in names}
