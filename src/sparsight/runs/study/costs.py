"""What a level cost, counted alike for every method, with what it took over from a shared training."""

from __future__ import annotations

import dataclasses
from typing import Any

from sparsight.records.record import LevelRecord, LevelTimes, RunRecord
from sparsight.train.batches import USUAL

FORWARD, BACKWARD = 1.0, 2.0
"""Forward passes that a pass costs: a backward pass computes two products where a forward pass computes one."""

PASSES = {"SiPP": FORWARD, "GraSP": 3 * (FORWARD + BACKWARD)}
"""Of scorers that do not take one gradient: SiPP looks at activations; GraSP differentiates its gradient again."""


def forward_equivalents(run: RunRecord, level: LevelRecord) -> float | None:
    """Forward passes of single samples that a level took: training, validation, scores and what its rule measured.

    3 for each sample trained on, 1 for each validated; for each round of scores, by the samples scored, 3, 1 (SiPP) or
    9 (GraSP); SynFlow scores one sample a round. None if the length of a split is not known.
    """
    splits = run.data.get("splits", {})
    trained, validated = ((splits.get(name) or {}).get("samples") for name in ("train", "validation"))
    if trained is None or validated is None:
        return None
    found = (FORWARD + BACKWARD) * level.epochs * trained + FORWARD * len(level.observations) * validated
    for seen in level.observations:
        found += FORWARD * seen.values.get("cost:forward samples", 0.0)
        found += BACKWARD * seen.values.get("cost:backward samples", 0.0)
    return found + _scored(run.description.get("score") or {}, level.operation, trained)


def _scored(scoring: Any, operation: Any, trained: int) -> float:
    rounds, batches = len(operation.get("rounds") or ()), scoring.get("batches", 0)
    scorer = scoring.get("scorer") or {}
    scorer = scorer.get("score", scorer) if isinstance(scorer, dict) else {}
    kind = scorer.get("type") if isinstance(scorer, dict) else None
    if kind == "SynFlow":
        return rounds * (FORWARD + BACKWARD)
    samples = min(trained, batches * (operation.get("batch_size") or USUAL))
    return rounds * samples * PASSES.get(str(kind), FORWARD + BACKWARD)


def seconds(times: LevelTimes) -> float:
    """All seconds of a level: pruning, training, validating, measuring, storing."""
    return sum(getattr(times, f.name) for f in dataclasses.fields(times)[2:])
