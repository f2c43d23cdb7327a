"""The record of a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsight.records.record import SCHEMA
from sparsight.train.metric import Metric


@dataclass(frozen=True)
class Step:
    """One density on the way from dense to sparse, compared with the dense network."""

    density: float
    level: int | None  # of one run; of several, the level with this density in all of them, if any
    difference: float  # from dense, larger is better: a share, or units of another metric
    lower: float | None  # its one-sided lower bound; None: unknown
    n: int | None  # answers of one run, or seeds of several
    interpolated: bool = False  # between two levels, in some run


@dataclass(frozen=True)
class Evidence:
    """Recorded evidence for or against pruning further than the network found."""

    kind: Literal["pq-minimum", "pq-bound", "certificate", "knee", "flow", "collapse"]
    says: Literal["for", "against", "open"]
    text: str


@dataclass(frozen=True)
class Pays:
    """A class with significantly lower test accuracy than in the dense network."""

    name: str
    impact: float  # difference of shares, below 0
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """The speed-up over the network without zeros, in a runtime on the machine that measured it."""

    runtime: str
    at: str  # "batch 1, 1 thread"
    ratio: float
    faster: bool  # significantly, as in the ledger


@dataclass(frozen=True)
class Verdict:
    """How far a setting can be pruned within a margin of dense, according to its runs."""

    setting: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: Metric
    margin: float  # points of a share, or percent of the dense network's value
    confidence: float
    basis: str  # what the bounds are over
    steps: tuple[Step, ...]  # from dense to sparse
    density: float | None  # of the sparsest network within the margin; None: there is none
    level: int | None  # of it, in one run or in all
    refused: float | None  # the next density
    beyond: tuple[float, ...]  # sparser ones that pass alone
    prunable: int
    evidence: tuple[Evidence, ...]
    pays: tuple[Pays, ...] | None  # None: not known
    dense_bytes: int | None
    packed_bytes: int | None
    speed: tuple[Speed, ...]
    epochs: float  # of all levels and controls of all runs
    optimizer_steps: int
    seconds: float | None
    surer: tuple[str, ...]  # what to run to be surer
    schema: int = SCHEMA
