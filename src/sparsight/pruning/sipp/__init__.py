"""SiPP: sensitivities from a small batch of inputs, their error bounds, and certificates."""

from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.bounds import calibration_size, calibration_sweep
from sparsight.pruning.sipp.keep_ratio import KeepBudget, keep_budget, keep_ratio
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.sipp.sensitivities import Facts, saturated

__all__ = ["Facts", "KeepBudget", "SiPP", "SiPPDet", "SiPPHybrid", "SiPPRand", "calibration_size", "calibration_sweep"]
__all__ += ["keep_budget", "keep_ratio", "saturated"]
