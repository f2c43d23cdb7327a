"""What a ledger says: frozen records of numbers, each counted or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsight.numerics.checks import check_threads, check_whole
from sparsight.records.record import SCHEMA

CODE = "needs the network's code and the shape of its input"
REQUEST = "measured on request"
"""Why something may be missing."""


@dataclass(frozen=True)
class Counted:
    """Exact numbers. None: not counted; `Ledger.missing` says why."""

    parameters: int
    zeros: int  # of the parameters, those that are 0
    prunable: int | None  # numbers in prunable tensors
    alive: int | None  # of these, those that are not 0
    dense_bytes: int
    file_bytes: int | None  # of all files, whatever else is in them
    packed_bytes: int | None
    floor_bytes: int | None  # the entropy floor
    dense_macs: int | None  # multiply-accumulates of one input
    effective_macs: int | None  # of these, those with a weight that is not 0
    minus_zeros: int = 0  # numbers that are -0.0, which a packed file stores as values


@dataclass(frozen=True)
class Times:
    """Seconds of wall time of a call, over the rounds; `spread` lies between the quartiles."""

    median: float
    minimum: float
    spread: float


@dataclass(frozen=True)
class Latency:
    """A way to compute the network, beside the same network without zeros."""

    runtime: str  # "sparsight", or a rival of `bench`
    batch: int
    threads: int
    sparse: Times
    dense: Times
    dense_in: str  # what the dense one ran in: the same, and for "sparsight" the fastest of the others

    @property
    def ratio(self) -> float:
        """How many times as fast the sparse one is, by the medians."""
        return self.dense.median / self.sparse.median

    @property
    def faster(self) -> bool:
        """Whether it is faster beyond doubt: medians differ by more than both spreads, and least times by 5 % too."""
        gap = self.dense.median - self.sparse.median
        return gap > self.sparse.spread + self.dense.spread and self.dense.minimum >= 1.05 * self.sparse.minimum


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that loads a network and calls it once, in bytes."""

    runtime: str
    batch: int
    sparse: int  # the most at any time
    dense: int | None  # the same network without zeros; of "sparsight" in torch


@dataclass(frozen=True)
class Measured:
    """What clocks and the system said, on one machine."""

    machine: Mapping[str, Any]
    rounds: int
    latency: tuple[Latency, ...]
    memory: tuple[Memory, ...]


@dataclass(frozen=True)
class Request:
    """What to measure: at which batches and threads (torch's number without any), in which runtimes, how often.

    Sparsight's runtime is always among them. ValueError for a number below 1.
    """

    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    runtimes: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
    rounds: int = 25

    def __post_init__(self) -> None:
        for batch in self.batches:
            check_whole(1, batch=batch)
        for threads in self.threads:
            check_threads(threads)
        check_whole(1, rounds=self.rounds)


@dataclass(frozen=True)
class Ledger:
    """What a network is on disk, in memory and in time: one number for each question, none standing for another."""

    source: str
    format: str
    counted: Counted
    measured: Measured | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # why a field of `counted` or `measured` is not there
    level: int | None = None  # of a run
    schema: int = SCHEMA
