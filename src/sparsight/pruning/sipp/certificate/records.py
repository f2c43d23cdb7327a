"""Certificates: bounds and measured errors of neurons, layers and the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    kind: Literal["deterministic", "random"]  # "random": the larger bound is that of a sampled group
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
