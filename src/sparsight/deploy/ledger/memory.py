"""Peak resident memory of a new process that loads a network and calls it once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsight.deploy.bench.compare import OURS

_SECONDS = 600  # at most


class CannotMeasure(Exception):
    """Why there is no number."""


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
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotMeasure(f"the process that was to be measured failed: {last:.200}")
    return int(done.stdout.split()[-1])


def child(path: str) -> None:
    """Runs in the other process, and prints its peak memory."""
    runtime, module, x, threads = torch.load(path, weights_only=False)
    torch.set_num_threads(threads)
    with torch.inference_mode():
        if runtime == OURS:
            from sparsight.deploy.bench.cases import network
            from sparsight.deploy.bench.compare import ours

            case = network("", module, tuple(x.shape[1:]), len(x))
            del module
            ours(case)[0][OURS].call()
        else:
            module(x)
    sys.stdout.write(f"{high_water()}\n")


def high_water() -> int:
    """Peak bytes of this process; not from ru_maxrss on Linux, which may be that of the parent."""
    try:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
