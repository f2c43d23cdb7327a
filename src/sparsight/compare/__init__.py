"""Networks side by side: statistics that do not rank within noise."""

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
    "At", "Candidate", "Mean", "Pair", "PairedAt", "Ranking", "Sparsest", "at", "difference", "fronts", "holm",
    "lower_bound", "mean", "paired", "paired_at", "paired_shares", "ranking", "sparsest_within", "wilson",
]  # fmt: skip
