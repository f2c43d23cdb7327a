"""The verdict on a setting, from the records of its runs, and a run's report with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from scipy.stats import binomtest

from sparsight.compare.evaluation.derived import class_name
from sparsight.compare.evaluation.metrics import classes
from sparsight.compare.statistics import holm, sparsest_within
from sparsight.compare.verdict.evidence import evidence, surer
from sparsight.compare.verdict.history import History, grouped, read, walk
from sparsight.deploy.ledger.of_run import of_run
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.outputs import write_output
from sparsight.records.record import LevelRecord
from sparsight.records.verdict import Pays, Speed, Verdict
from sparsight.report import page
from sparsight.report.sentences import chosen_within


def verdict(runs: Path | str | Sequence[Path | str], within: float = 0.5, confidence: float = 0.95) -> Verdict:
    """How far the runs' setting can be pruned within `within` of dense: points of a share, otherwise percent.

    Finds the sparsest network with a lower bound within the margin, walking from dense to sparse and stopping at the
    first that fails (`sparsest_within`). The one-sided bound is on the difference of the validation metric from dense.
    For one run it is over validation samples: answer by answer after `evaluate`, otherwise as if each network had its
    own samples. For several, which may differ only in their seed, it is over seeds, each relative to its own dense
    network. Reads records only: nothing is trained or measured, and the test split decides nothing.

    Raises: ValueError for several settings, a seed that occurs twice, an unfinished run, one without a dense or pruned
    network, a margin below 0, or a confidence outside (0.5, 1); as `RunFolder.open`.
    """
    paths = [runs] if isinstance(runs, (str, Path)) else list(runs)
    groups = grouped([read(Path(path)) for path in paths])
    if len(groups) != 1:
        raise ValueError(f"runs must differ only in their seed, got {len(groups)} settings: use verdicts")
    return _of(groups[0], within, confidence)


def verdicts(runs: Sequence[Path | str], within: float = 0.5, confidence: float = 0.95) -> tuple[Verdict, ...]:
    """The `verdict` on each setting, in order of appearance."""
    return tuple(_of(group, within, confidence) for group in grouped([read(Path(path)) for path in runs]))


def _of(runs: Sequence[History], within: float, confidence: float) -> Verdict:
    first, seeds = runs[0], tuple(run.run.seed for run in runs)
    if len({*seeds}) < len(seeds):
        raise ValueError(
            f"runs of one setting must have different seeds, got {', '.join(map(str, seeds))} for {first.path} and "
            "others: leave one out"
        )
    metric = first.dense.metric
    basis, steps = walk(runs, confidence)
    margin = within / 100 * (1.0 if metric.share else sum(abs(run.dense.value or 0.0) for run in runs) / len(runs))
    found = sparsest_within({step.density: step.lower for step in steps}, margin)
    level = next((step.level for step in steps if step.density == found.density), None)
    record = first.down_to(found.density)
    dense_bytes, packed_bytes = _bytes(first, record)
    everything = [(run, x) for run in runs for x in run.records]
    times = [t for run in runs for t in run.times]
    return Verdict(
        setting=_called(first), runs=tuple(str(run.path) for run in runs), seeds=seeds, metric=metric, margin=within,
        confidence=confidence, basis=basis, steps=steps, density=found.density, level=level, refused=found.refused,
        beyond=found.beyond, prunable=first.dense.total, evidence=evidence(runs, found.density, margin),
        pays=_pays(runs, found.density), dense_bytes=dense_bytes, packed_bytes=packed_bytes,
        speed=tuple(_speed(first, record)), epochs=sum(x.epochs for _, x in everything),
        optimizer_steps=sum(x.steps for _, x in everything), seconds=sum(t.total for t in times) if times else None,
        surer=surer(runs, steps, found, margin, confidence),
    )  # fmt: skip


def _called(run: History) -> str:
    parts = (run.run.recipe, run.run.model.get("spec") or run.run.model.get("type"), run.run.data.get("name"))
    return " on ".join(filter(None, (", ".join(filter(None, parts[:2])), parts[2])))


def _bytes(run: History, record: LevelRecord | None) -> tuple[int | None, int | None]:
    """Dense and packed bytes as measured; otherwise counted, if the weights are on disk."""
    dense, packed = (run.measured(record, name).get("") for name in ("dense_bytes", "packed_bytes"))
    if record is not None and packed is None:
        with RunFolder.open(run.path) as folder:
            if folder.keeps(record):
                counted = of_run(folder, record, count_macs=False).counted
                return counted.dense_bytes, counted.packed_bytes
    return None if dense is None else int(dense), None if packed is None else int(packed)


def _speed(run: History, record: LevelRecord | None) -> Iterator[Speed]:
    faster = run.measured(record, "faster")
    for where, ratio in run.measured(record, "speedup").items():
        runtime, _, at = where.partition(", ")
        yield Speed(runtime, at, ratio, bool(faster.get(where)))


def _pays(runs: Sequence[History], density: float | None) -> tuple[Pays, ...] | None:
    """Classes that lose on the test split, by McNemar's exact test with Holm's correction, in the first evaluated run.

    None if no network of that density was evaluated.
    """
    for run in runs:
        record = run.down_to(density)
        named = () if record is None else (record.id, run.dense.id, "labels")
        if not named or any(name not in run.predictions for name in named):
            continue
        mine, dense, labels = (run.predictions[name] for name in named)
        found = [each for each in classes(mine, labels, dense) if each.impact is not None]
        p_values = [_mcnemar(mine, dense, labels, each.label) for each in found]
        return tuple(
            Pays(class_name(run.run.data, each.label), impact.value, impact.low or 0.0, impact.high or 0.0)
            for each, p in zip(found, holm(p_values), strict=True)
            if (impact := each.impact) is not None and impact.value < 0 and p is not None and p <= 0.05
        )
    return None


def _mcnemar(mine: torch.Tensor, dense: torch.Tensor, labels: torch.Tensor, label: int) -> float:
    here = labels == label
    lost = int(((dense == label) & (mine != label))[here].sum())
    gained = int(((mine == label) & (dense != label))[here].sum())
    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


WITHIN = 0.5


def report(folder: RunFolder) -> Path:
    """Write the report of a run from its records and the chosen network, with the verdict if there is one."""
    path = folder.path / "report.html"
    found = of_run(folder) if folder.record.chosen is not None else None
    text = page(folder.record, folder.levels(), folder.times(), folder.evaluation(), found, of_folder(folder))
    write_output(path, [text.encode()])
    return path


def of_folder(folder: RunFolder) -> Verdict | None:
    """The verdict at 95 % confidence, within the margin of the run's `choose` (otherwise 0.5).

    None for an unfinished run, or one without a dense or pruned network.
    """
    points = chosen_within(folder.record.description.get("choose"))
    try:
        return verdict(folder.path, WITHIN if points is None or points < 0 else points)
    except DamagedFile:
        raise
    except ValueError:
        return None
