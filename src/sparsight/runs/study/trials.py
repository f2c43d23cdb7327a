"""Running the trials of a study: each in a process of its own, resumable at any point.

study.json       the trials, by key, and what all of them share
trials/KEY/      a run folder
logs/KEY.log     what the run said
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparsight.numerics.checks import check_seed
from sparsight.records.files import (
    DamagedFile,
    appending,
    make_folder,
    parse_json,
    read_text,
    reading,
    seal,
    there,
    try_remove,
    unseal,
    write_atomically,
)
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import REMEDIES
from sparsight.records.record import Keep, from_json
from sparsight.records.verify import verify_run

TABLES = ("rows.csv", "rows.md", "summary.csv", "summary.md")
"""What is made of the runs, beside them."""


@dataclass(frozen=True)
class Trial:
    """One run of a study. `arguments` are the recipe's own; the label groups trials in tables and may be empty."""

    recipe: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    model: str = "mlp"
    data: str = "fashion-mnist"
    label: str = ""

    def __post_init__(self) -> None:
        if "seed" in self.arguments:
            raise ValueError("the seed is a field of the trial, not one of its arguments")
        check_seed(self.seed)

    @property
    def key(self) -> str:
        """Name of the trial's folder: readable, and a hash of everything but the label."""
        what = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "label"}
        digest = hashlib.sha256(canonical({**what, "arguments": dict(self.arguments)}).encode()).hexdigest()
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.recipe}-{self.model}-{self.data}-seed{self.seed}").strip("-.")
        return f"{plain[:80]}-{digest[:10]}"


@dataclass(frozen=True)
class Ended:
    """How a trial ended: finished now, skipped since it had finished before, or failed (see the log)."""

    trial: Trial
    status: Literal["finished", "skipped", "failed"]
    log: Path
    why: str = ""  # of a failed trial: the last line of its log


