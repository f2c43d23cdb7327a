"""The rescaling trick, and how a run comes to it."""

from sparsight.rescaling.inside import Fresh, FromStart, Rescaled, ScoredAt
from sparsight.rescaling.trick import By, Rescale, unsuited

__all__ = ["By", "Fresh", "FromStart", "Rescale", "Rescaled", "ScoredAt", "unsuited"]
