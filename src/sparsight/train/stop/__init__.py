"""Rules that decide when a level has been trained enough, from recorded numbers alone."""

from sparsight.train.stop.accuracy import AccuracyRecovery, FixedEpochs, LossPlateau
from sparsight.train.stop.combine import AllOf, AnyOf, AtLeast, Patience, StopName, named_rule
from sparsight.train.stop.context import Baseline, Context, Reference, StoppingRule, check_rule
from sparsight.train.stop.flows import FlowPlateau, GradientConsistent, InformationConsistent
from sparsight.train.stop.weights import MaskStable, PQIStable, jaccard_distance

__all__ = [
    "AccuracyRecovery",
    "AllOf",
    "AnyOf",
    "AtLeast",
    "Baseline",
    "Context",
    "FixedEpochs",
    "FlowPlateau",
    "GradientConsistent",
    "InformationConsistent",
    "LossPlateau",
    "MaskStable",
    "PQIStable",
    "Patience",
    "Reference",
    "StopName",
    "StoppingRule",
    "check_rule",
    "jaccard_distance",
    "named_rule",
]
