"""Measures latency and memory of a pruned network and of the same network without zeros."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.deploy.bench.cases import Case, network
from sparsight.deploy.bench.compare import DENSE, OURS, Comparison, Row, compare, ours
from sparsight.deploy.bench.machine import machine
from sparsight.deploy.bench.rivals import chosen
from sparsight.deploy.ledger.records import Latency, Measured, Memory, Request, Times

_SECONDS = 600  # time limit of the measured process


class CannotMeasure(Exception):
    """Why there is no number."""


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
    """Each runtime that ran both networks. Ours only runs sparse ones: it is compared with the fastest dense one."""
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


# -- peak memory of a separate process -----------------------------------------------------------------------------


def peak(runtime: str, module: nn.Module, x: Tensor) -> int:
    """Peak bytes of a new process that loads the module, prepares it for a runtime and calls it.

    `runtime` is "sparsight" or "torch"; Python and torch are included. Raises: CannotMeasure if the system does not
    report it, or the new process cannot import the module's class.
    """
    if sys.platform == "win32":
        raise CannotMeasure("Windows does not tell the most that a process held")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt"
        try:
            torch.save((runtime, module, x, torch.get_num_threads()), path)
        except Exception as error:
            raise CannotMeasure(f"the module cannot be sent to another process: {error}") from error
        command = [sys.executable, "-c", f"from {__name__} import child; child({str(path)!r})"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["", *sys.path]))}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotMeasure(f"the process that was to be measured failed: {last:.200}")
    return int(done.stdout.split()[-1])


def child(path: str) -> None:
    """Runs in the new process and prints its peak memory."""
    runtime, module, x, threads = torch.load(path, weights_only=False)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        if runtime == OURS:
            case = network("", module, tuple(x.shape[1:]), len(x))
            del module
            ours(case)[0][OURS].call()
        else:
            module(x)
    sys.stdout.write(f"{high_water()}\n")


def high_water() -> int:
    """Peak bytes of this process; not from ru_maxrss on Linux, which may be the parent's."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
