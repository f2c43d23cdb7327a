"""How compressible is this network? `analyze` for any checkpoint, `trajectory` for a run."""

from __future__ import annotations

from sparsight.analysis.analyze import BUDGET, analyze
from sparsight.analysis.records import Analysis, Keep, Listed, Measure, Neurons, Row, Summary, Tensor
from sparsight.analysis.trajectory import Step, Trajectory, trajectory

__all__ = ["BUDGET", "Analysis", "Keep", "Listed", "Measure", "Neurons", "Row", "Step", "Summary", "Tensor"]
__all__ += ["Trajectory", "analyze", "trajectory"]
