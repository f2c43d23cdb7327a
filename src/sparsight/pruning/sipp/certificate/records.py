"""What a certificate says: bounds and measured errors of neurons, layers and the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsight.pruning.sipp.bounds import Bound


@dataclass(frozen=True)
class NeuronCertificate:
    """One output row. Errors are |z_pruned - z| / sum |w| |a|, the bias left out."""

    row: int
    kept: int
    total: int  # weights that are not 0 before pruning
    bound: float  # the larger of plus and minus
    plus: float  # bound of the positive weights' part, relative to it
    minus: float
    kind: Literal["deterministic", "random"]  # "random": the bound of a sampled group is the larger, or the only one
    measured: float  # largest error on held-out inputs, over all patches
    mean: float  # mean error
    violations: int  # patches where the error was above the bound
    patches: int  # patches looked at: with a nonzero input


@dataclass(frozen=True)
class LayerCertificate:
    """One weight tensor, given the inputs that its layer has in the unpruned network."""

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
    """The outputs, with every layer pruned. Errors are |f_pruned - f| / |f|, output by output."""

    bound: float | None  # the largest over the held-out inputs; None where no bound for the network is known
    within: int  # held-out inputs whose bound is below 1
    violations: int  # held-out inputs whose error was above their bound
    measured: float  # largest error
    mean: float  # mean over inputs of the largest error of an output
    inputs: int
    says: str


@dataclass(frozen=True)
class Certificate:
    """Which error bound a pruned network satisfies, how sure it is, and what was measured beside it.

    All bounds hold together with probability at least 1 - delta, over the calibration points (drawn independently of
    the inputs that the bounds are asked of) and, for one input, over the sampling.
    """

    delta: float  # delta_points + delta_draws, at most 1
    delta_points: float  # edges x exp(-points / C): an edge's share may exceed C times its sensitivity
    delta_draws: float  # 0 where nothing was sampled
    points: int
    points_needed: int  # for delta_points of the delta that was asked for
    constant: float
    bound: Bound
    density: float  # kept / prunable weights
    keep_ratio: float  # parameters kept, of those that were not 0 before this pruning, biases included
    layers: tuple[LayerCertificate, ...]
    network: NetworkCertificate
    says: tuple[str, ...]
