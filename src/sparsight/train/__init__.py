"""Training of one level: the loop, its plan, batches, evaluation, and the rules that end it (`stop`)."""

from sparsight.train.batches import batches, move, to_device
from sparsight.train.judges import Accuracy, Auto, Error, Judged, Perplexity, classify
from sparsight.train.metric import Metric
from sparsight.train.observation import Observation
from sparsight.train.optimizers import Adam, NesterovSGD
from sparsight.train.plan import Hooks, Moment, TrainingPlan, WarmUp, constant, cosine
from sparsight.train.torch_metric import TorchMetric

__all__ = ["Accuracy", "Adam", "Auto", "Error", "Hooks", "Judged", "Metric", "Moment", "NesterovSGD", "Observation"]
__all__ += ["Perplexity", "TorchMetric", "TrainingPlan", "WarmUp", "batches", "classify", "constant", "cosine", "move"]
__all__ += ["to_device"]
