"""Runs of recipes: levels, search, choice, execution into a run folder, and studies of many runs."""

from sparsight.runs.adapt import adapted
from sparsight.runs.budget import budgeted
from sparsight.runs.choose import AtDensity, SparsestWithin
from sparsight.runs.ending import AccuracyFloor, AtPQMinimum, PQMinimum
from sparsight.runs.execute import Outcome, execute
from sparsight.runs.level import Level
from sparsight.runs.one_call import Pruned, prune
from sparsight.runs.recipe import Prunable, Recipe, Scoring
from sparsight.runs.run import run
from sparsight.runs.search import Done, Search, Until

__all__ = ["AccuracyFloor", "AtDensity", "AtPQMinimum", "Done", "Level", "Outcome", "PQMinimum", "Prunable", "Pruned"]
__all__ += ["Recipe", "Scoring", "Search", "SparsestWithin", "Until", "adapted", "budgeted", "execute", "prune", "run"]
