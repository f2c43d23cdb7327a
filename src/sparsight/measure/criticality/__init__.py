"""Mean-field theory of random networks: the edge of chaos, the phase of a network, and when pruning empties a layer."""

from sparsight.measure.criticality.activations import NAMED, activation_of
from sparsight.measure.criticality.collapse_density import collapse_density, critical_density, theorem1_bound
from sparsight.measure.criticality.edge import EdgeOfChaos, NoEdgeOfChaos, edge_of_chaos, smallest_stable_sigma_b
from sparsight.measure.criticality.meanfield import (
    chi,
    correlation_map,
    fixed_point,
    second_moments,
    variance_map,
    variance_slope,
)
from sparsight.measure.criticality.phase import CriticalStart, LayerPhase, NetworkPhase, initialise_, phase_of

__all__ = ["NAMED", "CriticalStart", "EdgeOfChaos", "LayerPhase", "NetworkPhase", "NoEdgeOfChaos", "activation_of"]
__all__ += ["chi", "collapse_density", "correlation_map", "critical_density", "edge_of_chaos", "fixed_point"]
__all__ += ["initialise_", "phase_of", "second_moments", "smallest_stable_sigma_b", "theorem1_bound", "variance_map"]
__all__ += ["variance_slope"]
