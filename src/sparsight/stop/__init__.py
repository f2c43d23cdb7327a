"""When a level has been trained enough. Rules decide on numbers alone; what they measure they ask for."""

from sparsight.stop.budget import AccuracyRecovery, FixedEpochs, LossPlateau
from sparsight.stop.combine import AllOf, AnyOf, AtLeast, Patience, PerLevel
from sparsight.stop.context import Baseline, Context, Reference, check_rule, needs
from sparsight.stop.flows import FlowPlateau, GradientConsistent, InformationConsistent
from sparsight.stop.named import StopName, named_rule
from sparsight.stop.references import parts_of, references
from sparsight.stop.weights import MaskStable, PQIStable, jaccard_distance

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
    "PerLevel",
    "Reference",
    "StopName",
    "check_rule",
    "jaccard_distance",
    "named_rule",
    "needs",
    "parts_of",
    "references",
]
