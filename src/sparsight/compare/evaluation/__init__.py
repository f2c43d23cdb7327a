"""Metrics beyond accuracy, as functions and as tidy rows of a run."""

from sparsight.compare.evaluation.corruptions import CORRUPTIONS, corrupt
from sparsight.compare.evaluation.derived import corruption_error, excess_error, prune_potential
from sparsight.compare.evaluation.evaluate import FAMILIES, Corrupted, Evaluated, evaluate, predictions, stored
from sparsight.compare.evaluation.metrics import (
    Estimate,
    Outputs,
    accuracy,
    agreement,
    brier,
    calibration_error,
    classes,
    flips,
    negative_log_likelihood,
    outputs_of,
)

__all__ = ["CORRUPTIONS", "FAMILIES", "Corrupted", "Estimate", "Evaluated", "Outputs", "accuracy", "agreement", "brier"]
__all__ += ["calibration_error", "classes", "corrupt", "corruption_error", "evaluate", "excess_error", "flips"]
__all__ += ["negative_log_likelihood", "outputs_of", "predictions", "prune_potential", "stored"]
