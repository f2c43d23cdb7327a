"""Let two processes work on one folder, a random moment apart, and look at what comes of it.

    python studies/faults/two.py [--times 100] [--seed 0] [--json studies/faults/two.json]

Trial i is drawn from (seed, i), in turn: the same new run begun twice; an interrupted run taken up twice; a run that
`show`, `report`, `verify` and `analyze` read again and again while it is written; the same study begun twice.

Of two writers one ends with exit code 0. The other ends with 2 (the folder is taken) or 3 (another process writes it)
and one line, or with 0 if the first was done. No reader may call damaged what is being written, or end with more than a
line. In the end every file is that of an undisturbed run.

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
from collections import Counter
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import forked

NAMES = ("lottery", "snip", "sap --carry-on")
READERS = ("show", "report", "verify", "analyze")
STUDY = [{"recipe": "snip", "arguments": {"epochs": 1}, "model": "mlp", "data": "digits"}]


def place(root: Path, name: str) -> Path:
    """A folder for what a process says."""
    (root / name).mkdir(exist_ok=True)
    return root / name


def refused(child: forked.Child, done: bool) -> str | None:
    """What is wrong with how the one ended that came second."""
    if child.code == 0 and done:
        return None
    lines = [line for line in child.errors.splitlines() if line.strip()]
    clear = len(lines) == 1 and lines[0].startswith("sparsight: ")
    return None if child.code in (2, 3) and clear else f"exit code {child.code}: {child.errors[-400:]}"


def writers(line: list[str], root: Path, apart: float) -> tuple[str, str | None]:
    """The same command twice: how both ended, and what is wrong."""
    first = forked.start(line, place(root, "first"))
    sleep(apart)
    second = forked.start(line, place(root, "second"))
    codes = first.wait(), second.wait()
    if 0 not in codes:
        return str(codes), f"{first.errors[-300:]} {second.errors[-300:]}"
    wrong = refused(second, "--resume" in line) if codes[0] == 0 else refused(first, "--resume" in line)
    return str(codes), wrong


def readers(line: list[str], root: Path, out: Path, draw: random.Random) -> tuple[str, str | None]:
    """Readers while a run is written."""
    writer = forked.start(line, place(root, "writer"))
    seen: Counter[str] = Counter()
    while not writer.ended():
        sleep(draw.uniform(0, 0.02))
        command = draw.choice(READERS)
        child = forked.call([command, str(out)], place(root, "reader"))
        seen[f"{command} {child.code}"] += 1
        lines = [text for text in child.errors.splitlines() if text.strip()]
        damaged = "is damaged" in child.errors + child.said
        if damaged or child.code not in (0, 2, 3, 4) or len(lines) > 1 or forked.fault(child):
            writer.wait()
            return str(dict(seen)), f"{command}: exit code {child.code}: {child.errors or child.said}"[:500]
    return str(dict(seen)), None if writer.code == 0 else f"exit code {writer.code}: {writer.errors[-300:]}"


def studies(root: Path, out: Path, apart: float) -> tuple[str, str | None]:
    (root / "trials.json").write_text(json.dumps(STUDY))
    line = [sys.executable, "-m", "sparsight", "study", str(root / "trials.json"), "--out", str(out)]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sleep(apart)
    second = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = first.communicate()[0], second.communicate()[0]
    codes = first.returncode, second.returncode
    if 0 not in codes or any("Traceback" in text for text in said) or not {*codes} <= {0, 1}:
        return str(codes), "\n".join(said)[-500:]
    log = next((out / "logs").iterdir()).read_text()
    return str(codes), log[-300:] if "Traceback" in log or "unexpected" in log else None


def trial(i: int, draw: random.Random, root: Path, known: dict[str, tuple[float, Any]]) -> dict[str, Any]:
    kind = "studies" if i % 10 == 9 else ("new", "taken up", "read")[i % 3]
    name = "snip" if kind == "studies" else draw.choice(NAMES)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    if name not in known:
        child = forked.call(forked.words(name, root / "whole"), root)
        known[name] = monotonic() - child.started, forked.contents(root / "whole")
    length, expected = known[name]
    out, apart = root / "out", draw.uniform(0, 0.8 * length)
    if kind == "taken up":
        begun = forked.start(forked.words(name, out), root)
        begun.after(draw.uniform(0.3, 0.9) * length, signal.SIGKILL)
        begun.wait()
    if kind == "read":
        how, wrong = readers(forked.words(name, out), root, out, draw)
    elif kind == "studies":
        how, wrong = studies(root, out, draw.uniform(0, 6))
        (out,) = (out / "trials").iterdir()
        return {"trial": i, "kind": kind, "run": name, "how": how, "wrong": wrong}
    else:
        how, wrong = writers(forked.again(name, out), root, apart)
    if wrong is None and forked.contents(out) != expected:
        wrong = "it ends with other files than an undisturbed run"
    return {"trial": i, "kind": kind, "run": name, "apart": round(apart, 3), "how": how, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(forked.ROOT / "src")
    os.environ["OMP_NUM_THREADS"] = "1"
    forked.load()
    results = forked.Results(args.json, command="python studies/faults/two.py", seed=args.seed)
    known: dict[str, tuple[float, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        while len(results.trials) < args.times:
            i = len(results.trials)
            found = trial(i, random.Random(f"{args.seed} {i}"), Path(folder) / "trial", known)
            results.add(found)
            if found["wrong"]:
                print(json.dumps(found), flush=True)
    kinds = Counter(one["kind"] for one in results.trials)
    results.done["summary"] = {**kinds, "wrong": len(results.wrong())}
    results.save()
    print(json.dumps(results.done["summary"], indent=1))
    raise SystemExit(1 if results.wrong() else 0)


if __name__ == "__main__":
    main()
