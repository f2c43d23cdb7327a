"""Rows computed from records, predictions and other rows, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsight.compare.evaluation.metrics import Estimate, agreement, classes, flips
from sparsight.records.record import LevelRecord
from sparsight.records.rows import Row


def row(record: LevelRecord, metric: str, found: Estimate | float, group: str = "", severity: int | None = None) -> Row:
    """A row of one network."""
    estimate = found if isinstance(found, Estimate) else Estimate(float(found))
    numbers = estimate.value, estimate.low, estimate.high, estimate.n
    return Row(record.level, record.role, record.id, metric, group, severity, *numbers)


def structure(record: LevelRecord) -> Iterator[Row]:
    """The PQ index of all alive weights and of each layer, and the dead units."""
    for i, (p, q) in enumerate(record.pq_pairs):
        yield row(record, f"pq_index({p:g}, {q:g})", record.pq[i])
        for layer in record.layers:
            if len(layer.pq) > i:
                yield row(record, f"pq_index({p:g}, {q:g})", layer.pq[i], layer.name)
    if record.collapse is None:
        return
    for metric in ("dead_outputs", "dead_inputs"):
        dead: Mapping[str, int] = getattr(record.collapse, metric)
        yield row(record, metric, sum(dead.values()))
        for name, count in dead.items():
            yield row(record, metric, count, name)


def class_name(data: Mapping[str, Any], label: int) -> str:
    """The name of a class in the record of a run's data; its number without one."""
    facts = data.get("facts")
    names = facts.get("class_names") if isinstance(facts, Mapping) else None
    return str(names[label]) if isinstance(names, list | tuple) and 0 <= label < len(names) else str(label)


def by_class(
    record: LevelRecord, predictions: Mapping[str, Tensor], parent: LevelRecord | None, data: Mapping[str, Any]
) -> Iterator[Row]:
    """Accuracy and impact of each class, and the worst class."""
    before = predictions.get(parent.id) if parent is not None and parent.id != record.id else None
    found = classes(predictions[record.id], predictions["labels"], before)
    for each in found:
        yield row(record, "class_accuracy", each.accuracy, class_name(data, each.label))
        if each.impact is not None:
            yield row(record, "class_impact", each.impact, class_name(data, each.label))
    worst = min(found, key=lambda each: each.accuracy.value)
    yield row(record, "worst_class_accuracy", worst.accuracy, class_name(data, worst.label))


def against_parent(record: LevelRecord, predictions: Mapping[str, Tensor], parent: LevelRecord | None) -> Iterator[Row]:
    """Agreement and churn relative to the dense parent, and the answers lost and gained."""
    if parent is None or parent.id == record.id or parent.id not in predictions:
        return
    mine, before = predictions[record.id], predictions[parent.id]
    same = agreement(mine, before)
    yield row(record, "agreement", same)
    low, high = (None if bound is None else 1 - bound for bound in (same.high, same.low))
    yield row(record, "churn", Estimate(1 - same.value, low, high, same.n))
    lost, gained = flips(mine, predictions["labels"], before)
    yield row(record, "lost", lost)
    yield row(record, "gained", gained)


# -- corruptions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Errors of one network on the same images: clean, and for each corruption at each severity."""

    clean: float
    corrupted: Mapping[str, tuple[float, ...]]

    @property
    def mean(self) -> float:
        every = [error for errors in self.corrupted.values() for error in errors]
        return sum(every) / len(every)


def errors_of(rows: Sequence[Row]) -> Errors | None:
    """From a network's rows on corrupted images; None unless they hold clean and corrupted ones."""
    found: dict[str, list[tuple[int, float]]] = {}
    for each in rows:
        found.setdefault(each.group, []).append((each.severity or 0, 1 - each.value))
    clean = found.pop("none", None)
    if not clean or not found:
        return None
    return Errors(clean[0][1], {name: tuple(e for _, e in sorted(errors)) for name, errors in found.items()})


def robustness(record: LevelRecord, mine: Errors, dense: Errors | None) -> Iterator[Row]:
    """Mean accuracy over all corruptions and severities; relative to dense, mean corruption error and excess error."""
    yield row(record, "robust_accuracy", 1 - mine.mean)
    if dense is not None and dense.corrupted.keys() == mine.corrupted.keys():
        yield row(record, "mce", corruption_error(mine.corrupted, dense.corrupted))
        yield row(record, "excess_error", excess_error(mine.mean, mine.clean, dense.mean, dense.clean))


def potentials(
    levels: Sequence[LevelRecord], accuracies: Mapping[str, float], errors: Mapping[str, Errors], dense: LevelRecord
) -> Iterator[Row]:
    """A run's prune potential, a sparsity, for each margin, clean and on each corruption."""
    pruned = [x for x in levels if x.role == "level" and x.id in accuracies]
    distributions = {"clean": {x.id: 1 - accuracies[x.id] for x in [*pruned, dense] if x.id in accuracies}}
    for name in errors[dense.id].corrupted if dense.id in errors else ():
        each = {key: of.corrupted[name] for key, of in errors.items() if name in of.corrupted}
        distributions[name] = {key: sum(found) / len(found) for key, found in each.items()}
    for name, by_id in distributions.items():
        sparsities = {1 - x.density: by_id[x.id] for x in pruned if x.id in by_id}
        for margin in MARGINS if dense.id in by_id else ():
            for metric, monotone in (("prune_potential", False), ("monotone_potential", True)):
                found = prune_potential(sparsities, by_id[dense.id], margin / 100, monotone=monotone)
                yield row(dense, f"{metric}({margin:g})", found, name)


MARGINS = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Percentage points of error beyond dense."""


def prune_potential(errors: Mapping[float, float], dense: float, margin: float, *, monotone: bool = False) -> float:
    """The largest sparsity with an error of at most dense error + margin, all in [0, 1]; 0 if there is none.

    `errors` are by sparsity. With `monotone`, every smaller sparsity must be within the margin too, because one of many
    noisy comparisons may succeed by luck. NaN is never within.
    """
    largest = 0.0
    for sparsity in sorted(errors):
        if errors[sparsity] <= dense + margin:
            largest = max(largest, sparsity)
        elif monotone:
            break
    return largest


def excess_error(error: float, clean: float, dense: float, dense_clean: float) -> float:
    """(error - clean error) of the pruned network minus the same of the dense one: the extra cost of corruption."""
    return (error - clean) - (dense - dense_clean)


def corruption_error(errors: Mapping[str, Sequence[float]], dense: Mapping[str, Sequence[float]]) -> float:
    """The mean over corruptions of (summed error over severities / the dense network's); 1 means no loss.

    Infinite if only the pruned network makes errors; a corruption without any error counts as 1.
    Source: the mCE of Hendrycks and Dietterich, ICLR 2019, with the dense network in place of AlexNet.
    """
    ratios = []
    for name, mine in errors.items():
        own, other = sum(mine), sum(dense[name])
        ratios.append(own / other if other else 1.0 if not own else float("inf"))
    return sum(ratios) / len(ratios)
