"""Information flow and gradient flow of a network, and the distance between the flows of two networks."""

from sparsight.measure.flow.distance import flow_distance
from sparsight.measure.flow.gradients import GradientFlow, gradient_flow
from sparsight.measure.flow.information import InformationFlow, information_flow
from sparsight.measure.flow.probe import Probe, probe
from sparsight.measure.flow.running_average import GradientAverage, gf_ema
from sparsight.measure.flow.together import both_flows

__all__ = ["GradientAverage", "GradientFlow", "InformationFlow", "Probe", "both_flows", "flow_distance", "gf_ema"]
__all__ += ["gradient_flow", "information_flow", "probe"]
