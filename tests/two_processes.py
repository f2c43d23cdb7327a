"""Two processes under torchrun; the data and networks that they share with a test, and what they are compared with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparsight.train import loop
from sparsight.types import Data, Split

ROOT = Path(__file__).parents[1]


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 WORDS...`, in a folder."""
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)


def answers(worker: str, cwd: Path) -> list[dict[str, Any]]:
    """What each process of a worker, a file in tests/, has written by `answer`."""
    done = torchrun(str(ROOT / "tests" / worker), cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "terminate", "rror")), done.stderr
    return [json.loads((cwd / f"{rank}.json").read_text()) for rank in (0, 1)]


def answer(**found: Any) -> None:
    Path(f"{os.environ['RANK']}.json").write_text(json.dumps(found))


# -- what is trained -------------------------------------------------------------------------------------------


def data() -> Data:
    """85 images, so that of batches of 20 the last is of 5: three for one process, two for the other.

    In the folder of a file "kill", process 1 kills itself at its ninth batch.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(125, 1, 6, 6, generator=generator)
    y = (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0.5).long()
    seen = []

    def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(1)
        if os.environ.get("RANK") == "1" and len(seen) == 9 and Path("kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(-1), x)

    train, other = Split(x[:85], y[:85], flipped), Split(x[85:], y[85:])
    return Data(name="own", train=train, validation=other, test=other)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 3))


def convolutional() -> nn.Module:
    """With batch norm, and with a layer that gets no gradient."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    model = nn.Sequential(*layers)
    model.unused = nn.Identity()
    model.unused.weight = nn.Parameter(torch.ones(3))
    return model


def halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one process do what two do: add up the gradients of every other sample, and of the others."""
    whole = loop._loss

    def both(training: Any, batch: Any, weight: float, moment: Any) -> Tensor:
        x, y = batch
        parts = [(x[i::2], y[i::2]) for i in (1, 0)]
        return sum(whole(training, part, 2 * len(part[0]) / len(x), moment) for part in parts) / 2

    monkeypatch.setattr(loop, "_loss", both)
