"""Kill one of a run's two processes with SIGKILL at random moments, resume the run, and compare every byte.

    python studies/faults/processes.py [--times 20] [--seed 0] [--json studies/faults/processes.json]

Each trial starts the same run under torchrun with two processes in a fresh folder, and kills process 0 or 1, drawn at
random, at a moment drawn uniformly between the appearance of run.json and the end of an undisturbed run of two
processes (a fifth earlier where the run was finished by then). The other process must end by itself, with one line from
Sparsight that says how to resume, or that it was interrupted if it had not read the command line yet. Then the same
command with --resume; in every fourth trial one of its processes is killed too, unless the run is finished first, and
it is given once more. Compared are the records (levels.jsonl), the evaluation and the tensors of all weights and masks
with those of the undisturbed run; run.json, times.jsonl and the report, which hold the clock, are left out.

The figures are saved after every trial; the same command goes on from there. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import hashlib
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

CLOCKED = {"run.json", "times.jsonl", "report.html", "run.lock"}
RUN = ("sap", "--data", "digits", "--levels", "3", "--epochs", "2", "--device", "cpu", "--threads", "1")


def command(out: Path, resume: bool) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "-m", "sparsight", "run", *RUN, "--out", str(out), *(["--resume"] if resume else [])]


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in CLOCKED)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ranks(launcher: int) -> dict[int, int]:
    """The processes of a run that a launcher has started: their ids by their ranks."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(word[5:]): int(child) for word in words if word.startswith(b"RANK=")}
    return found


def said(errors: str) -> list[str]:
    """What Sparsight said; the launcher adds a report of its own."""
    return [line for line in errors.splitlines() if line.startswith("sparsight: ")]


def undisturbed(words: list[str], marker: Path) -> float:
    """Run to the end; the seconds since `marker` was there. It must end well, and say nothing on standard error."""
    process = start(words)
    while not marker.exists() and process.poll() is None:
        sleep(0.002)
    begun = monotonic()
    _, errors = process.communicate()
    if process.returncode or errors:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{errors}")
    return monotonic() - begun


def kill(words: list[str], rank: int, after: float, marker: Path) -> dict[str, Any] | None:
    """Kill one process so many seconds after `marker`, its run.json, is there; how the others ended.

    None if the run was finished by then.
    """
    process = start(words)
    while not marker.exists() and process.poll() is None:
        sleep(0.002)
    begun = monotonic()
    while monotonic() - begun < after and process.poll() is None:
        sleep(0.001)
    try:
        there = ranks(process.pid)
        os.kill(there[rank], signal.SIGKILL)
    except (OSError, KeyError):
        process.communicate()
        return None
    killed = monotonic()
    _, errors = process.communicate()
    if '"status":"finished"' in marker.read_text().replace(" ", ""):
        return None
    lines = said(errors)
    return {
        "rank": rank,
        "after (s)": round(after, 3),
        "ended in (s)": round(monotonic() - killed, 2),
        "exit code": process.returncode,
        "lines": len(lines),
        "says how to resume": all("; resume with: torchrun" in line for line in lines),
        "before it began": lines == ["sparsight: interrupted"],
        "orphans": sum(Path(f"/proc/{pid}").exists() for pid in there.values()),
        "aborted": "terminate called" in errors or "SIGABRT" in errors,
    }


def well(end: dict[str, Any]) -> bool:
    """Whether the processes that were not killed ended as they should."""
    one_line = end["lines"] == 1 and (end["says how to resume"] or end["before it began"])
    return one_line and end["exit code"] == 1 and not end["orphans"] and not end["aborted"]


def trial(number: int, draw: random.Random, root: Path, length: float, expected: dict[str, str]) -> dict[str, Any]:
    folder, rank, moment = root / f"killed-{number}", draw.randrange(2), draw.uniform(0, length)
    marker = folder / "run.json"
    while (first := kill(command(folder, False), rank, moment, marker)) is None:  # the machine was quicker this time
        shutil.rmtree(folder)
        moment *= 0.8
    lines = folder / "levels.jsonl"
    found: dict[str, Any] = {"trial": number, "killed": first}
    found["levels done"] = len(lines.read_text().splitlines()) - 1 if lines.exists() else 0
    found["inside a level"] = (folder / "state.safetensors").exists()
    if number % 4 == 3:
        found["killed again"] = kill(command(folder, True), draw.randrange(2), draw.uniform(0, length), marker)
    undisturbed(command(folder, True), marker)
    found["ended well"] = all(well(end) for end in (first, found.get("killed again")) if end is not None)
    found["identical"] = contents(folder) == expected
    shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("processes.json"))
    args = parser.parse_args()
    done: dict[str, Any] = {"seed": args.seed, "trials": []}
    if args.json.exists() and json.loads(args.json.read_text())["seed"] == args.seed:
        done = json.loads(args.json.read_text())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        length = undisturbed(command(root / "undisturbed", False), root / "undisturbed" / "run.json")
        expected = contents(root / "undisturbed")
        done |= {"run": " ".join(RUN), "undisturbed run (s)": round(length, 2), "files compared": len(expected)}
        for number in sorted({*range(args.times)} - {each["trial"] for each in done["trials"]}):
            found = trial(number, random.Random(f"{args.seed} {number}"), root, length, expected)
            print(json.dumps(found), flush=True)
            done["trials"] = sorted([*done["trials"], found], key=lambda each: each["trial"])
            for what in ("identical", "ended well"):
                done[what] = f"{sum(each[what] for each in done['trials'])} of {len(done['trials'])}"
            args.json.write_text(json.dumps(done, indent=1) + "\n")
    print(f"identical: {done['identical']}; ended well: {done['ended well']}")
    raise SystemExit(not all(each["identical"] and each["ended well"] for each in done["trials"]))


if __name__ == "__main__":
    main()
