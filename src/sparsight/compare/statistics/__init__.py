"""Comparisons over several seeds. The intervals are in `numerics.intervals`."""

from sparsight.compare.statistics.curves import At, PairedAt, at, paired_at
from sparsight.compare.statistics.fronts import Candidate, fronts
from sparsight.compare.statistics.holm import holm
from sparsight.compare.statistics.knee import knee
from sparsight.compare.statistics.ranking import Pair, Ranking, ranking
from sparsight.compare.statistics.sparsest import Sparsest, sparsest_within

__all__ = ["At", "Candidate", "Pair", "PairedAt", "Ranking", "Sparsest", "at", "fronts", "holm", "knee", "paired_at"]
__all__ += ["ranking", "sparsest_within"]
