"""Networks side by side: what they are worth beyond accuracy, and statistics that do not rank within noise."""

from sparsight.compare.evaluation import Corrupted, Evaluated, evaluate, predictions, stored
from sparsight.compare.statistics import (
    At,
    Candidate,
    Pair,
    PairedAt,
    Ranking,
    Sparsest,
    at,
    fronts,
    holm,
    paired_at,
    ranking,
    sparsest_within,
)
from sparsight.numerics.intervals import Mean, difference, lower_bound, mean, paired, paired_shares, wilson

__all__ = [
    "At", "Candidate", "Corrupted", "Evaluated", "Mean", "Pair", "PairedAt", "Ranking", "Sparsest", "at",
    "difference", "evaluate", "fronts", "holm", "lower_bound", "mean", "paired", "paired_at", "paired_shares",
    "predictions", "ranking", "sparsest_within", "stored", "wilson",
]  # fmt: skip
