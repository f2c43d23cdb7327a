"""Published experiments, one function each: its parameters are the command line's options, its result a `Recipe`.

Importing the functions here makes `recipes.sap` the function and not the module.
"""

from sparsight.recipes.grasp import grasp
from sparsight.recipes.incop import incop
from sparsight.recipes.lottery import lottery
from sparsight.recipes.magnitude_at_init import magnitude_at_init
from sparsight.recipes.oneshot import oneshot
from sparsight.recipes.random_at_init import random_at_init
from sparsight.recipes.sap import sap
from sparsight.recipes.sbp import sbp
from sparsight.recipes.sbp_sr import sbp_sr
from sparsight.recipes.sipp import sipp
from sparsight.recipes.snip import snip
from sparsight.recipes.synflow import synflow

__all__ = [
    "grasp",
    "incop",
    "lottery",
    "magnitude_at_init",
    "oneshot",
    "random_at_init",
    "sap",
    "sbp",
    "sbp_sr",
    "sipp",
    "snip",
    "synflow",
]
