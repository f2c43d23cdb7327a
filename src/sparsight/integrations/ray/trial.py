"""A trial as a task: the same process as in a study on one machine, watched by a Ray worker."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sparsight.records.new_folder import LockedRun, take
from sparsight.records.trials import Shared, Trial, log_of, stored
from sparsight.runs.study.local import last_line, start

PATIENCE = 120.0
"""Seconds to wait for the process of an earlier attempt, which ends after its worker."""

How = tuple[Literal["finished", "failed"], str]


def run_trial(trial: Trial, out: Path, shared: Shared, threads: int, here: Mapping[str, str]) -> How:
    """Run a trial to its end, resuming an earlier attempt; returns its status, and the reason if it failed.

    `here` holds the study's current folder and environment. If this worker dies, so does the trial.
    """
    folder, log = out / "trials" / trial.key, log_of(trial, out)
    if folder.is_dir():
        _wait_for(folder)
    found = stored(folder)
    if found.get("done"):
        return "finished", ""
    if Path(here["cwd"]).is_dir():
        os.chdir(here["cwd"])
    os.environ.update({name: value for name, value in here.items() if name != "cwd"})
    alive, held = os.pipe()  # its other end closes with this worker, however that ends
    try:
        job = start(trial, out, shared, found.get("threads") or threads, alive, resume=bool(found))
        failed = job.process.wait() != 0
    finally:
        os.close(held)
        os.close(alive)
    return ("failed", last_line(log)) if failed else ("finished", "")


def _wait_for(folder: Path) -> None:
    """Wait until no process writes to the run, at most `PATIENCE` seconds."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            take(folder).release()
            return
        except LockedRun:
            time.sleep(0.2)


__all__ = ["run_trial"]
