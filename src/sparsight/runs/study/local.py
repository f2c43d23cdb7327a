"""Runs the trials of a study on this machine; can be resumed at any point."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsight.numerics.checks import check_threads
from sparsight.records.files import appending
from sparsight.records.record import Keep
from sparsight.records.trials import Ended, Shared, Trial, command, log_of, remember, stored


def run_study(
    trials: Sequence[Trial],
    out: Path,
    *,
    workers: int = 1,
    device: str = "auto",
    precision: str = "no",
    keep: Keep = "chosen",
    threads: int | None = None,
    on_done: Callable[[Ended], None] | None = None,
) -> tuple[Ended, ...]:
    """Run the trials into `out`, `workers` at a time; returns how each of them ended.

    Each trial has `threads` threads, by default cores // workers; together they never have more than there are cores.
    Call it again to resume, also with more trials: finished trials are skipped, unfinished ones continue with their
    number of threads. A failed trial does not stop the others. Ctrl-C stops the running trials, which can be resumed.

    Raises: ValueError for a duplicate trial, for workers below 1, or if `out` holds a study with another device or
    precision.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if threads is not None:
        check_threads(threads)
    shared = Shared(device, precision, keep)
    trials = remember(trials, out, shared)
    cores = available_cores()
    waiting, running, ended = list(trials), [], []

    def end(trial: Trial, status: Literal["finished", "skipped", "failed"]) -> None:
        log = log_of(trial, out)
        ended.append(Ended(trial, status, log, last_line(log) if status == "failed" else ""))
        if on_done is not None:
            on_done(ended[-1])

    alive, held = os.pipe()  # the end that is held closes with this process, even if it is killed
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                found = stored(out / "trials" / waiting[0].key)
                own = found.get("threads") or threads or max(1, cores // workers)
                if running and sum(job.threads for job in running) + own > cores:
                    break
                trial = waiting.pop(0)
                if found.get("done"):
                    end(trial, "skipped")
                else:
                    running.append(start(trial, out, shared, own, alive, resume=bool(found)))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                end(job.trial, "finished" if job.process.returncode == 0 else "failed")
            time.sleep(0.05 if running else 0)
    finally:
        try:
            stop(running)
        finally:
            os.close(held)
            os.close(alive)
    return tuple(ended)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- processes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A running trial."""

    trial: Trial
    process: subprocess.Popen[bytes]
    threads: int


def start(trial: Trial, out: Path, shared: Shared, threads: int, alive: int, *, resume: bool) -> Job:
    """Start a trial in its own session, where Ctrl-C reaches it only through this process.

    It ends when the other end of the pipe `alive` is closed.
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
    """Terminate the jobs, then kill those that have not ended. Their runs can be resumed."""
    for job in jobs:
        job.process.terminate()  # not SIGINT, which background jobs of a shell ignore
    until = time.monotonic() + 30
    for job in jobs:
        try:
            job.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(job.process.pid, signal.SIGKILL)  # with its children
            job.process.kill()
            job.process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
