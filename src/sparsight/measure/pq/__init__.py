"""The PQ index, its bound and counts, and the power sums behind them."""

from sparsight.measure.pq.bound import prune_count, retained_bound
from sparsight.measure.pq.index import effective_count, group_sums, power_sums, pq_index, pq_index_gradient, row_sums
from sparsight.measure.pq.sums import PowerSums, RowSums
from sparsight.measure.pq.turning_points import TurningPoints, turning_points

__all__ = ["PowerSums", "RowSums", "TurningPoints", "effective_count", "group_sums", "power_sums", "pq_index"]
__all__ += ["pq_index_gradient", "prune_count", "retained_bound", "row_sums", "turning_points"]
