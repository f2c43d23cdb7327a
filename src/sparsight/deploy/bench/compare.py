"""Compares the runtime with its rivals on a case: times, errors, speed-ups."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from sparsight.deploy.bench.cases import Case
from sparsight.deploy.bench.measure import Timing, timed
from sparsight.deploy.bench.rivals import Rival, Unavailable, Way
from sparsight.deploy.runtime.fast import sparse_runtime
from sparsight.deploy.runtime.program import Program, compiled
from sparsight.deploy.runtime.visit import Planned, held
from sparsight.numerics.checks import check_whole

OURS, CONVERTING, BFLOAT16, DENSE = "sparsight", "sparsight, converting", "sparsight, bf16 weights", ", dense"
ERROR = 1e-5
"""Largest error of the runtime with weights in float32, relative to the largest output."""

RIVALS_ERROR = {"fp32": 1e-3, "bf16": 0.2}
"""Above this, a rival computes something else."""


@dataclass(frozen=True)
class Row:
    """A runtime's precision, whether it is ours and skips zeros, its error and its times.

    The error is the largest difference from float64, over the largest output.
    """

    name: str
    precision: Literal["fp32", "bf16"]
    ours: bool
    sparse: bool
    error: float
    seconds: float
    timing: Timing


@dataclass(frozen=True)
class Comparison:
    """The rows of a case, ours first, and why other rivals are missing."""

    case: str
    density: float
    batch: int
    threads: int
    memory: int  # bytes of activations and scratch per call of our runtime
    rows: tuple[Row, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    plan: tuple[Planned, ...] = ()  # of a network: its layers

    @property
    def ours(self) -> Row:
        return self.rows[0]

    def fastest(self, *precisions: str, dense: bool = False) -> Row | None:
        """The fastest rival of this precision (default: of any), or None."""
        rivals = [row for row in self.rows if not row.ours and not (dense and row.sparse)]
        fitting = [row for row in rivals if not precisions or row.precision in precisions]
        return min(fitting, key=lambda row: row.seconds, default=None)

    def ratio(self, *precisions: str, dense: bool = False) -> float | None:
        """That rival's time divided by ours."""
        rival = self.fastest(*precisions, dense=dense)
        return None if rival is None else rival.seconds / self.ours.seconds


def compare(case: Case, rivals: Sequence[Rival], rounds: int, dense: Case | None = None) -> Comparison:
    """Check the results of the runtime and its rivals against float64, then time all in turn.

    For a single layer, the first rows are our operation alone in its own layout, the call with conversions from and to
    torch's layout, and the operation with bfloat16 weights; for a network, only the whole call. Given `dense`, every
    rival runs it too, in rows with `DENSE` at the end of their names.
    Raises: ValueError for rounds < 1; RuntimeError if our error is above `ERROR`, or an output is not finite.
    """
    check_whole(1, rounds=rounds)
    missing: dict[str, str] = {}
    with torch.inference_mode():
        want = _wanted(case)
        ways, memory, plan = ours(case)
        found: dict[str, tuple[Way, Callable[[float, Timing], Row]]] = {}
        for name, way in ways.items():
            error, half = _error(way.result(), want), name == BFLOAT16
            if not error <= (RIVALS_ERROR["bf16"] if half else ERROR):
                raise RuntimeError(f"{case.name}: {name} is wrong by {error:.1e} of the largest output")
            found[name] = way, partial(Row, name, "bf16" if half else "fp32", True, True, error)
        tried = [(rival.name, rival, case, want) for rival in rivals]
        if dense is not None:
            want = _wanted(dense)
            tried += [(rival.name + DENSE, rival, dense, want) for rival in rivals]
        for name, rival, given, wanted in tried:
            try:
                way = rival.make(given)
                error = _error(way.result(), wanted)
                if not error <= RIVALS_ERROR[rival.precision]:
                    raise Unavailable(f"its result is wrong by {error:.1e} of the largest output")
                found[name] = way, partial(Row, name, rival.precision, False, rival.sparse, error)
            except Unavailable as why:
                missing[name] = str(why)
        times = timed({name: way.call for name, (way, _) in found.items()}, rounds)
    threads = torch.get_num_threads()
    rows = tuple(row(times[name].counted(threads), times[name]) for name, (_, row) in found.items())
    return Comparison(case.name, case.density, len(case.x), threads, memory(), rows, missing, plan)


def _wanted(case: Case) -> Tensor:
    want = copy.deepcopy(case.module).double()(case.x.double())
    if not want.isfinite().all():
        raise RuntimeError(f"{case.name}: outputs are not finite, so no error can be told")
    return want


def ours(case: Case) -> tuple[dict[str, Way], Callable[[], int], tuple[Planned, ...]]:
    """Our runtime's variants, the bytes that a call holds (after the first), and the layers of a network."""
    x = case.x.contiguous()
    if case.graph is None:
        fast = sparse_runtime(case.module, x)
        return {OURS: Way(lambda: fast(x), lambda: fast(x))}, partial(held, fast), tuple(vars(fast)["plan"])
    x = x if x.dim() == 4 else x[:, :, None, None]
    program, half = (compiled(case.graph, len(x), half=half) for half in (False, True))
    outputs = case.module(case.x).shape

    def way(call: Callable[[], Any], of: Program) -> Way:
        return Way(call, lambda: of(x)[0].reshape(outputs))

    ways = {OURS: way(program.inner(x), program), CONVERTING: way(lambda: program(x), program)}
    ways[BFLOAT16] = way(half.inner(x), half)
    return ways, program.memory, ()


def _error(got: Tensor, want: Tensor) -> float:
    scale = float(want.abs().max())
    return float((got.double() - want).abs().max()) / (scale or 1.0)
