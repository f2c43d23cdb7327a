"""Kill runs and studies with SIGKILL at random moments, give the same command again, and compare what they end with.

    python studies/faults/kills.py [--kills 200] [--seed 0] [--json studies/faults/kills.json]

Trial i is drawn from (seed, i): one of the small runs of `forked.RECIPES`, or in one of twenty a study of two runs, and
a moment of the undisturbed one's length. Half of the trials are killed again while the command resumes. After each kill
`verify` must find no damage, and `show` must tell the run, or that there is none yet. In the end every file must be
that of an undisturbed run, but for what knows a clock. A kill that comes too late is drawn anew.

The figures are saved after every trial; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import forked

STUDY = [
    {"recipe": "lottery", "arguments": {"epochs": 1, "levels": 2}, "model": "mlp", "data": "digits"},
    {"recipe": "snip", "arguments": {"epochs": 1}, "model": "mlp", "data": "digits", "seeds": [1]},
]


def clockless(table: Path) -> list[list[str]]:
    """The rows of a table without what knows a clock: its seconds."""
    with open(table, newline="") as file:
        rows = [row for row in csv.reader(file) if "seconds" not in row or "seed" in row]
    gone = rows[0].index("seconds") if rows and "seconds" in rows[0] else None
    return [[cell for at, cell in enumerate(row) if at != gone] for row in rows]


class Trial:
    """A run or a study in a folder of its own."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.out = name, root, root / "out"
        root.mkdir()
        (root / "trials.json").write_text(json.dumps(STUDY))

    def start(self) -> forked.Child:
        if self.name != "study":
            return forked.start(forked.again(self.name, self.out), self.root)
        words = [sys.executable, "-m", "sparsight", "study", str(self.root / "trials.json"), "--out", str(self.out)]
        with open(self.root / "stdout", "wb") as out, open(self.root / "stderr", "wb") as err:
            process = subprocess.Popen(words, stdout=out, stderr=err, cwd=self.root)
        process.returncode = 0  # it is waited for as the others are
        return forked.Child(process.pid, self.root / "stdout", self.root / "stderr", monotonic())

    def runs(self) -> dict[str, Path]:
        """The runs that have begun, by their name in the study."""
        runs = sorted((self.out / "trials").glob("*")) if self.name == "study" else [self.out]
        return {run.name: run for run in runs if (run / "run.json").exists()}

    def contents(self) -> dict[str, Any]:
        tables = {p.name: clockless(p) for p in self.out.glob("*.csv")}
        return {**{name: forked.contents(run) for name, run in self.runs().items()}, **tables}

    def look(self) -> str | None:
        """What is wrong with what a kill has left."""
        for run in self.runs().values():
            for command in ("verify", "show"):
                child = forked.call([command, str(run)], self.root)
                if child.code or child.errors:
                    return f"{command} after a kill: exit code {child.code}: {child.errors or child.said:.300}"
        if not self.runs() and self.out.exists():
            child = forked.call(["show", str(self.out)], self.root)
            if child.code != 2 or forked.fault(child):
                return f"show before the run began: exit code {child.code}: {child.errors:.300}"
        return None

    def settle(self) -> None:
        """Wait until the trials of a killed study have let their folders go."""
        from sparsight.records.new_folder import LockedRun, take

        for folder in (self.out / "trials").glob("*"):
            until = monotonic() + 60
            while monotonic() < until:
                try:
                    take(folder).release()
                    break
                except LockedRun:
                    sleep(0.05)

    def finish(self) -> str | None:
        child = self.start()
        child.wait()
        return None if child.code == 0 else f"resuming ends with {child.code}: {child.errors[-300:]}{child.said[-300:]}"


def killed(trial: Trial, moment: float, length: float, draw: random.Random) -> dict[str, Any]:
    """Kill it, maybe twice, finish it: what was seen."""
    found: dict[str, Any] = {"killed after": round(moment, 3)}
    if not trial.start().after(moment):
        return {"late": True}
    found["found"] = sum(len((r / "levels.jsonl").read_text().splitlines()) - 1 for r in trial.runs().values())
    found["began"] = bool(trial.runs())
    found["inside a level"] = any((run / "state.safetensors").exists() for run in trial.runs().values())
    trial.settle()
    found["wrong"] = trial.look()
    if draw.random() < 0.5 and found["wrong"] is None:
        again = draw.uniform(0, length)
        found["again after"] = round(again, 3)
        found["again"] = "killed" if trial.start().after(again) else "it had ended"
        trial.settle()
        found["wrong"] = trial.look()
    found["wrong"] = found["wrong"] or trial.finish()
    return found


def undisturbed(root: Path, name: str) -> tuple[float, dict[str, Any]]:
    """How long the run takes, and what it leaves: the same in a second run."""
    length, first = 0.0, None
    for number in (1, 2):
        trial = Trial(name, root / f"undisturbed-{name.replace(' ', '')}-{number}")
        started = monotonic()
        wrong = trial.finish()
        length, found = monotonic() - started, trial.contents()
        if wrong is not None or first not in (None, found):
            raise SystemExit(f"{name}: {wrong or 'two undisturbed runs differ'}")
        first = found
    return length, first or {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(forked.ROOT / "src")
    os.environ["OMP_NUM_THREADS"] = "1"
    forked.load()
    results = forked.Results(args.json, command="python studies/faults/kills.py", seed=args.seed)
    known: dict[str, tuple[float, dict[str, Any]]] = {}
    names = [*forked.RECIPES]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        while len(results.trials) < args.kills:
            i = len(results.trials)
            draw = random.Random(f"{args.seed} {i}")
            name = "study" if i % 20 == 19 else names[(i - i // 20) % len(names)]
            if name not in known:
                known[name] = undisturbed(root, name)
            length, expected = known[name]
            found: dict[str, Any] = {"late": True}
            while "late" in found:
                shutil.rmtree(root / "trial", ignore_errors=True)
                trial = Trial(name, root / "trial")
                found = killed(trial, draw.uniform(0, length), length, draw)
            if found["wrong"] is None and trial.contents() != expected:
                ends = trial.contents()
                other = [name for name in {**ends, **expected} if ends.get(name) != expected.get(name)]
                found["wrong"] = f"other than an undisturbed run: {other}"
            found = {"trial": i, "run": name, **found}
            results.add(found)
            if found["wrong"]:
                print(json.dumps(found), flush=True)
    trials = results.trials
    again = sum(trial.get("again") == "killed" for trial in trials)
    results.done["summary"] = {
        "trials": len(trials),
        "kills": len(trials) + again,
        "killed a second time": again,
        "before the run had begun": sum(not trial["began"] for trial in trials),
        "with a state inside a level": sum(trial["inside a level"] for trial in trials),
        "of studies": sum(trial["run"] == "study" for trial in trials),
        "ended with other bits, or with words that nobody meant": len(results.wrong()),
    }
    results.save()
    print(json.dumps(results.done["summary"], indent=1))
    raise SystemExit(1 if results.wrong() else 0)


if __name__ == "__main__":
    main()
