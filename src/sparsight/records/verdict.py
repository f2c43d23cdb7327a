"""How far one can go: the record of a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsight.records.record import SCHEMA
from sparsight.train.metric import Metric


@dataclass(frozen=True)
class Step:
    """One density on the way from dense to sparse, beside the dense network."""

    density: float
    level: int | None  # of one run; of several, the level that lies at this density in all of them, if one does
    difference: float  # from dense, larger is better: a share, or units of another metric
    lower: float | None  # its one-sided lower bound; None: nothing to tell it by
    n: int | None  # what the bound is of: answers of one run, seeds of several
    interpolated: bool = False  # between two levels, in some run


@dataclass(frozen=True)
class Evidence:
    """Something recorded that speaks for pruning further than the network found, or against it."""

    kind: Literal["pq-minimum", "pq-bound", "certificate", "knee", "flow", "collapse"]
    says: Literal["for", "against", "open"]
    text: str


@dataclass(frozen=True)
class Pays:
    """A class whose accuracy on the test split is lower than the dense network's beyond doubt."""

    name: str
    impact: float  # difference of shares, below 0
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """How many times as fast the network is as without zeros, in one runtime on the machine that measured it."""

    runtime: str
    at: str  # "batch 1, 1 thread"
    ratio: float
    faster: bool  # beyond doubt, as the ledger tells it


@dataclass(frozen=True)
class Verdict:
    """How far a setting can be pruned within a margin of dense, as far as its runs tell."""

    setting: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: Metric
    margin: float  # points of a share, or percent of the dense network's value
    confidence: float
    basis: str  # what the bounds are of
    steps: tuple[Step, ...]  # from dense to sparse
    density: float | None  # of the sparsest network within the margin; None: none is
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
