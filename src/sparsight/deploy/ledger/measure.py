"""Measures latency and memory of a pruned network and of the same network without zeros."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.deploy.bench.cases import Case, network
from sparsight.deploy.bench.compare import DENSE, OURS, Comparison, Row, compare
from sparsight.deploy.bench.machine import machine
from sparsight.deploy.bench.rivals import chosen
from sparsight.deploy.ledger.memory import CannotMeasure, peak
from sparsight.deploy.ledger.records import Latency, Measured, Memory, Request, Times


def measured(
    name: str, module: nn.Module, inputs: tuple[Any, ...], asked: Request, missing: dict[str, str]
) -> Measured | None:
    """Times and memory of a module in evaluation mode; adds to `missing` why something could not be measured.

    Raises: ValueError for an unknown runtime.
    """
    rivals = chosen(asked.runtimes)
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].dtype != torch.float32:
        missing |= dict.fromkeys(("latency", "memory"), "measured of networks that take one float32 tensor")
        return None
    with torch.inference_mode():
        if not isinstance(module(inputs[0]), Tensor):
            missing |= dict.fromkeys(("latency", "memory"), "measured of networks that return one tensor")
            return None
    shape, full = tuple(inputs[0].shape[1:]), filled(module)
    latency: list[Latency] = []
    memory: list[Memory] = []
    try:
        for threads in asked.threads or (torch.get_num_threads(),):
            with _threads(threads):
                for batch in asked.batches:
                    cases = [network(name, one, shape, batch) for one in (module, full)]
                    found = compare(cases[0], rivals, asked.rounds, cases[1])
                    latency += rows(found)
                    why = {key: text for key, text in found.missing.items() if not key.endswith(DENSE)}
                    missing |= {f"latency: {key}": text for key, text in why.items()}
        for batch in asked.batches:
            memory += _memory(network(name, module, shape, batch), full)
    except (ValueError, RuntimeError) as error:
        missing["latency"] = str(error)
    except CannotMeasure as error:
        missing["memory"] = str(error)
    if not latency:
        missing.setdefault("memory", missing.get("latency", ""))
    return Measured(machine(), asked.rounds, tuple(latency), tuple(memory))


def rows(found: Comparison) -> Iterator[Latency]:
    """Each runtime that ran both networks. Ours is compared with the fastest dense one, being only for sparse ones."""
    by_name = {row.name: row for row in found.rows}
    dense = {name.removesuffix(DENSE): row for name, row in by_name.items() if name.endswith(DENSE)}
    if not dense:
        return
    fastest = min(dense, key=lambda name: dense[name].timing.median)
    for name, other in [(OURS, fastest), *((name, name) for name in dense if name in by_name)]:
        times = _times(by_name[name]), _times(dense[other])
        yield Latency(name, found.batch, found.threads, *times, other)


def _times(row: Row) -> Times:
    return Times(row.timing.median, row.timing.wall, row.timing.spread)


def filled(module: nn.Module) -> nn.Module:
    """A copy with random values of the same mean square in all tensors with zeros."""
    full, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in full.parameters():
            if weight.dim() > 1 and bool((weight == 0).any()):
                scale = float(weight.double().square().mean().sqrt()) or 1e-3
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return full


def _memory(case: Case, full: nn.Module) -> Iterator[Memory]:
    sparse, dense = peak("torch", case.module, case.x), peak("torch", full, case.x)
    yield Memory(OURS, len(case.x), peak(OURS, case.module, case.x), dense)
    yield Memory("torch", len(case.x), sparse, dense)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
