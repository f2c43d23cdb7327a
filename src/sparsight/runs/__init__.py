"""A run: what a recipe is, level by level, from its first word to its report; and studies of many runs."""

from sparsight.runs.choose import AtDensity, SparsestWithin
from sparsight.runs.execute import Outcome, execute
from sparsight.runs.recipe import Recipe, Until
from sparsight.runs.run import run
from sparsight.runs.search import AccuracyFloor, AtPQMinimum, PQMinimum

__all__ = [
    "AccuracyFloor", "AtDensity", "AtPQMinimum", "Outcome", "PQMinimum", "Recipe", "SparsestWithin", "Until", "execute",
    "run",
]  # fmt: skip
