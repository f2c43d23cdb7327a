"""The rescaling trick, and its use in a run."""

from sparsight.pruning.rescale.in_a_run import Fresh, FromStart, Rescaled, ScoredAt
from sparsight.pruning.rescale.rescale import By, Rescale, unsuited

__all__ = ["By", "Fresh", "FromStart", "Rescale", "Rescaled", "ScoredAt", "unsuited"]
