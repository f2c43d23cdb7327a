"""Running the trials of a study on this machine, resumable at any point."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from sparsight.numerics.checks import check_threads
from sparsight.records.record import Keep
from sparsight.runs.study.process import last_line, start, stop
from sparsight.runs.study.trials import Ended, Shared, Trial, log_of, remember, stored


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
