"""Kill a study of five methods and five seeds at random moments until it is finished; its table must be the same.

    python studies/faults/killed_study.py [--least 20] [--longest 30] [--json studies/faults/killed_study.json]

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

HERE = Path(__file__).parent
CLOCKS = ("run.json", "times.jsonl", "report.html", "run.lock")


def started(out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "sparsight", "study", str(HERE / "killed_study.yaml"), "--out", str(out)]
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


def disturbed(out: Path, draw: random.Random, longest: float) -> tuple[list[str], int]:
    """Start the study and kill trials of it, or in the end the study; what was hit, and how the study ended."""
    study, hits, trials = started(out), [], []
    while study.poll() is None:
        until = monotonic() + draw.uniform(1, longest)
        while study.poll() is None and monotonic() < until:
            sleep(0.02)
        trials = trials_of(study.pid) if study.poll() is None else []
        if study.poll() is None:
            hits.append("trial" if trials and draw.random() < 0.5 else "study")
            os.kill(draw.choice(trials) if hits[-1] == "trial" else study.pid, signal.SIGKILL)
            if hits[-1] == "study":
                study.wait()
    for trial in trials:  # of a killed study, each ends with the pipe that it holds
        until = monotonic() + 90
        while Path(f"/proc/{trial}").exists() and monotonic() < until:
            sleep(0.05)
    return hits, study.returncode


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
    parser.add_argument("--longest", type=float, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="work here, where the undisturbed study is done once")
    asked = parser.parse_args()
    root, draw = asked.folder or Path(tempfile.mkdtemp(prefix="study-kills-")), random.Random(asked.seed)
    root.mkdir(exist_ok=True)
    assert started(root / "whole").wait() == 0, (root / "whole.log").read_text()
    whole, expected = rows(root / "whole"), contents(root / "whole")
    hits, studies, starts = [], 0, 0
    while len(hits) < asked.least:
        out, code = root / f"killed-{studies}", -1
        while code != 0:
            more, code = disturbed(out, draw, asked.longest)
            hits += more
            print(more, code, flush=True)
        assert rows(out) == whole, f"other rows in {out}"
        assert contents(out) == expected, f"other files in {out}"
        starts = len(list((out / "shared").glob("*.safetensors")))
        shutil.rmtree(out)
        studies += 1
    told = {
        "trials": len({(row["label"], row["seed"]) for row in whole}), "rows": len(whole), "studies": studies,
        "kills": {"study": hits.count("study"), "trial": hits.count("trial")}, "same rows": True, "same files": True,
        "files": len(expected), "shared trainings": starts,
    }  # fmt: skip
    print(json.dumps(told, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    if asked.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
