"""Published experiments, one function each: its keyword parameters are the command line, its value is a `Recipe`.

The functions are imported here, so that `recipes.sap` is the function and not the file it stands in.
"""

from sparsight.recipes.lottery import lottery
from sparsight.recipes.oneshot import oneshot
from sparsight.recipes.sap import sap

__all__ = ["lottery", "oneshot", "sap"]
