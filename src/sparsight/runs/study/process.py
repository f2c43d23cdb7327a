"""A trial in a process of its own, which ends when the study does."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsight.records.files import appending
from sparsight.runs.study.trials import Shared, Trial, command, log_of


@dataclass(frozen=True)
class Job:
    """A trial that runs."""

    trial: Trial
    process: subprocess.Popen[bytes]
    threads: int


def start(trial: Trial, out: Path, shared: Shared, threads: int, alive: int, *, resume: bool) -> Job:
    """A process of its own for the trial; in a session of its own, so that Ctrl-C reaches it through us alone.

    It ends when the pipe `alive` does.
    """
    words = [sys.executable, "-m", "sparsight", *command(trial), "--out", str(out / "trials" / trial.key)]
    words += [f"--{name}={value}" for name, value in dataclasses.asdict(shared).items()]
    words += ["--share", str(out / "shared")]
    words += [f"--threads={threads}", *(["--resume"] if resume else [])]
    count = str(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "PYTHONUNBUFFERED": "1"}
    environment["SPARSIGHT_TRIAL"] = "1"
    with appending(log_of(trial, out)) as log:
        process = subprocess.Popen(words, stdin=alive, stdout=log, stderr=log, env=environment, start_new_session=True)
    return Job(trial, process, threads)


def stop(jobs: Sequence[Job]) -> None:
    """Interrupt what runs, and kill what does not end: both leave runs that can be resumed."""
    for job in jobs:
        job.process.terminate()  # not SIGINT, which what a shell starts in the background ignores
    until = time.monotonic() + 30
    for job in jobs:
        try:
            job.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(job.process.pid, signal.SIGKILL)  # and what it has started
            job.process.kill()
            job.process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
