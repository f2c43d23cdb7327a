"""A planned network with its memory, ready to be called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsight.deploy.runtime.emit import ARENA, Emitter, Table
from sparsight.deploy.runtime.graph import Graph
from sparsight.deploy.runtime.plan import Buffer, Plan, planned
from sparsight.numerics.kernels.sell_llvm import WINDOW
from sparsight.numerics.kernels.tile_llvm import BYTES
from sparsight.numerics.kernels.walk import COUNTERS, walk


def aligned(size: int) -> np.ndarray:
    """Bytes that begin where a line of the cache does."""
    memory = np.zeros(size + BYTES, np.uint8)
    start = -memory.ctypes.data % BYTES
    return memory[start : start + size]


def _bytes(plan: Plan, b: Buffer) -> int:
    size = b.channels * (4 if b.layout is None else b.layout.plane) * plan.groups
    beyond = 4 * WINDOW if b.layout is None else 0  # a vector's window is read whole
    return -(-(size + beyond) // BYTES) * BYTES


def arranged(plan: Plan) -> tuple[dict[int, int], int]:
    """Where in the arena each buffer lies, by identity, and the arena's size: what is not needed at once may overlap."""
    lives: dict[int, tuple[Buffer, int, int]] = {}
    for i, step in enumerate(plan.steps):
        for b in (step.out, step.x, step.add):
            if b is not None and b.whole.rows is None:
                whole = b.whole
                first = lives[id(whole)][1] if id(whole) in lives else i
                lives[id(whole)] = (whole, first, i)
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first step, last step
    addresses = {}
    for number, (b, first, last) in lives.items():
        size, at = _bytes(plan, b), 0
        for begin, end, _, _ in sorted(p for p in placed if p[2] <= last and p[3] >= first):
            if at + size <= begin:
                break
            at = max(at, end)
        placed.append((at, at + size, first, last))
        addresses[number] = at
    return addresses, max((end for _, end, _, _ in placed), default=0)


@dataclass
class _Call:
    """Memory of one call at a time."""

    arena: np.ndarray
    scratch: np.ndarray
    counters: np.ndarray


@dataclass
class Program:
    """A network for so many images. Calls from several threads each have memory of their own."""

    plan: Plan
    table: Table
    arena: int
    rows: np.ndarray
    _free: list[_Call] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def memory(self) -> int:
        """Bytes of activations and scratch of a call."""
        return self.arena + self.table.scratch * torch.get_num_threads()

    def _memory_of_a_call(self) -> _Call:
        with self._lock:
            call = self._free.pop() if self._free else None
        threads = torch.get_num_threads()
        if call is None or len(call.scratch) < threads * self.table.scratch:
            counters = np.zeros(len(self.rows) * COUNTERS, np.int64)
            call = _Call(aligned(self.arena), aligned(threads * self.table.scratch), counters)
        return call

    def _walk(self, rows: np.ndarray, call: _Call, tensors: list[Tensor]) -> None:
        addresses = [call.arena.ctypes.data, *(t.data_ptr() for t in tensors)]
        slots = np.array([0] * ARENA + addresses, np.int64)
        walk(rows, slots, call.counters, call.scratch.ctypes.data, self.table.scratch)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs (images, channels, height, width), from inputs of that shape: float32, contiguous."""
        outputs = [torch.empty(self.plan.images, b.channels, *b.size) for b in self.plan.outputs]
        call = self._memory_of_a_call()
        self._walk(self.rows, call, [*inputs, *outputs])
        with self._lock:
            self._free.append(call)
        return outputs

    def inner(self, *inputs: Tensor) -> Callable[[], None]:
        """The operations alone, on what these inputs gave, without what lays activations out anew: for timing."""
        outputs = self(*inputs)
        call, chosen = self._free[-1], [step.operation is not None for step in self.plan.steps]
        rows = np.ascontiguousarray(self.rows[np.array(chosen)])
        return lambda: self._walk(rows, call, [*inputs, *outputs])


def compiled(graph: Graph, images: int) -> Program:
    """A graph as a program for so many images."""
    plan = planned(graph, images)
    addresses, size = arranged(plan)
    emitter = Emitter(plan, addresses)
    for step in plan.steps:
        emitter.emit(step)
    table = emitter.table
    table.scratch = -(-table.scratch // BYTES) * BYTES
    return Program(plan, table, size, np.array(table.rows, np.int64))
