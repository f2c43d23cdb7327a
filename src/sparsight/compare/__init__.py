"""Compares networks: metrics beyond accuracy, statistics that do not rank within noise, and a verdict."""

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
    knee,
    paired_at,
    ranking,
    sparsest_within,
)
from sparsight.compare.verdict import verdict, verdicts
from sparsight.numerics.intervals import Mean, difference, lower_bound, mean, paired, paired_shares, wilson
from sparsight.records.verdict import Verdict

__all__ = ["At", "Candidate", "Corrupted", "Evaluated", "Mean", "Pair", "PairedAt", "Ranking", "Sparsest", "Verdict"]
__all__ += ["at", "difference", "evaluate", "fronts", "holm", "knee", "lower_bound", "mean", "paired", "paired_at"]
__all__ += ["paired_shares", "predictions", "ranking", "sparsest_within", "stored", "verdict", "verdicts", "wilson"]
