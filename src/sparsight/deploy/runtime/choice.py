"""Times ways to compute the same thing, in turn, until the fastest is clear; keeps the results on disk."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from platformdirs import user_cache_dir

import sparsight
from sparsight.checkpoint.writing import write_atomically
from sparsight.numerics.kernels.jit import processor

_ROUNDS = 5  # at least
_CLEAR = 1.15  # a speed-up that needs no more rounds
_MARGIN = 1.03  # sparse must be faster by this factor, so a tie never makes a network slower
_MOST = 5000  # at most this many stored measurements


@dataclass(frozen=True)
class Timed:
    """Minimum milliseconds of each way; the first is torch's."""

    milliseconds: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """The first way's time over that of the fastest other."""
        first, *others = self.milliseconds.values()
        return first / min(others)

    @property
    def fastest(self) -> str:
        first, *others = self.milliseconds
        best = min(others, key=self.milliseconds.__getitem__)
        return best if self.ratio > _MARGIN else first


def timed(
    ways: Mapping[str, Callable[[], Any]], seconds: float, key: Any, within: AbstractContextManager | None = None
) -> Timed:
    """Time each way in turn, round after round, until the ranking is clear, for about `seconds` at most.

    `key` identifies the computation: a stored measurement with as many threads on this machine is reused. Measures
    inside the block `within`.
    """
    name = _name(key)
    known = _read().get(name)
    if isinstance(known, dict) and known.keys() == ways.keys() and all(_is_time(v) for v in known.values()):
        return Timed(known)
    with within or nullcontext():
        found = _measured(ways, seconds)
    _write({**dict(list(_read().items())[-_MOST:]), name: found})
    return Timed(found)


def _measured(ways: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    least = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        for way in ways.values():  # compiles, and fetches weights
            way()
        begun, rounds, clear = perf_counter(), 0, False
        while rounds < _ROUNDS or (not clear and perf_counter() - begun < seconds):
            for name, way in ways.items():
                start = perf_counter()
                way()
                least[name] = min(least[name], 1e3 * (perf_counter() - start))
            rounds += 1
            first, second, *_ = sorted(least.values())
            clear = second > _CLEAR * first
    return least


def _is_time(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < float("inf")


def _name(key: Any) -> str:
    where = (platform.node(), processor(), torch.get_num_threads(), torch.__version__, sparsight.__version__)
    return hashlib.sha256(repr((where, key)).encode()).hexdigest()


def _file() -> Path:
    return Path(user_cache_dir("sparsight")) / "runtime.json"


def _read() -> dict[str, Any]:
    """Stored measurements; empty for an unreadable or foreign file."""
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(measurements: dict[str, Any]) -> None:
    """Store measurements, if possible."""
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), [json.dumps(measurements).encode()])
