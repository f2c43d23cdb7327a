"""The weights of a model: names, layouts, masks, holding them during training, and finding what they cut off."""

from sparsight.model.collapse import Collapse, find_collapse
from sparsight.model.hold import apply_, bind, mask_grads_
from sparsight.model.left_out import LeftOut, LeftOutWarning
from sparsight.model.loss import cross_entropy, mae, mse, task_loss
from sparsight.model.masks import check, counts, counts_by_tensor, dense, density, left_out, verify
from sparsight.model.names import named
from sparsight.model.own_loop import held
from sparsight.model.pretrained import WeightsNote, load_into

__all__ = ["Collapse", "LeftOut", "LeftOutWarning", "WeightsNote", "apply_", "bind", "check", "counts"]
__all__ += ["counts_by_tensor", "cross_entropy", "dense", "density", "find_collapse", "held", "left_out", "load_into"]
__all__ += ["mae", "mask_grads_", "mse", "named", "task_loss", "verify"]
