"""Press Ctrl-C at random moments, give the same command again, and compare what it ends with.

    python studies/faults/interrupts.py [--times 60] [--seed 0] [--json studies/faults/interrupts.json]

Trial i is drawn from (seed, i): one of the small runs of `forked.RECIPES`, and a moment. A third of the trials are
processes of their own, interrupted anywhere between their start and their end, imports included; a quarter of these
find no compiled kernels (an empty NUMBA_CACHE_DIR). The others are forked off, so that the moment lies in the run. In
every third trial Ctrl-C is pressed twice, less than a third of a second apart.

Each must end with exit code 130 and one line, or be done; a process that is interrupted before Python has loaded the
first module of Sparsight is counted apart. What it leaves must be whole, and the same command again must end with the
files of an undisturbed run.

The figures are saved after every trial; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import forked


def own_process(line: list[str], log: Path, cold: bool) -> forked.Child:
    """`python -m sparsight LINE`, for which Ctrl-C is what it is in a terminal."""
    cache = log / "cold"
    shutil.rmtree(cache, ignore_errors=True)
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": str(cache)} if cold else {})}
    with open(log / "stdout", "wb") as out, open(log / "stderr", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "sparsight", *line], stdout=out, stderr=err, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
    process.returncode = 0  # it is waited for as the others are
    return forked.Child(process.pid, log / "stdout", log / "stderr", monotonic())


def interrupted(child: forked.Child, moment: float, again: float | None) -> bool:
    """Press Ctrl-C, maybe twice; whether the child had not ended by then."""
    alive = child.after(moment, signal.SIGINT)
    if alive and again is not None:
        sleep(again)
        child.send(signal.SIGINT)
    child.wait()
    return alive


def ending(child: forked.Child, out: Path) -> tuple[str, str | None]:
    """How it ended, in a word, and what is wrong with that."""
    lines = [line for line in child.errors.splitlines() if line.strip()]
    if child.code == 0 and not lines:
        return "it was done", None
    if not out.exists() and "sparsight" not in child.errors.replace("/sparsight", "") and child.code in (-2, 1, 130):
        return "before Sparsight was loaded", None
    if child.code != 130:
        return "", f"exit code {child.code}: {child.errors[-400:]}"
    if not lines:
        return "", "not a word"
    if len(lines) > 1 or not lines[0].startswith("sparsight: interrupted"):
        return "", f"other than one line: {child.errors[-400:]}"
    began = (out / "run.json").exists()
    told = "resume with" if began else "interrupted"
    return ("resumable" if began else "before the run began"), None if told in lines[0] else lines[0]


def trial(i: int, draw: random.Random, root: Path, known: dict[tuple[str, str], tuple[float, Any]]) -> dict[str, Any]:
    name = draw.choice([*forked.RECIPES])
    kind = ("cold", "process", "process", "process", "forked")[min(i % 12, 4)]
    log = root / "trial"
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir()

    def begin(out: Path) -> forked.Child:
        line = forked.words(name, out)
        return forked.start(line, log) if kind == "forked" else own_process(line, log, kind == "cold")

    if (name, kind) not in known:
        child = begin(log / "whole")
        child.wait()
        if child.code:
            raise SystemExit(child.errors)
        known[name, kind] = monotonic() - child.started, forked.contents(log / "whole")
    length, expected = known[name, kind]
    moment, again = draw.uniform(0, length), draw.uniform(0, 0.3) if i % 3 == 2 else None
    out = log / "out"
    child = begin(out)
    interrupted(child, moment, again)
    how, wrong = ending(child, out)
    found = {"trial": i, "run": name, "kind": kind, "after": round(moment, 3), "twice": again is not None, "how": how}
    if wrong is None and (out / "run.json").exists():
        looked = forked.call(["verify", str(out)], log)
        wrong = looked.said if looked.code else None
    if wrong is None:
        last = forked.call(forked.again(name, out), log)
        wrong = f"then exit code {last.code}: {last.errors[-300:]}" if last.code else None
    if wrong is None and forked.contents(out) != expected:
        wrong = "it ends with other files than an undisturbed run"
    return {**found, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(forked.ROOT / "src")
    os.environ["OMP_NUM_THREADS"] = "1"
    forked.load()
    results = forked.Results(args.json, command="python studies/faults/interrupts.py", seed=args.seed)
    known: dict[tuple[str, str], tuple[float, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        while len(results.trials) < args.times:
            i = len(results.trials)
            found = trial(i, random.Random(f"{args.seed} {i}"), Path(folder), known)
            results.add(found)
            if found["wrong"]:
                print(json.dumps(found), flush=True)
    ways = [one["how"] for one in results.trials]
    kinds = [one["kind"] for one in results.trials]
    results.done["summary"] = {
        "interrupts": len(ways),
        "of processes of their own": kinds.count("process") + kinds.count("cold"),
        "of these without compiled kernels": kinds.count("cold"),
        "twice": sum(one["twice"] for one in results.trials),
        **{how: ways.count(how) for how in sorted({*ways}) if how},
        "wrong": len(results.wrong()),
    }
    results.save()
    print(json.dumps(results.done["summary"], indent=1))
    raise SystemExit(1 if results.wrong() else 0)


if __name__ == "__main__":
    main()
