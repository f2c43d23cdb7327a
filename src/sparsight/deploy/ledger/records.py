"""Frozen records of a ledger's numbers, counted or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsight.numerics.checks import check_threads, check_whole
from sparsight.records.record import SCHEMA

CODE = "needs the network's code and the shape of its input"
REQUEST = "measured on request"
"""Reasons for missing numbers."""


@dataclass(frozen=True)
class Counted:
    """Exact numbers. None: not counted; `Ledger.missing` says why."""

    parameters: int
    zeros: int  # parameters that are 0
    prunable: int | None  # weights in prunable tensors
    alive: int | None  # the nonzero ones among these
    dense_bytes: int
    file_bytes: int | None  # of all files, including anything else in them
    packed_bytes: int | None
    floor_bytes: int | None  # the entropy floor
    dense_macs: int | None  # multiply-accumulates of one input
    effective_macs: int | None  # with a nonzero weight
    minus_zeros: int = 0  # weights of -0.0, which a packed file stores as values


@dataclass(frozen=True)
class Times:
    """Wall seconds per call over the rounds; `spread` is the interquartile range."""

    median: float
    minimum: float
    spread: float


@dataclass(frozen=True)
class Latency:
    """Times of the network in a runtime, and of the same network without zeros."""

    runtime: str  # "sparsight", or a rival of `bench`
    batch: int
    threads: int
    sparse: Times
    dense: Times
    dense_in: str  # the dense network's runtime: the same, or for "sparsight" the fastest other one

    @property
    def ratio(self) -> float:
        """The speed-up, from the medians."""
        return self.dense.median / self.sparse.median

    @property
    def faster(self) -> bool:
        """Whether it is significantly faster: medians differ by more than both spreads, and minima by 5 %."""
        gap = self.dense.median - self.sparse.median
        return gap > self.sparse.spread + self.dense.spread and self.dense.minimum >= 1.05 * self.sparse.minimum


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a process that loads a network and calls it once, in bytes."""

    runtime: str
    batch: int
    sparse: int
    dense: int | None  # the same network without zeros; for "sparsight" in torch


@dataclass(frozen=True)
class Measured:
    """Times and memory on one machine."""

    machine: Mapping[str, Any]
    rounds: int
    latency: tuple[Latency, ...]
    memory: tuple[Memory, ...]


@dataclass(frozen=True)
class Request:
    """What to measure: batches, threads (default: torch's number), runtimes besides Sparsight's, rounds.

    Raises: ValueError for a number below 1.
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
    """Size, operations, time and memory of a network."""

    source: str
    format: str
    counted: Counted
    measured: Measured | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # why a field of `counted` or `measured` is missing
    level: int | None = None  # of a run
    schema: int = SCHEMA
