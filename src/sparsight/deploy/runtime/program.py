"""A planned network with its memory for a number of images, and a runner for batches of any size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsight.deploy.runtime.emit import Emitter, Weights
from sparsight.deploy.runtime.graph import Graph
from sparsight.deploy.runtime.plan import Buffer, Plan, planned
from sparsight.deploy.runtime.tables import ARENA, Table
from sparsight.numerics.kernels.llvm import BYTES, LANES
from sparsight.numerics.kernels.matvec import WINDOW
from sparsight.numerics.kernels.walk import Job

_KEPT = 8  # programs of a graph, by number of images, and graphs of a layer, by input shape
_Key = TypeVar("_Key")
_Made = TypeVar("_Made")
_FEW_ROWS = 3  # up to this many matrix-vector products are faster than one product with 16 columns


def _bytes(plan: Plan, b: Buffer) -> int:
    size = b.channels * (4 if b.layout is None else b.layout.plane) * plan.groups
    beyond = 4 * WINDOW if b.layout is None else 0  # a vector's window is read whole
    return -(-(size + beyond) // BYTES) * BYTES


def arranged(plan: Plan) -> tuple[dict[int, int], int]:
    """Each buffer's place in the arena, by identity, and the arena's size. Buffers not used together may overlap."""
    lives: dict[int, tuple[Buffer, int, int]] = {}
    for i, step in enumerate(plan.steps):
        for b in (step.out, step.x, step.add):
            if b is not None and b.whole.rows is None:
                _, first, _ = lives.get(id(b.whole), (b.whole, i, i))
                lives[id(b.whole)] = (b.whole, first, i)
    placed: list[tuple[int, int, int, int]] = []  # start, end, first step, last step
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
class Program:
    """A network for a number of images. Calls from several threads each have their own memory."""

    plan: Plan
    table: Table
    arena: int
    rows: np.ndarray
    _free: list[Job] = field(default_factory=list)

    def memory(self) -> int:
        """Bytes of activations and scratch in a call."""
        return self.arena + self.table.scratch * torch.get_num_threads()

    def _job(self, rows: np.ndarray) -> Job:
        return Job(rows, ARENA + 1 + len(self.plan.inputs) + len(self.plan.outputs), self.table.scratch, self.arena)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Outputs (images, channels, height, width), from inputs of that shape: float32, contiguous."""
        outputs = [torch.empty(self.plan.images, b.channels, *b.size) for b in self.plan.outputs]
        self.into(outputs, *inputs)
        return outputs

    def into(self, outputs: list[Tensor], *inputs: Tensor) -> None:
        """The same, written to tensors of those sizes."""
        try:
            job = self._free.pop()  # one step for the interpreter: no other thread gets the same
        except IndexError:
            job = None
        if job is None or job.threads != torch.get_num_threads():
            job = self._job(self.rows)
        job.slots[ARENA:] = [job.arena_address, *(t.data_ptr() for t in (*inputs, *outputs))]
        job.run()
        self._free.append(job)

    def inner(self, *inputs: Tensor) -> Callable[[], None]:
        """The operations without conversions of layouts, on the activations of these inputs, for timing."""
        self(*inputs)
        job = self._job(self.rows[np.array([step.operation is not None for step in self.plan.steps])])
        job.arena[:] = self._free[-1].arena
        job.slots[ARENA] = job.arena_address
        return job.run


def compiled(graph: Graph, images: int, weights: Weights | None = None, half: bool = False) -> Program:
    """A graph as a program for a number of images. Programs of one graph may share prepared `weights`.

    `half`: weights are stored in bfloat16, rounded; activations and sums stay float32.
    """
    plan = planned(graph, images)
    addresses, size = arranged(plan)
    emitter = Emitter(plan, addresses, {} if weights is None else weights, half)
    for step in plan.steps:
        emitter.emit(step)
    table = emitter.table
    table.scratch = -(-table.scratch // BYTES) * BYTES
    return Program(plan, table, size, np.array(table.rows, np.int64))


def kept(known: dict[_Key, _Made], key: _Key, make: Callable[[], _Made]) -> _Made:
    """`known[key]`, made if missing; drops the oldest entries beyond `_KEPT`."""
    if key not in known:
        while len(known) >= _KEPT:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]


@dataclass
class Runner:
    """Maps a batch (N, ...) of any N to the result of the traced module."""

    graph: Graph
    shape: tuple[int, ...]
    half: bool = False
    _weights: Weights = field(default_factory=dict)
    _programs: dict[int, Program] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def takes(self, x: Any) -> bool:
        """Whether this is a supported input, with any number of images or rows, even none."""
        return (
            isinstance(x, Tensor)
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and x.layout == torch.strided
            and tuple(x.shape[1:]) == self.shape
            and not torch.is_autocast_enabled("cpu")
        )

    def program(self, images: int) -> Program:
        with self._lock:
            return kept(self._programs, images, lambda: compiled(self.graph, images, self._weights, self.half))

    def memory(self) -> int:
        """Bytes of activations and scratch of all programs so far."""
        return sum(program.memory() for program in self._programs.values())

    def parts(self, images: int) -> list[int]:
        """Images per program: at least 16 as lanes, a few one by one, because unused lanes cost as much as others."""
        if self.graph.flat:
            return [images] if images > _FEW_ROWS else [1] * images
        left = images % LANES
        return [*([images - left] if images >= LANES else []), *[1] * left]

    def __call__(self, x: Tensor) -> Any:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the sparse runtime computes no gradients: call it under torch.inference_mode()")
        x = x.detach().contiguous()
        outputs = [
            torch.empty(len(x), *value.shape[: rank - 1])
            for value, rank in zip(self.graph.outputs, self.graph.ranks, strict=True)
        ]
        at = 0
        for images in self.parts(len(x)):
            self.program(images).into([out[at : at + images] for out in outputs], x[at : at + images])
            at += images
        if self.graph.structure is None:
            return outputs[0]
        return pytree.tree_unflatten(outputs, self.graph.structure)
