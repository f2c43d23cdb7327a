"""Describes a certificate in sentences."""

from __future__ import annotations

import dataclasses

from sparsight.numerics.format import exactly
from sparsight.pruning.sipp.certificate.records import Certificate, LayerCertificate, NetworkCertificate

_ONE = "removing every weight would give an error of exactly 1"


def said(certificate: Certificate) -> Certificate:
    """The certificate with sentences made from its numbers."""
    layers = tuple(dataclasses.replace(layer, says=_layer(layer)) for layer in certificate.layers)
    network = dataclasses.replace(certificate.network, says=_network(certificate.network))
    return dataclasses.replace(certificate, layers=layers, network=network, says=_whole(certificate, layers))


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
