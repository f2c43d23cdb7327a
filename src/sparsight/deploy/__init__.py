"""Networks that leave the building: run fast on CPUs, without their dead units."""

from sparsight.deploy.compaction.compact import Compacted, Left, compact
from sparsight.deploy.compaction.shrink import load_compacted
from sparsight.deploy.runtime.fast import Planned, sparse_runtime

__all__ = ["Compacted", "Left", "Planned", "compact", "load_compacted", "sparse_runtime"]
