"""Kill a study of five methods and five seeds at random moments until it is finished; its table must be the same.

    python studies/faults/study.py [--seed 0] [--least 20] [--json studies/faults/study.json]

Half of the kills hit the study, the other half one of its trials; all are SIGKILL. After each the same command is given
again. In the end the rows and every file of every run must be those of a study that nobody disturbed, but for what
knows a clock; and no training that trials share may have been done twice. `--least` kills are made: a study that is
finished before is begun anew.
"""

from __future__ import annotations

import argparse
import csv
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

HERE = Path(__file__).parent
CLOCKS = ("run.json", "times.jsonl", "report.html", "run.lock")


def started(out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "sparsight", "study", str(HERE / "study.yaml"), "--out", str(out)]
    words += ["--workers", "2", "--threads", "1", "--device", "cpu"]
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def trials_of(study: int) -> list[int]:
    """Its children, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it has ended
            continue
        if int(text.rpartition(")")[2].split()[1]) == study:
            found.append(int(path.parent.name))
    return found


def killed(out: Path, draw: random.Random, length: float) -> dict[str, Any]:
    """Start the study, kill it or a trial after a while; what was killed and when, and how the study ended."""
    study, since = started(out), monotonic()
    at = draw.uniform(1, length)
    while study.poll() is None and monotonic() - since < at:
        sleep(0.02)
    trials = trials_of(study.pid) if study.poll() is None else []
    hit = None
    if study.poll() is None:
        hit = draw.choice(["study", "trial"]) if trials else "study"
        os.kill(study.pid if hit == "study" else draw.choice(trials), signal.SIGKILL)
    code = study.wait()
    for trial in trials:  # of a killed study, each ends with the pipe that it holds
        until = monotonic() + 90
        while Path(f"/proc/{trial}").exists() and monotonic() < until:
            sleep(0.05)
    return {"hit": hit, "after": round(at, 1), "code": code}


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "rows.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def contents(out: Path) -> dict[str, bytes]:
    trials = out / "trials"
    return {
        str(p.relative_to(trials)): p.read_bytes() for p in trials.rglob("*") if p.is_file() and p.name not in CLOCKS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=int, default=20)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    root, draw = Path(tempfile.mkdtemp(prefix="study-kills-")), random.Random(asked.seed)
    since = monotonic()
    assert started(root / "whole").wait() == 0, (root / "whole.log").read_text()
    length = monotonic() - since
    whole, expected = rows(root / "whole"), contents(root / "whole")
    kills, studies = [], 0
    while sum(kill["hit"] is not None for kill in kills) < asked.least:
        out = root / f"killed-{studies}"
        while True:
            kills.append(killed(out, draw, length / 4))
            print(kills[-1], flush=True)
            if kills[-1]["code"] == 0:
                break
        assert rows(out) == whole, f"other rows in {out}"
        assert contents(out) == expected, f"other files in {out}"
        starts = len(list((out / "shared").glob("*.safetensors")))
        shutil.rmtree(out)
        studies += 1
    hits = [kill["hit"] for kill in kills]
    told = {
        "trials": len({(row["label"], row["seed"]) for row in whole}), "rows": len(whole), "studies": studies,
        "kills": {"study": hits.count("study"), "trial": hits.count("trial")}, "same rows": True, "same files": True,
        "files": len(expected), "shared trainings": starts, "seconds undisturbed": round(length),
    }  # fmt: skip
    print(json.dumps(told, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
