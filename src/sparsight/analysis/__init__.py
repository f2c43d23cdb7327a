"""How compressible is this network? `analyze` for any checkpoint, `trajectory` for a run."""

from __future__ import annotations

from sparsight.analysis.analyze import BUDGET, analyze
from sparsight.analysis.records import Analysis, Keep, Listed, Measure, Neurons, Row, Summary, Tensor

__all__ = ["BUDGET", "Analysis", "Keep", "Listed", "Measure", "Neurons", "Row", "Summary", "Tensor", "analyze"]
