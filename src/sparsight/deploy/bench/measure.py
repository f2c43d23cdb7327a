"""Timing several ways of computing the same thing, in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

SAMPLE = 0.005
"""Seconds that a sample takes at least: clocks and a first call weigh little in it."""


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the least process time, the least and the median wall time over the rounds, and its spread."""

    process: float
    wall: float
    median: float
    spread: float = 0.0  # of wall time, between the quartiles

    def counted(self, threads: int) -> float:
        """What counts: on one thread process time, which neighbours on the machine do not change; else wall time."""
        return self.process if threads == 1 else self.wall


def timed(ways: Mapping[str, Callable[[], Any]], rounds: int, sample: float = SAMPLE) -> dict[str, Timing]:
    """Every way once a round, each time in another order; a sample is a mean over calls that take `sample` seconds.

    Before its sample a way is called without being timed until half of `sample` is over: its data come back into the
    caches, and the threads of the way before it, which may spin for a while, go to sleep.
    """
    calls = {name: _calls(way, sample) for name, way in ways.items()}
    process: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for turn in range(rounds):
        shift = turn % len(order)
        for name in order[shift:] + order[:shift]:
            way = ways[name]
            _warm(way, sample / 2)
            start, begun = perf_counter(), process_time()
            for _ in range(calls[name]):
                way()
            process[name].append((process_time() - begun) / calls[name])
            wall[name].append((perf_counter() - start) / calls[name])
    return {name: Timing(min(process[name]), min(wall[name]), *_middle(wall[name])) for name in ways}


def _middle(seconds: Sequence[float]) -> tuple[float, float]:
    """Median, and the distance between the quartiles."""
    low, _, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else (0.0, 0.0, 0.0)
    return statistics.median(seconds), high - low


def quickest(ways: Mapping[str, Callable[[], Any]], rounds: int = 5) -> str:
    """The name of the way with the least process time."""
    found = timed(ways, rounds)
    return min(found, key=lambda name: found[name].process)


def _warm(way: Callable[[], Any], seconds: float) -> None:
    start = perf_counter()
    while True:
        way()
        if perf_counter() - start >= seconds:
            return


def _calls(way: Callable[[], Any], sample: float) -> int:
    """How many calls take that long, judged by the faster of two after a first that may compile."""
    way()
    took = math.inf
    for _ in range(2):
        start = perf_counter()
        way()
        took = min(took, perf_counter() - start)
    return max(1, math.ceil(sample / max(took, 1e-7)))
