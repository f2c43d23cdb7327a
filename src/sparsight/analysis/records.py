"""The records of an analysis, written as JSON like those of a run."""

from __future__ import annotations

from dataclasses import dataclass

from sparsight.analysis.sampled import DELTA
from sparsight.model.left_out import LeftOut

SCHEMA = 1
"""Version of the records below."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles over neurons in `Neurons.index`."""


@dataclass(frozen=True)
class Keep:
    """How much must stay at one eta: pruned weights may hold at most eta times the p-mass of the kept ones.

    All shares are relative to the nonzero weights.
    """

    eta: float
    bound: float  # r, the smallest count that the bound allows; not rounded
    share: float  # r / alive: at least this share must stay
    prune: int  # what SAP would remove, with the analysis' gamma and beta
    exact: float | None  # the share at which the pruned p-mass reaches eta; None without a sample
    exact_low: float | None  # bounds of `exact`, which fail with probability `delta` over the draw
    exact_high: float | None


@dataclass(frozen=True)
class Measure:
    """The PQ index at one (p, q), and the numbers derived from it."""

    p: float
    q: float
    index: float  # 0.0 where undefined
    effective: float  # effective count: the bound at eta = 0
    keeps: tuple[Keep, ...]  # one per eta


@dataclass(frozen=True)
class Summary:
    """A group of weights. All numbers except `count`, `zeros` and `smallest` describe its nonzero weights."""

    count: int
    zeros: int  # weights that are exactly 0
    smallest: float  # smallest magnitude of all weights: 0 if any weight is
    largest: float
    defined: bool  # False: all weights are 0, and the index means nothing
    measures: tuple[Measure, ...]  # one per (p, q)
    hoyer: float  # (sqrt(d) - |w|_1 / |w|_2) / (sqrt(d) - 1)
    gini: float | None  # None without a sample
    gini_error: float | None  # bound on its error, exceeded with probability `delta` over the draw
    octaves: tuple[tuple[int, int], ...]  # (e, weights with magnitude in [2^e, 2^(e+1)))
    draws: int | None = None  # weights drawn for Gini index, exact eta and octaves; None if all or none were used

    @property
    def alive(self) -> int:
        """Nonzero weights: d in the formulas."""
        return self.count - self.zeros


@dataclass(frozen=True)
class Neurons:
    """The output rows of one tensor at one (p, q)."""

    p: float
    q: float
    count: int
    undefined: int  # rows with only zeros
    index: tuple[float, ...]  # PQ index at QUANTILES, over the defined rows
    prune: tuple[int, ...]  # what SAP would remove if each neuron were its own group; one per eta


@dataclass(frozen=True)
class Row:
    """One neuron. `index` has a value for each (p, q) of the analysis, in order."""

    zeros: int
    defined: bool
    index: tuple[float, ...]


@dataclass(frozen=True)
class Tensor:
    """One analysed tensor."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...]  # further names of the same tensor
    summary: Summary
    neurons: tuple[Neurons, ...]  # one per (p, q); empty if not requested or too many
    rows: tuple[Row, ...] = ()  # every neuron, if requested


@dataclass(frozen=True)
class Listed:
    """A tensor that was not analysed."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Analysis:
    """How compressible a network is. Contains nothing that depends on time, threads or budget."""

    source: str
    format: str
    pairs: tuple[tuple[float, float], ...]
    etas: tuple[float, ...]
    gamma: float
    beta: float
    exact: bool  # whether Gini index and exact eta are exact for all tensors
    whole: Summary | None  # all analysed tensors together; None if not requested or without tensors
    tensors: tuple[Tensor, ...]  # in the order of the file
    listed: tuple[Listed, ...]
    left_out: tuple[LeftOut, ...] = ()  # for a module: matrix-shaped tensors in `listed` that `exclude` does not name
    delta: float = DELTA  # the bounds of each summary fail with probability `delta` over the draw
    schema: int = SCHEMA

    @property
    def count(self) -> int:
        """Weights analysed."""
        return sum(t.summary.count for t in self.tensors)

    @property
    def zeros(self) -> int:
        """How many weights are exactly 0."""
        return sum(t.summary.zeros for t in self.tensors)

    @property
    def sampled(self) -> bool:
        """Whether Gini index, exact eta and magnitudes were computed."""
        return any(t.summary.gini is not None for t in self.tensors)
