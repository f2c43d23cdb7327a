"""Networks that leave the building: run fast on CPUs, without their dead units, exported."""

from sparsight.deploy.compaction.compact import Compacted, Left, compact
from sparsight.deploy.compaction.shrink import load_compacted
from sparsight.deploy.exporting import Export, export
from sparsight.deploy.recalibrate import recalibrate_
from sparsight.deploy.runtime.fast import Planned, sparse_runtime

__all__ = [
    "Compacted", "Export", "Left", "Planned", "compact", "export", "load_compacted", "recalibrate_", "sparse_runtime",
]  # fmt: skip
