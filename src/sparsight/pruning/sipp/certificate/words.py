"""A certificate in plain sentences."""

from __future__ import annotations

import dataclasses

from sparsight.pruning.sipp.certificate.records import Certificate, LayerCertificate, NetworkCertificate

_ONE = "removing every weight would give an error of exactly 1"


def said(certificate: Certificate) -> Certificate:
    """The certificate with its sentences, made from its numbers."""
    layers = tuple(dataclasses.replace(layer, says=_layer(layer)) for layer in certificate.layers)
    network = dataclasses.replace(certificate.network, says=_network(certificate.network))
    return dataclasses.replace(certificate, layers=layers, network=network, says=_whole(certificate, layers))


def nothing_certified(certificate: Certificate) -> bool:
    """Whether no bound below 1 speaks of anything that was pruned: neither of a neuron, nor of the outputs."""
    pruned = [neuron for layer in certificate.layers for neuron in layer.neurons if neuron.kept < neuron.total]
    return bool(pruned) and all(neuron.bound >= 1 for neuron in pruned) and not certificate.network.within


def _layer(layer: LayerCertificate) -> str:
    measured = f"the largest error measured on held-out inputs is {layer.measured:.3g}"
    rows = len(layer.neurons)
    if layer.vacuous == rows:
        text = f"The bound says nothing about {layer.name}: it is 1 or more for each of its {rows} neurons, and {_ONE}"
    elif layer.vacuous:
        text = (
            f"The bound says nothing about {layer.vacuous} of the {rows} neurons of {layer.name}: there it is 1 or "
            f"more (at most {layer.bound:.3g}), and {_ONE}"
        )
    else:
        text = f"Every neuron of {layer.name} keeps its value within {layer.bound:.3g} of its sum |w||a|"
    broken = f"; {layer.violations} of {layer.patches} values were outside their bound" if layer.violations else ""
    return f"{text}; {measured}{broken}."


def _network(network: NetworkCertificate) -> str:
    measured = f"the largest relative error of an output on {network.inputs} held-out inputs is {network.measured:.3g}"
    if network.bound is None:
        return f"There is no bound for the outputs, since {network.says}; {measured}."
    if not network.within:
        return f"The bound says nothing about the outputs: it is 1 or more for every held-out input; {measured}."
    text = (
        f"The outputs keep within their bound of less than 1 for {network.within} of {network.inputs} held-out inputs"
    )
    broken = f", and left it for {network.violations}" if network.violations else ""
    return f"{text}{broken} (the largest bound is {network.bound:.3g}); {measured}."


def _whole(certificate: Certificate, layers: tuple[LayerCertificate, ...]) -> tuple[str, ...]:
    vacuous, neurons = sum(layer.vacuous for layer in layers), sum(len(layer.neurons) for layer in layers)
    lines = [
        f"{100 * certificate.density:.4g} % of the network's prunable weights are kept.",
        f"All bounds hold together but with probability at most {certificate.delta:.3g}, for the weights as they were "
        "pruned, not after any further training."
        if certificate.delta < 1
        else "Nothing is promised: by the points taken, the bounds may fail with any probability.",
    ]
    if certificate.points < certificate.points_needed:
        lines.append(
            f"The sensitivities were taken over {certificate.points} points; the delta asked for needs "
            f"{certificate.points_needed}."
        )
    if vacuous:
        lines.append(f"The bound is vacuous (1 or more) for {vacuous} of {neurons} neurons: {_ONE}.")
    broken = sum(layer.violations for layer in layers)
    if broken:
        lines.append(
            f"{broken} measured values were outside their bound: what it assumes, that no weight's share ever exceeds "
            "C times the largest seen on the calibration points, does not hold for these inputs."
        )
    return tuple(lines)
