"""Running the trials of a study on this machine, resumable at any point."""

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
    """Run the trials into `out`, `workers` at a time; how each of them ended.

    Each has `threads` threads, by default cores // workers. May be called again after any end of it, also with more
    trials: finished ones are skipped, unfinished ones go on where they were, with the number of threads that they
    began with. All running trials together never have more threads than there are cores. A trial that fails does not
    stop the others. Ctrl-C stops the running trials; everything stays resumable.
    ValueError if a trial is there twice, workers < 1, or `out` holds a study with another device or precision.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1: got {workers}")
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

    alive, held = os.pipe()  # whose other end closes with this process, however it ends
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
    """A trial that runs."""

    trial: Trial
    process: subprocess.Popen[bytes]
    threads: int


def start(trial: Trial, out: Path, shared: Shared, threads: int, alive: int, *, resume: bool) -> Job:
    """The process of a trial, in its own session: Ctrl-C reaches it only through this process.

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
