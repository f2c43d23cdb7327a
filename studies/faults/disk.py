"""Let a run meet a full disk and a read-only one, at every step of writing, and give the same command again.

    python studies/faults/disk.py [--sizes 100] [--seed 0] [--json studies/faults/disk.json]

Every step: a run takes so many steps that make, fill, rename or remove files. For each of them (of the longer run one
in five) the run is begun in a child in which that step and all later ones fail: for want of space, when files may still
be removed, or because the file system is read-only. Every size: a run is begun in a file system of a size drawn between
nothing and what the run needs (a tmpfs; this needs the right to mount one, and is left out without it).

The child must end with exit code 1 and one line that names the file, the reason and the remedy. What it leaves must be
whole. The same command again, with room, must end with the files of an undisturbed run.

The figures are saved after every trial; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forked

EVERY = {"snip": 1, "lottery": 5}
"""Runs, and of their steps one in so many."""
REASONS = {"full": errno.ENOSPC, "read-only": errno.EROFS}


def failing(at: int, code: int, count: Path | None = None) -> None:
    """From step `at` on, let each step of writing fail. `count` is a file for how many there were."""
    import builtins

    from sparsight.checkpoint import writing

    taken = 0

    def watched(act: Callable[..., Any], frees: bool = False) -> Callable[..., Any]:
        def step(*args: Any, **named: Any) -> Any:
            nonlocal taken
            taken += 1
            if count is not None:
                count.write_text(str(taken))
            if taken > at and not (frees and code == errno.ENOSPC):
                raise OSError(code, os.strerror(code))
            return act(*args, **named)

        return step

    reads, writes = os.open, watched(os.open)

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        return (writes if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else reads)(path, flags, *more, **named)

    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
        setattr(os, name, watched(getattr(os, name), frees=name in ("unlink", "rmdir")))
    os.open = opened
    filled = watched(builtins.open)  # a file that is made, and what is written to it

    def made(*args: Any) -> Any:
        file = filled(*args)
        return Filled(file, watched(file.write))

    writing.open = made  # type: ignore[attr-defined]


class Filled:
    """A file whose `write` is another."""

    def __init__(self, file: Any, write: Callable[..., Any]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> Filled:
        return self

    def __exit__(self, *about: Any) -> None:
        self.file.__exit__(*about)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def steps_of(name: str, log: Path) -> int:
    """How many steps of writing the run takes."""
    child = forked.start(forked.words(name, log / "counted"), log, partial(failing, 1 << 40, 0, log / "count"))
    child.wait()
    shutil.rmtree(log / "counted")
    return int((log / "count").read_text())


def fault(child: forked.Child, out: Path, reason: str) -> str | None:
    """What is wrong with how it ended."""
    if child.code == 0:
        return None
    lines = [line for line in child.errors.splitlines() if line.strip()]
    if child.code != 1 or len(lines) != 1:
        return f"exit code {child.code}: {child.errors[-400:]}"
    clear = f"cannot write {out}" in lines[0] and os.strerror(REASONS[reason]) in lines[0]
    return None if clear and ("make room" in lines[0] or "intact" in lines[0]) else lines[0]


def finished(name: str, out: Path, log: Path, expected: Any) -> str | None:
    """What is wrong with what a failed run left, or with the same command again."""
    if (out / "run.json").exists():
        looked = forked.call(["verify", str(out)], log)
        if looked.code:
            return f"verify: {looked.said}"
    last = forked.call(forked.again(name, out), log)
    if last.code:
        return f"then exit code {last.code}: {last.errors[-300:]}"
    return None if forked.contents(out) == expected else "it ends with other files than an undisturbed run"


def every_step(results: forked.Results, log: Path, expected: dict[str, Any]) -> None:
    done = {(one["run"], one["reason"], one["at"]) for one in results.trials}
    steps = results.done["steps"] = {name: steps_of(name, log) for name in EVERY}
    for name, reason in itertools.product(EVERY, REASONS):
        for at in range(0, steps[name], EVERY[name]):
            if (name, reason, at) in done:
                continue
            out = log / "out"
            shutil.rmtree(out, ignore_errors=True)
            child = forked.start(forked.words(name, out), log, partial(failing, at, REASONS[reason]))
            child.wait()
            wrong = fault(child, out, reason) or finished(name, out, log, expected[name])
            told(results, {"run": name, "reason": reason, "at": at, "code": child.code, "wrong": wrong})


def every_size(results: forked.Results, log: Path, expected: dict[str, Any], sizes: int, seed: int) -> None:
    """In file systems that are too small."""
    disk = log / "disk"
    disk.mkdir()
    done = sum(one["reason"] == "size" for one in results.trials)
    for i in range(done, sizes):
        draw = random.Random(f"{seed} {i}")
        name = draw.choice([*EVERY])
        size = 4096 * draw.randint(1, results.done["pages"][name])
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True)
        if mount.returncode:
            results.done["sizes"] = "left out: no right to mount a tmpfs"
            results.save()
            return
        try:
            out = disk / "out"
            child = forked.call(forked.words(name, out), log)
            wrong = fault(child, out, "full")
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            wrong = wrong or finished(name, out, log, expected[name])
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        told(results, {"run": name, "reason": "size", "at": size, "code": child.code, "wrong": wrong})


def told(results: forked.Results, found: dict[str, Any]) -> None:
    results.add(found)
    if found["wrong"]:
        print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    forked.load()
    results = forked.Results(args.json, command="python studies/faults/disk.py", seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder)
        expected, pages = {}, {}
        for name in EVERY:
            whole = log / f"whole {name}"
            forked.call(forked.words(name, whole), log)
            expected[name] = forked.contents(whole)
            pages[name] = sum(-(-path.stat().st_size // 4096) for path in whole.rglob("*"))
        results.done.setdefault("pages", pages)
        every_size(results, log, expected, args.sizes, args.seed)
        every_step(results, log, expected)
    ways = [(one["reason"], one["code"]) for one in results.trials]
    counts = {f"{w}: {'refused' if code else 'done'}": ways.count((w, code)) for w, code in sorted({*ways}, key=str)}
    results.done["summary"] = {**counts, "wrong": len(results.wrong())}
    results.save()
    print(json.dumps(results.done["summary"], indent=1))
    raise SystemExit(1 if results.wrong() else 0)


if __name__ == "__main__":
    main()
