"""Kill a run with SIGKILL at random moments, resume it, and compare every byte with a run that was left alone.

    python studies/resume/kill.py [--times 20] [--seed 0] [--recipe sap] [--json studies/resume/killed.json]

Each trial starts the same run in a fresh folder, kills it at a moment drawn uniformly between the appearance of its
run.json and the end of an undisturbed run (a fifth earlier where the run had ended by then), and resumes it; half of
the trials are killed a second time while resuming, unless they end first.
Compared are the records (levels.jsonl), the evaluation and the tensors of all weights and masks. The clock lives in
run.json, times.jsonl and the report, which are left out.
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

CLOCKED = {"run.json", "times.jsonl", "report.html", "run.lock"}


def command(recipe: str, out: Path, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "sparsight", "run", recipe, "--data", "digits", "--threads", "1"]
    words += ["--levels", "6", "--epochs", "4", "--batch-size", "32", "--target-density", "0.02", "--out", str(out)]
    return words + (["--resume"] if resume else [])


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in CLOCKED)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(words: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(words: list[str]) -> None:
    process = start(words)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{errors.decode()}")


def kill(words: list[str], after_start: float, marker: Path) -> str:
    """Kill the process so many seconds after `marker` exists; what it had done by then."""
    process = start(words)
    while not marker.exists() and process.poll() is None:
        sleep(0.002)
    begun = monotonic()
    while monotonic() - begun < after_start and process.poll() is None:
        sleep(0.001)
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return "it had ended" if ended else "killed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="sap")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        quiet = root / "undisturbed"
        process = start(command(args.recipe, quiet, False))
        while not (quiet / "run.json").exists() and process.poll() is None:
            sleep(0.002)
        begun = monotonic()
        _, errors = process.communicate()
        length = monotonic() - begun
        if process.returncode:
            raise SystemExit(errors.decode())
        expected = contents(quiet)
        trials = []
        for number in range(args.times):
            folder, moment = root / f"killed-{number}", draw.uniform(0, length)
            words = command(args.recipe, folder, False)
            while kill(words, moment, folder / "run.json") != "killed":  # too late: the machine was quicker this time
                shutil.rmtree(folder)
                moment *= 0.8
            trial: dict[str, object] = {"killed after (s)": round(moment, 3)}
            lines = folder / "levels.jsonl"
            trial["levels done"] = len(lines.read_text().splitlines()) - 1 if lines.exists() else 0
            trial["inside a level"] = (folder / "state.safetensors").exists()
            resumed = command(args.recipe, folder, True)
            if number % 2:
                again = draw.uniform(0, length)
                trial["again after (s)"] = round(again, 3)
                trial["again"] = kill(resumed, again, folder / "run.json")
            finish(resumed)
            trial["identical"] = contents(folder) == expected
            trials.append(trial)
            print(json.dumps(trial), flush=True)
            shutil.rmtree(folder)
    same = sum(trial["identical"] for trial in trials)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "undisturbed run (s)": round(length, 2),
        "files compared": len(expected),
        "trials": trials,
        "identical": f"{same} of {len(trials)}",
    }
    print(result["identical"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if same != len(trials):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
