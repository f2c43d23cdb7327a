"""What both studies of pruning at initialisation share: jobs, and a file of rows that a second start goes on from.

A job is one piece of work that gives rows. A row is a line of JSON with a key of its own; lines are written as jobs
end, each on disk before the next job's. A job is skipped once all its keys are in the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A call of `measure`, a function of a module, with plain arguments; it gives one row for each key, in order."""

    block: str
    seed: int
    keys: tuple[str, ...]
    measure: Callable[..., Sequence[Row]]
    arguments: Mapping[str, Any]
    seconds: float  # expected, of one thread on a quiet machine


def rows_of(path: Path) -> list[Row]:
    """The rows on file. A last line that was cut off as it was written does not count; a damaged one is refused."""
    if not path.exists():
        return []
    whole = path.read_bytes()
    return [json.loads(line) for line in whole[: whole.rfind(b"\n") + 1].splitlines()]


def append(path: Path, rows: Iterable[Row]) -> None:
    """Put rows at the end of the file, on disk before this returns; a line that was cut off goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        file.flush()
        os.fsync(file.fileno())


def left(jobs: Iterable[Job], path: Path) -> list[Job]:
    """The jobs that have a key which is not on file."""
    done = {row["key"] for row in rows_of(path)}
    return [job for job in jobs if not done.issuperset(job.keys)]


def work(job: Job) -> list[Row]:
    """Do a job; its rows, with the seconds of one thread that they took, shared evenly."""
    torch.set_num_threads(1)
    since = process_time()
    found = job.measure(**job.arguments)
    spent = round((process_time() - since) / len(found), 3)
    return [
        {"key": key, "block": job.block, "seed": job.seed, **row, "seconds": spent}
        for key, row in zip(job.keys, found, strict=True)
    ]


def finished(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, list[Row] | BaseException]]:
    """Each job as it ends, with its rows or why it failed. Several workers are processes of one thread each."""
    if workers == 1:
        for job in jobs:
            try:
                yield job, work(job)
            except Exception as error:
                yield job, error
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        going = {pool.submit(work, job): job for job in jobs}
        for future in as_completed(going):
            yield going[future], future.exception() or future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def estimate(jobs: Sequence[Job]) -> str:
    minutes: dict[str, float] = {}
    for job in jobs:
        minutes[job.block] = minutes.get(job.block, 0.0) + job.seconds / 60
    said = ", ".join(f"{block} {value:.1f}" for block, value in minutes.items())
    return f"{len(jobs)} jobs, about {sum(minutes.values()):.1f} minutes of one quiet core ({said})"


def main(
    about: str, jobs_of: Callable[[Sequence[int], bool], Sequence[Job]], out: Path, argv: Sequence[str] | None
) -> int:
    """The command line of a study. `jobs_of(seeds, smoke)` lists its jobs, in the order in which they are run."""
    blocks = list(dict.fromkeys(job.block for job in jobs_of((0,), False)))
    parser = argparse.ArgumentParser(description=about, epilog=f"Blocks: {', '.join(blocks)}.")
    parser.add_argument("--out", type=Path, help=f"the file of the rows ({out})")
    parser.add_argument("--workers", type=int, default=2, help="jobs at the same time, of one thread each")
    parser.add_argument("--only", nargs="+", choices=blocks, metavar="BLOCK", help="these blocks alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--smoke", action="store_true", help="a few seconds of each kind of job, to see that all runs")
    parser.add_argument("--list", action="store_true", help="say what is left and run nothing")
    given = parser.parse_args(argv)
    path = given.out or (out.with_name(f"{out.stem}-smoke{out.suffix}") if given.smoke else out)
    wanted = [job for job in jobs_of(given.seeds, given.smoke) if not given.only or job.block in given.only]
    wanted = left(wanted, path)
    if given.list:
        for job in wanted:
            print(f"{job.seconds:6.1f} s  {job.keys[0]}" + (f" and {len(job.keys) - 1} more" if job.keys[1:] else ""))
    print(estimate(wanted), flush=True)
    return 0 if given.list else _run(wanted, path, given.workers)


def _run(wanted: Sequence[Job], path: Path, workers: int) -> int:
    failed, known = 0, {row["key"] for row in rows_of(path)}
    for i, (job, found) in enumerate(finished(wanted, workers), 1):
        if isinstance(found, BaseException):
            failed += 1
            print(f"{i}/{len(wanted)} failed {job.keys[0]}: {found!r}", file=sys.stderr, flush=True)
            continue
        append(path, [row for row in found if row["key"] not in known])
        print(f"{i}/{len(wanted)} {job.keys[0]}: {sum(row['seconds'] for row in found):.1f} s", flush=True)
    return 1 if failed else 0
