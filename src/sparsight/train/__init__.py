"""Training one level: the loop, its plan, batches, judging, and the rules that end it (`stop`)."""

from sparsight.train.batches import batches, move, to_device
from sparsight.train.evaluate import classify
from sparsight.train.hooks import Hooks, Moment
from sparsight.train.observation import Observation
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.plan import TrainingPlan
from sparsight.train.schedules import WarmUp, constant, cosine

__all__ = [
    "Hooks", "Moment", "NesterovSGD", "Observation", "TrainingPlan", "WarmUp", "batches", "classify", "constant",
    "cosine", "move", "to_device",
]  # fmt: skip
