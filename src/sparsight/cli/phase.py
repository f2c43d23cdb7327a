"""`sparsight phase`: plot an activation's phase diagram and place a network in it."""

from __future__ import annotations

from typing import Any

from sparsight.cli.certify_inputs import named_network
from sparsight.cli.errors import Misuse, checked, near, refusing, resolved
from sparsight.cli.network_options import PhaseOptions
from sparsight.cli.output import check_outputs, give
from sparsight.measure.criticality import NAMED, CriticalStart, NoEdgeOfChaos, activation_of, edge_of_chaos, phase_of
from sparsight.numerics.checks import check_seed
from sparsight.records.outputs import is_device
from sparsight.report.phase_diagram import described, page, phase_diagram, picture

DEFAULT_SIGMA_B = 0.2
"""Used if the activation has an edge of chaos there, otherwise 0."""


def main(asked: PhaseOptions) -> int:
    out = asked.out
    if out is not None and out.suffix not in (".svg", ".html") and not is_device(out):
        raise Misuse(f"--out must end in .svg or .html, got {out}")
    if asked.sigma_b is not None and not asked.sigma_b >= 0:
        raise Misuse(f"--sigma-b must be at least 0, got {asked.sigma_b:g}")
    checked(check_seed, seed=asked.seed)
    if asked.critical and asked.model is None:
        raise Misuse("--critical needs --model")
    check_outputs(asked)
    network = None if asked.model is None else named_network(asked.model, seed=asked.seed)
    name, activation = asked.activation, None
    if name != "auto":
        activation = _activation(name)
    elif network is None:
        name, activation = "tanh", _activation("tanh")
    else:
        with refusing(form="{}: give --activation"):
            activation = activation_of(network)
        name = getattr(activation, "__name__", None) or type(activation).__name__
    sigma_b = _usual(activation) if asked.sigma_b is None else asked.sigma_b
    if network is not None and asked.critical:
        CriticalStart(activation, sigma_b, asked.seed)(network)
    where = None if network is None else phase_of(network, activation)
    found = phase_diagram(name, activation, sigma_b, network=where)
    draw = page if out is not None and out.suffix == ".html" else picture
    apart = "\n" * (out is not None)
    return give(
        asked, lambda: described(found).rstrip("\n") + apart, lambda: found, out=lambda: draw(found), tell_files=True
    )


def _usual(activation: Any) -> float:
    """0.2, or 0 for an activation without an edge of chaos there."""
    try:
        return edge_of_chaos(activation, DEFAULT_SIGMA_B).sigma_b
    except NoEdgeOfChaos:
        return 0.0


def _activation(name: str) -> Any:
    if ":" in name:
        found = resolved(name)
        if isinstance(found, type):
            found = found()
        if not callable(found):
            raise Misuse(f"{name} must be a function or a module, got {type(found).__name__}")
        return found
    plain = name.lower().replace("_", "-")
    if plain not in NAMED:
        raise Misuse(f"unknown activation {name!r}{near(plain, NAMED) or '; expected one of ' + ', '.join(NAMED)}")
    return NAMED[plain]
