"""Mean-field theory of random networks: the edge of chaos, the phase of a network, and when pruning kills a layer."""

from sparsight.criticality.collapse_theory import collapse_density, critical_density, theorem1_bound
from sparsight.criticality.edge import EdgeOfChaos, NoEdgeOfChaos, edge_of_chaos, smallest_stable_sigma_b
from sparsight.criticality.meanfield import (
    chi,
    correlation_map,
    fixed_point,
    second_moments,
    variance_map,
    variance_slope,
)
from sparsight.criticality.moments import Conditioning, IllConditioned, conditioning
from sparsight.criticality.names import NAMED, activation_of
from sparsight.criticality.phase import CriticalStart, LayerPhase, NetworkPhase, initialise_, phase_of

__all__ = [
    "NAMED",
    "Conditioning",
    "CriticalStart",
    "EdgeOfChaos",
    "IllConditioned",
    "LayerPhase",
    "NetworkPhase",
    "NoEdgeOfChaos",
    "activation_of",
    "chi",
    "collapse_density",
    "conditioning",
    "correlation_map",
    "critical_density",
    "edge_of_chaos",
    "fixed_point",
    "initialise_",
    "phase_of",
    "second_moments",
    "smallest_stable_sigma_b",
    "theorem1_bound",
    "variance_map",
    "variance_slope",
]
