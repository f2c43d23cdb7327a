"""The levels with which stopping rules compare later levels."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

from sparsight.records.record import LevelRecord
from sparsight.train.stop.context import Reference
from sparsight.types import Masks, StateDict


def parts_of(done: Sequence[LevelRecord]) -> set[str]:
    """The roles of the last of `done` for later levels: "parent", and perhaps "dense", "warmup" or "best"."""
    record, worth = done[-1], done[-1].worth
    found = {"parent"}
    if record.level == 0 and record.kept == record.total:
        found |= {"dense", "warmup"}
    if not math.isnan(worth) and not any(r.worth >= worth for r in done[:-1]):
        found |= {"best"}
    return found


def references(
    record: LevelRecord, parts: Set[str], network: tuple[StateDict, Masks], rewound: tuple[int, StateDict]
) -> dict[str, Reference]:
    """A level as a reference in each role of `parts`. `rewound` is the epoch and the weights of the rewind point."""
    weights, masks = network
    whole = Reference(record.level, weights, masks, _number(record.value), record.observations[-1].values)
    found = dict.fromkeys(sorted(parts - {"warmup"}), whole)
    if "warmup" in parts:
        epoch, weights = rewound
        early = [_number(o.value(record.metric)) for o in record.observations if o.epoch <= epoch]
        best = max((a for a in early if not math.isnan(a)), default=math.nan, key=record.metric.worth)
        found["warmup"] = Reference(record.level, weights, masks, best)
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value
