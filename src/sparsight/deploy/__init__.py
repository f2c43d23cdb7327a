"""Networks that leave the building: run fast on CPUs."""

from sparsight.deploy.runtime.fast import Planned, sparse_runtime

__all__ = ["Planned", "sparse_runtime"]
