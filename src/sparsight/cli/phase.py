"""`sparsight phase`: plot an activation's phase diagram and place a network in it."""

from __future__ import annotations

import json as json_
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, check_outputs, checked, near, resolved
from sparsight.cli.options import Json, Switch, options

if TYPE_CHECKING:
    from torch import nn

DEFAULT_SIGMA_B = 0.2
"""Used if the activation has an edge of chaos there, otherwise 0."""


@dataclass(frozen=True)
class PhaseOptions:
    """Plot an activation's phase diagram: at which weight scale signals die, explode or get through.

    With --model, the table and the plot place each layer of the freshly initialised network in it.
    """

    activation: Annotated[
        str,
        Doc(
            "A name (tanh, relu, gelu, ...) or package.module:function; auto takes the network's own, and tanh without "
            "--model."
        ),
    ] = "auto"
    sigma_b: Annotated[
        float | None,
        Doc(
            "Standard deviation of the biases. Default: 0.2, or 0 for an activation without an edge of chaos there, "
            "such as relu."
        ),
    ] = None
    model: Annotated[
        str | None,
        Doc("A network of the zoo, built for 28 × 28 images and 10 classes, or package.module:attribute."),
    ] = None
    critical: Annotated[Switch, Doc("Draw the network's weights at the edge of chaos first.")] = False
    seed: Annotated[int, Doc("Seed of the network's weights.")] = 0
    json: Json = False
    out: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write the plot to this .svg or .html file; - is standard output.")
    ] = None


def main(argv: list[str]) -> int:
    asked = options(PhaseOptions, argv, "sparsight phase")
    from sparsight.numerics.checks import check_seed
    from sparsight.records.outputs import is_device

    if asked.out is not None and asked.out.suffix not in (".svg", ".html") and not is_device(asked.out):
        raise Misuse(f"--out must end in .svg or .html, got {asked.out}")
    if asked.sigma_b is not None and not asked.sigma_b >= 0:
        raise Misuse(f"--sigma-b must be at least 0, got {asked.sigma_b:g}")
    checked(check_seed, asked.seed)
    if asked.critical and asked.model is None:
        raise Misuse("--critical needs --model")
    return _answer(asked, quiet=check_outputs(asked.json, out=asked.out))


def _answer(asked: PhaseOptions, *, quiet: bool) -> int:
    from sparsight.measure.criticality import CriticalStart, activation_of, phase_of
    from sparsight.records.outputs import write_output
    from sparsight.records.record import to_json
    from sparsight.report.escape import plain, printable
    from sparsight.report.phase_diagram import described, page, phase_diagram, picture

    network = None if asked.model is None else _model(asked.model, asked.seed)
    name, activation = asked.activation, None
    if name != "auto":
        activation = _activation(name)
    elif network is None:
        name, activation = "tanh", _activation("tanh")
    else:
        try:
            activation = activation_of(network)
        except ValueError as error:
            raise Misuse(f"{error}: give --activation") from error
        name = getattr(activation, "__name__", None) or type(activation).__name__
    sigma_b = _usual(activation) if asked.sigma_b is None else asked.sigma_b
    if network is not None and asked.critical:
        CriticalStart(activation, sigma_b, asked.seed)(network)
    where = None if network is None else phase_of(network, activation)
    found = phase_diagram(name, activation, sigma_b, network=where)
    if asked.out is not None:
        text = page(found) if asked.out.suffix == ".html" else picture(found)
        write_output(asked.out, [text.encode()])
    if asked.json:
        sys.stdout.write(json_.dumps(to_json(found), indent=2) + "\n")
        return 0
    if quiet:
        return 0
    sys.stdout.write(plain(described(found)))
    if asked.out is not None:
        sys.stdout.write(f"\nwritten: {printable(str(asked.out))}\n")
    return 0


def _usual(activation: Any) -> float:
    """0.2, or 0 for an activation without an edge of chaos there."""
    from sparsight.measure.criticality import NoEdgeOfChaos, edge_of_chaos

    try:
        return edge_of_chaos(activation, DEFAULT_SIGMA_B).sigma_b
    except NoEdgeOfChaos:
        return 0.0


def _activation(name: str) -> Any:
    from sparsight.measure.criticality import NAMED

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


def _model(spec: str, seed: int) -> nn.Module:
    from sparsight.cli.run_options import look_for
    from sparsight.zoo.networks.build import KNOWN, own

    look_for("model", spec, KNOWN)
    if ":" not in spec:
        return KNOWN[spec.lower().replace("_", "-")](seed=seed)
    try:
        return own(spec, seed)
    except TypeError as error:
        raise Misuse(str(error)) from error
