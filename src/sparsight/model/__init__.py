"""Which weights a model has and how they lie: names, masks, holding them through training, and what a mask cuts off."""

from sparsight.model.collapse import Collapse, find_collapse
from sparsight.model.hold import apply_, bind, mask_grads_
from sparsight.model.left_out import LeftOut, LeftOutWarning
from sparsight.model.loss import cross_entropy
from sparsight.model.masks import check, counts, dense, density, left_out, verify
from sparsight.model.names import named
from sparsight.model.own_loop import held

__all__ = [
    "Collapse", "LeftOut", "LeftOutWarning", "apply_", "bind", "check", "counts", "cross_entropy", "dense", "density",
    "find_collapse", "held", "left_out", "mask_grads_", "named", "verify",
]  # fmt: skip
