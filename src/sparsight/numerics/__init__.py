"""Exact selection, seeds and compiled loops on arrays, independent of models."""

from sparsight.numerics.seeds import derive
from sparsight.numerics.select import keep_largest, prune_smallest
from sparsight.numerics.stratified import stratified

__all__ = ["derive", "keep_largest", "prune_smallest", "stratified"]
