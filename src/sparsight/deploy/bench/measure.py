"""Times several ways to compute the same thing, in turn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

SAMPLE = 0.005
"""A sample takes at least this many seconds, so clock resolution and a first call matter little."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call: minimum process time, minimum and median wall time over the rounds, and its spread."""

    process: float
    wall: float
    median: float
    spread: float = 0.0  # interquartile range of the wall time

    def counted(self, threads: int) -> float:
        """Process time on one thread, which other programs do not affect; otherwise wall time."""
        return self.process if threads == 1 else self.wall


def timed(ways: Mapping[str, Callable[[], Any]], rounds: int, sample: float = SAMPLE) -> dict[str, Timing]:
    """Time every way once per round, in a new order each time; a sample is a mean over calls in `sample` seconds.

    Before each sample, a way is called untimed for half of `sample`: its data returns to the caches, and the threads of
    the previous way, which may spin for a while, go to sleep.
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
    low, _, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else (0.0, 0.0, 0.0)
    return statistics.median(seconds), high - low


def quickest(ways: Mapping[str, Callable[[], Any]], rounds: int = 5) -> str:
    """The name of the way with the minimum process time."""
    found = timed(ways, rounds)
    return min(found, key=lambda name: found[name].process)


def _warm(way: Callable[[], Any], seconds: float) -> None:
    start = perf_counter()
    while True:
        way()
        if perf_counter() - start >= seconds:
            return


def _calls(way: Callable[[], Any], sample: float) -> int:
    """How many calls take that long, from the faster of two calls after a first one that may compile."""
    way()
    took = math.inf
    for _ in range(2):
        start = perf_counter()
        way()
        took = min(took, perf_counter() - start)
    return max(1, math.ceil(sample / max(took, 1e-7)))