def run_study(
    trials: Sequence[Trial],
    out: Path,
    *,
    workers: int = 1,
    device: str = "auto",
    precision: str = "no",
    keep: Keep = "chosen",
    on_done: Callable[[Ended], None] | None = None,
) -> tuple[Ended, ...]:
    """Run the trials into `out`, `workers` at a time, each with cores // workers threads; how each of them ended.

    May be called again after any end of it, also with more trials: finished ones are skipped, unfinished ones
    go on where they were, with the number of threads that they began with. All running trials together never
    have more threads than there are cores. A trial that fails does not stop the others. Ctrl-C stops the
    running trials; everything stays resumable.
    ValueError if a trial is there twice, workers < 1, or `out` holds a study with another device or precision.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1: got {workers}")
    shared = {"device": device, "precision": precision, "keep": keep}
    _remember(trials, out, shared)
    for name in TABLES:  # they are of the runs as they were
        try_remove(out / name)
    cores = _cores()
    waiting, running, ended = list(trials), [], []

    def end(trial: Trial, status: Literal["finished", "skipped", "failed"]) -> None:
        log = out / "logs" / f"{trial.key}.log"
        ended.append(Ended(trial, status, log, _last_line(log) if status == "failed" else ""))
        if on_done is not None:
            on_done(ended[-1])

    alive, held = os.pipe()  # whose other end closes with this process, however it ends
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                stored = _stored(out / "trials" / waiting[0].key)
                threads = stored.get("threads") or max(1, cores // workers)
                if running and sum(job.threads for job in running) + threads > cores:
                    break
                trial = waiting.pop(0)
                if stored.get("done"):
                    end(trial, "skipped")
                else:
                    running.append(_start(trial, out, shared, threads, alive, resume=bool(stored)))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                end(job.trial, "finished" if job.process.returncode == 0 else "failed")
            time.sleep(0.05 if running else 0)
    finally:
        try:
            _stop(running)
        finally:
            os.close(held)
            os.close(alive)
    return tuple(ended)


@dataclass(frozen=True)
class _Job:
    trial: Trial
    process: subprocess.Popen[bytes]
    threads: int


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remember(trials: Sequence[Trial], out: Path, shared: Mapping[str, str]) -> None:
    """Write the trials down, with those of earlier calls."""
    keys = [trial.key for trial in trials]
    twice = next((trial for trial in trials if keys.count(trial.key) > 1), None)
    if twice is not None:
        raise ValueError(f"a trial is there twice: {canonical(dataclasses.asdict(twice))}")
    known: Mapping[str, Trial] = {}
    if there(out / "study.json"):
        known, before = read_study(out)
        if before != shared:
            raise ValueError(f"{out} holds a study with {dict(before)}: got {dict(shared)}; take another folder")
    for folder in (out / "trials", out / "logs"):
        make_folder(folder)
    listed = {
        key: dataclasses.asdict(trial) for key, trial in {**known, **dict(zip(keys, trials, strict=True))}.items()
    }
    sealed = seal({"trials": listed, "shared": dict(shared)})
    write_atomically(out / "study.json", [json.dumps(sealed, indent=1).encode() + b"\n"])


def read_study(out: Path) -> tuple[dict[str, Trial], Mapping[str, str]]:
    """The trials that study.json lists, by key, and what all of them share. FileNotFoundError; DamagedFile."""
    path, remedy = out / "study.json", "delete it and give the command of the study again, which lists its trials anew"
    if not there(path):
        raise FileNotFoundError(f"there is no study in {out}: it has no study.json")
    with reading(path, remedy):
        found = parse_json(read_text(path, remedy))
        found = unseal(found) if "sha256" in found else found  # version 0.1 wrote no checksum
        trials = {key: from_json(Trial, fields, f"trials.{key}") for key, fields in found["trials"].items()}
        other = next((key for key, trial in trials.items() if trial.key != key), None)
        if other is not None:
            raise ValueError(f"the trial {other!r:.80} is another one, {trials[other].key!r}")
        return trials, from_json(dict[str, str], found.get("shared", {}), "shared")


def verify_study(out: Path | str) -> tuple[DamagedFile, ...]:
    """The damaged files of the study in `out`: study.json, and those of each run, as `verify_run` tells them.

    Tables and logs are not looked at. FileNotFoundError if there is no study.
    """
    try:
        trials, _ = read_study(Path(out))
    except DamagedFile as error:
        return (error,)
    runs = [Path(out) / "trials" / key for key in trials]
    return tuple(damage for run in runs for damage in _verified(run))


def _verified(run: Path) -> tuple[DamagedFile, ...]:
    try:
        return verify_run(run) if begun(run) else ()
    except DamagedFile as error:
        return (error,)


def begun(folder: Path) -> bool:
    """Whether a run has begun in the folder. DamagedFile if there is one that has lost its run.json."""
    found = there(folder / "run.json")
    if not found and (there(folder / "levels") or there(folder / "state.safetensors")):
        raise DamagedFile(folder / "run.json", "there is no such file", REMEDIES["run.json"])
    return found


def _stored(folder: Path) -> dict[str, Any]:
    """Whether the run in `folder` is done, and its threads; {} if none has begun, None if it cannot be read."""
    if not there(folder / "run.json"):
        return {}
    try:
        with RunFolder.open(folder) as run:
            done = run.record.status == "finished" and there(folder / "report.html")  # which is written last of all
            return {"done": done, "threads": run.record.environment.get("threads")}
    except (ValueError, OSError):
        return {"done": None}  # the trial's own process says in its log what is wrong


def _start(trial: Trial, out: Path, shared: Mapping[str, str], threads: int, alive: int, *, resume: bool) -> _Job:
    """A process of its own for the trial; in a session of its own, so that Ctrl-C reaches it through us alone.

    It ends when the pipe `alive` does.
    """
    words = [sys.executable, "-m", "sparsight", *command(trial), "--out", str(out / "trials" / trial.key)]
    words += [f"--{name}={value}" for name, value in shared.items()]
    words += [f"--threads={threads}", *(["--resume"] if resume else [])]
    count = str(threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "PYTHONUNBUFFERED": "1"}
    environment["SPARSIGHT_TRIAL"] = "1"
    with appending(out / "logs" / f"{trial.key}.log") as log:
        process = subprocess.Popen(words, stdin=alive, stdout=log, stderr=log, env=environment, start_new_session=True)
    return _Job(trial, process, threads)


def command(trial: Trial) -> list[str]:
    """The words after `sparsight` that run the trial."""
    words = ["run", trial.recipe, f"--seed={trial.seed}", f"--model={trial.model}", f"--data={trial.data}"]
    for name, value in trial.arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            words += [f"--{flag}", *_flat(value)]
        else:
            words.append(f"--{flag}={value}")
    return words


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _flat(values: Iterable[Any]) -> list[str]:
    return [w for v in values for w in (_flat(v) if isinstance(v, (list, tuple)) else [str(v)])]


def _stop(jobs: Sequence[_Job]) -> None:
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


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
