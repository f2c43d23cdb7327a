"""Information flow and gradient flow of a network, and the distance between the flows of two networks."""

from sparsight.measure.flow.distance import flow_distance
from sparsight.measure.flow.gradients import GradientAverage, GradientFlow, both_flows, gf_ema, gradient_flow
from sparsight.measure.flow.information import InformationFlow, information_flow
from sparsight.measure.flow.probe import Probe, probe

__all__ = ["GradientAverage", "GradientFlow", "InformationFlow", "Probe", "both_flows", "flow_distance", "gf_ema"]
__all__ += ["gradient_flow", "information_flow", "probe"]
