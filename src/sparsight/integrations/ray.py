"""Studies on many machines: each trial is a Ray task in its own process, with the rows of `run_study`. Needs `ray`."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sparsight.numerics.checks import check_threads
from sparsight.records.files import make_folder, try_remove, write_atomically
from sparsight.records.new_folder import LockedRun, take
from sparsight.records.trials import Ended, Shared, Trial, log_of, remember, stored
from sparsight.runs.study.local import available_cores, last_line, start

__all__ = ["RayEngine", "run_study_on_ray", "slurm_command"]

OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # a trial is as urgent as it is without Ray
}
"""Settings of a cluster started here, which Ray reads when it is imported."""

Seen = Literal["held", "free", "unlockable", "missing"]
"""What a process finds in a folder locked by another one; only the first is right."""

_ADVICE = (
    "two machines could write one run at once, so put the study on a file system with locks (NFS 4, Lustre -o flock)"
)

ATTEMPTS = 20
"""How often a trial is restarted because its worker or node died."""

PASSED_ON = ("PYTHONPATH", "SPARSIGHT_DATA", "SPARSIGHT_DEBUG")
"""Environment variables of the study that trials get too."""

PATIENCE = 120.0
"""Seconds to wait for the process of an earlier attempt, which ends after its worker."""


@dataclass(frozen=True)
class RayEngine:
    """Where the trials run: the cluster at `address`, or one started here; `threads` for each trial."""

    address: str | None = None
    threads: int = 1


def run_study_on_ray(
    trials: Sequence[Trial],
    out: Path,
    engine: RayEngine,
    shared: Shared,
    *,
    on_done: Callable[[Ended], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Ended, ...]:
    """Run the trials into `out` on a Ray cluster, as many at a time as fit; returns how each of them ended.

    A trial is a task in its own process, with `threads` cores, and a GPU for device "cuda" or if the cluster has any.
    If its worker or node dies, it continues elsewhere from its last evaluation. If the coordinator dies, the same call
    resumes the study and skips finished trials.
    Raises: ValueError as `run_study`, for more threads than any node has, and for a folder that the nodes do not share
    or that has no working locks (`UnlockedFolder`).
    """
    check_threads(engine.threads)
    out = out.resolve()
    trials = remember(trials, out, shared)
    ended: list[Ended] = []

    def end(trial: Trial, status: Literal["finished", "skipped", "failed"], why: str = "") -> None:
        ended.append(Ended(trial, status, log_of(trial, out), why))
        if on_done is not None:
            on_done(ended[-1])

    todo = []
    for trial in trials:
        if stored(out / "trials" / trial.key).get("done"):
            end(trial, "skipped")
        else:
            todo.append(trial)
    if todo:
        with attached(engine.address, say):
            check_locks(out, _ask_all)
            for trial, status, why in _ends(todo, out, engine, shared):
                end(trial, status, why)
    return tuple(ended)


def _ends(todo: Sequence[Trial], out: Path, engine: RayEngine, shared: Shared) -> Any:
    """Each trial as it ends, with its status and the reason if it failed."""
    library, needs = ray(), _needs(engine, shared)
    task = library.remote(**needs, max_retries=ATTEMPTS)(run_trial)
    here = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"cwd": os.getcwd()}
    running = {task.remote(trial, out, shared, engine.threads, here): trial for trial in todo}
    while running:
        (ready,), _ = library.wait([*running], num_returns=1)
        trial = running.pop(ready)
        try:
            yield (trial, *library.get(ready))
        except library.exceptions.RayError as error:
            yield trial, "failed", " ".join(str(error).split())[:200]


def _needs(engine: RayEngine, shared: Shared) -> dict[str, float]:
    """The resources of a trial. Raises: ValueError if no node has them."""
    nodes = [node["Resources"] for node in ray().nodes() if node["Alive"]]
    most = max((of.get("CPU", 0) for of in nodes), default=0)
    if engine.threads > most:
        raise ValueError(f"a trial of {engine.threads} threads fits on no node: the largest has {most:g} cores")
    gpus = sum(of.get("GPU", 0) for of in nodes)
    if shared.device == "cuda" and not gpus:
        raise ValueError("no node of the cluster has a GPU: take --device cpu or auto")
    return {"num_cpus": engine.threads, "num_gpus": 1 if gpus and shared.device in ("auto", "cuda") else 0}


def _ask_all(folder: Path, word: str) -> dict[str, Seen]:
    """What a process on each node finds in a folder locked here."""
    library = ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in library.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = library.remote(num_cpus=0, scheduling_strategy=there)(look)
            asked[f"node {node['NodeManagerHostname']} ({node['NodeID'][:8]})"] = task.remote(folder, word)
    return {name: library.get(answer) for name, answer in asked.items()}


# -- the cluster -----------------------------------------------------------------------------------------------


def ray() -> Any:
    """The library. Raises: ModuleNotFoundError with the command to install it."""
    try:
        import ray as library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--engine ray needs Ray: pip install sparsight[ray]") from error
    return library


@contextmanager
def attached(address: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """A block with a Ray cluster: the one at `address` ("auto": on this machine), otherwise one started here.

    A cluster started here has this machine's cores, requires a token, and ends with the block; `say` gets its open
    ports. If the caller is already attached to a cluster, that one is used.
    """
    if "ray" in sys.modules and ray().is_initialized():
        yield
        return
    if address is None and "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise RuntimeError(
            "Ray reads its settings when it is imported, so a cluster with a token cannot be started any more: set "
            "RAY_AUTH_MODE=token before import ray, or attach to a cluster first"
        )
    before = dict(os.environ)
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            os.environ.update(OURS, RAY_AUTH_TOKEN=secrets.token_hex(32))
            ray().init(include_dashboard=False, num_cpus=available_cores(), **quiet)
            say(f"started Ray on this machine; it lets in who has its token, and listens on {', '.join(open_ports())}")
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray().init(address=address, **quiet)
        yield
    finally:
        if "ray" in sys.modules:
            ray().shutdown()
        for name in (*OURS, "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def open_ports() -> list[str]:
    """The open ports of processes started by this one: "gcs_server [::]:41365"."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:  # it has ended
            continue
        found += [f"{process.name()} {f'[{at.ip}]' if ':' in at.ip else at.ip}:{at.port}" for at in listening]
    return found


