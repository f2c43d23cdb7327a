"""Certificates: bounds and measured errors of neurons, layers and the network, and the sentences about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sparsight.numerics.format import exactly
from sparsight.pruning.sipp.bounds import Bound


@dataclass(frozen=True)
class NeuronCertificate:
    """An output row. Errors are |z_pruned - z| / sum |w| |a|, without the bias."""

    row: int
    kept: int
    total: int  # nonzero weights before pruning
    bound: float  # the larger of plus and minus
    plus: float  # bound of the positive weights' part, relative to it
    minus: float
    kind: Literal["deterministic", "random"]  # "random": the larger bound comes from a sampled group
    measured: float  # largest error on held-out inputs, over all patches
    mean: float  # mean error
    violations: int  # patches with an error above the bound
    patches: int  # patches with a nonzero input


@dataclass(frozen=True)
class LayerCertificate:
    """A weight tensor, for the inputs of its layer in the unpruned network."""

    name: str
    kept: int
    total: int
    bound: float  # of its worst neuron
    mean_bound: float
    vacuous: int  # neurons with a bound of 1 or more
    measured: float
    mean: float
    violations: int
    patches: int
    says: str
    neurons: tuple[NeuronCertificate, ...]


@dataclass(frozen=True)
class NetworkCertificate:
    """The outputs of the pruned network. Errors are |f_pruned - f| / |f| per output."""

    bound: float | None  # the largest over the held-out inputs; None if no bound is known
    within: int  # held-out inputs with a bound below 1
    violations: int  # held-out inputs with an error above their bound
    measured: float  # largest error
    mean: float  # mean over inputs of the largest error of an output
    inputs: int
    says: str


@dataclass(frozen=True)
class Certificate:
    """The error bounds of a pruned network, their failure probability, and measured errors.

    All bounds hold together with probability at least 1 - delta, over the calibration points (drawn independently of
    the inputs to certify) and, for one input, over the sampling.
    """

    delta: float  # delta_points + delta_draws, at most 1
    delta_points: float  # edges x exp(-points / C): an edge's share may exceed C times its sensitivity
    delta_draws: float  # 0 if nothing was sampled
    points: int
    points_needed: int  # for the requested delta
    constant: float
    bound: Bound
    density: float  # kept / prunable weights
    keep_ratio: float  # kept / nonzero parameters before this pruning, including biases
    layers: tuple[LayerCertificate, ...]
    network: NetworkCertificate
    says: tuple[str, ...]


# -- sentences -----------------------------------------------------------------------------------------------------

_ONE = "removing every weight would give an error of exactly 1"


def said(certificate: Certificate) -> Certificate:
    """The certificate with sentences made from its numbers."""
    layers = tuple(replace(layer, says=_layer(layer)) for layer in certificate.layers)
    network = replace(certificate.network, says=_network(certificate.network))
    return replace(certificate, layers=layers, network=network, says=_whole(certificate, layers))


def nothing_certified(certificate: Certificate) -> bool:
    """Whether no pruned neuron and no output has a bound below 1."""
    pruned = [neuron for layer in certificate.layers for neuron in layer.neurons if neuron.kept < neuron.total]
    return bool(pruned) and all(neuron.bound >= 1 for neuron in pruned) and not certificate.network.within


def _layer(layer: LayerCertificate) -> str:
    measured = f"the largest error measured on held-out inputs is {layer.measured:.3g}"
    rows = len(layer.neurons)
    if layer.vacuous == rows:
        text = f"The bound says nothing about {layer.name}: it is at least 1 for each of its {rows} neurons, and {_ONE}"
    elif layer.vacuous:
        text = (
            f"The bound says nothing about {layer.vacuous} of the {rows} neurons of {layer.name}: it is at least 1 "
            f"for them (at most {layer.bound:.3g}), and {_ONE}"
        )
    else:
        text = f"Every neuron of {layer.name} changes by at most {layer.bound:.3g} of its sum |w||a|"
    broken = f"; {layer.violations:,} of {layer.patches:,} values exceeded their bound" if layer.violations else ""
    return f"{text}; {measured}{broken}."


def _network(network: NetworkCertificate) -> str:
    measured = f"the largest relative error of an output on {network.inputs} held-out inputs is {network.measured:.3g}"
    if network.bound is None:
        return f"There is no bound for the outputs, because {network.says}; {measured}."
    if not network.within:
        return f"The bound says nothing about the outputs: it is at least 1 for every held-out input; {measured}."
    text = f"The outputs have a bound below 1 for {network.within} of {network.inputs} held-out inputs"
    broken = f", and exceeded their bound for {network.violations}" if network.violations else ""
    return f"{text}{broken} (the largest bound is {network.bound:.3g}); {measured}."


def _whole(certificate: Certificate, layers: tuple[LayerCertificate, ...]) -> tuple[str, ...]:
    vacuous, neurons = sum(layer.vacuous for layer in layers), sum(len(layer.neurons) for layer in layers)
    lines = [
        f"{exactly(certificate.density)} of the network's prunable weights are kept.",
        f"All bounds hold together, except with probability at most {certificate.delta:.3g}, for the weights as they "
        "were pruned, not after further training."
        if certificate.delta < 1
        else "Nothing is certain: with so few points, the bounds may fail with any probability.",
    ]
    if certificate.points < certificate.points_needed:
        lines.append(
            f"The sensitivities come from {certificate.points} points; the requested delta needs "
            f"{certificate.points_needed}."
        )
    if vacuous:
        lines.append(f"The bound is vacuous (at least 1) for {vacuous} of {neurons} neurons: {_ONE}.")
    broken = sum(layer.violations for layer in layers)
    if broken:
        lines.append(
            f"{broken:,} measured values exceeded their bound: its assumption, that no weight's share exceeds C times "
            "the largest on the calibration points, does not hold for these inputs."
        )
    return tuple(lines)
