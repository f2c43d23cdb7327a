"""How much passes through a network: information flow, gradient flow, and how far two networks are apart in them."""

from sparsight.flow.both import both_flows
from sparsight.flow.distance import flow_distance
from sparsight.flow.ema import GradientAverage, gf_ema
from sparsight.flow.gradients import GradientFlow, gradient_flow
from sparsight.flow.information import InformationFlow, information_flow
from sparsight.flow.probes import Probe, probe

__all__ = [
    "GradientAverage", "GradientFlow", "InformationFlow", "Probe", "both_flows", "flow_distance", "gf_ema",
    "gradient_flow", "information_flow", "probe",
]  # fmt: skip