# -- the shared folder -------------------------------------------------------------------------------------------


class UnlockedFolder(ValueError):
    """Several machines cannot share this folder."""


def look(folder: Path, word: str) -> Seen:
    """What this process finds in a folder that another one has locked, after writing `word` there."""
    try:
        if (folder / "word").read_text() != word:
            return "missing"
    except OSError:
        return "missing"
    try:
        take(folder).release()
    except LockedRun:
        return "held"
    except OSError:
        return "unlockable"
    return "free"


def check_locks(out: Path, ask: Callable[[Path, str], dict[str, Seen]]) -> None:
    """Raise UnlockedFolder unless every process asked by `ask` sees `out`, and a lock held here keeps it out.

    `ask(folder, word)` returns what each process found, by name.
    """
    folder, word = out / "lock-probe", secrets.token_hex(16)
    make_folder(folder)
    write_atomically(folder / "word", [word.encode()])
    try:
        lock = take(folder)
    except OSError as error:
        raise UnlockedFolder(f"{out} lies on a file system without locks ({error}); {_ADVICE}") from error
    try:
        found = ask(folder, word)
    finally:
        lock.release()
        for name in ("word", "run.lock"):
            try_remove(folder / name)
        with suppress(OSError):
            folder.rmdir()
    for node, seen in found.items():
        if seen == "missing":
            raise UnlockedFolder(f"{node} does not see {out}: every node must reach the study's folder by this path")
        if seen != "held":
            what = "two processes can hold the same lock" if seen == "free" else "files cannot be locked there"
            raise UnlockedFolder(f"{out} has no working locks as {node} sees it: {what}; {_ADVICE}")


# -- a trial, in a Ray worker ------------------------------------------------------------------------------------


def run_trial(
    trial: Trial, out: Path, shared: Shared, threads: int, here: Mapping[str, str]
) -> tuple[Literal["finished", "failed"], str]:
    """Run a trial to its end, resuming an earlier attempt; returns its status, and the reason if it failed.

    `here` holds the study's current folder and environment. If this worker dies, so does the trial.
    """
    folder, log = out / "trials" / trial.key, log_of(trial, out)
    if folder.is_dir():
        with suppress(LockedRun):  # `start` says in the log that another process still writes
            take(folder, PATIENCE).release()
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


# -- Slurm -------------------------------------------------------------------------------------------------------


def slurm_command(words: Sequence[str]) -> str:
    """Lines for a job script, whose study is `words`: "sparsight study study.yaml --out /shared/study"."""
    study = shlex.join([*words, "--engine", "ray", "--address", "auto"])
    return f"""\
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32) RAY_USAGE_STATS_ENABLED=0
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --export=ALL \\
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \\
  --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --disable-usage-stats -- \\
  {study}
"""
