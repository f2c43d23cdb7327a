"""What a level cost, counted alike for every method, with what it took over from a shared training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
    """The batch size of level 0's plan, which its scorer takes: the first in the description of the levels."""
    parts = levels if isinstance(levels, list) else [*levels.values()] if isinstance(levels, dict) else []
    if isinstance(levels, dict) and "batch_size" in levels:
        return levels["batch_size"]
    return next((size for part in parts if (size := _batch_size(part)) is not None), None)


def seconds(times: LevelTimes) -> float:
    """All seconds of a level: pruning, training, validating, measuring, storing."""
    return sum(getattr(times, f.name) for f in dataclasses.fields(times)[2:])
