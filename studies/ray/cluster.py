"""Studies on a real cluster of two Ray nodes on this machine, with a node and the coordinator killed on the way.

    python studies/ray/cluster.py faults --json studies/ray/faults.json
    python studies/ray/cluster.py overhead [--trials 200] --json studies/ray/overhead.json

`faults` runs the twenty trials of trials.yaml by `--engine local`, then on the cluster: a node is killed while a trial
runs on it, another one joins, the coordinator is killed with SIGKILL and started again. The rows must be the same but
for the seconds, and no trial may be begun twice but those that had a process when something was killed.

`overhead` runs the trials of seconds.yaml and tells what a trial takes beside its own seconds, and how busy the nodes
were.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

HERE = Path(__file__).parent
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_enable_metrics_collection": "0", "RAY_worker_niceness": "0"}


@contextmanager
def cluster() -> Iterator[Any]:
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        joined(found)
        yield found
    finally:
        found.shutdown()


def joined(found: Any) -> Any:
    return found.add_node(num_cpus=1, object_store_memory=80 << 20)


def study(file: Path, out: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sparsight", "study", str(file), "--out", str(out)]
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen([*command, "--threads=1", "--device=cpu", *words], stdout=log, stderr=log)


def finished(out: Path) -> set[str]:
    """The trials whose report is written, which is the last thing that they do."""
    return {path.parent.name for path in (out / "trials").glob("*/report.html")}


def begun(out: Path) -> dict[str, int]:
    """How often each trial was begun, from its log."""
    told = {path.stem: path.read_text() for path in (out / "logs").glob("*.log")}
    return {name: text.count("\nrunning ") + text.count("\nresuming ") for name, text in told.items()}


def running(out: Path) -> set[str]:
    """The trials that are in mid-training: what they have stored says that they are not at their beginning or end."""
    return {path.parent.name for path in (out / "trials").glob("*/state.safetensors")} - finished(out)


def alive(out: Path) -> set[str]:
    """The trials that have a process, from /proc: also those that start or write their report."""
    found, trials = set(), str(out / "trials").encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if b"run" in words[:5]:
            found |= {Path(os.fsdecode(word)).name for word in words if word.startswith(trials)}
    return found


def until(what: Any, process: subprocess.Popen[bytes], limit: float = 1800) -> None:
    since = monotonic()
    while not what():
        assert process.poll() is None, "the study has ended too early"
        assert monotonic() - since < limit, "it takes too long"
        sleep(0.02)


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "rows.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def faults(root: Path) -> dict[str, Any]:
    file, local, out = HERE / "trials.yaml", root / "local", root / "ray"
    assert study(file, local, "--workers=2").wait() == 0, local.with_suffix(".log").read_text()
    lost: dict[str, set[str]] = {}
    with cluster() as nodes:
        words = ("--engine=ray", f"--address={nodes.address}")
        process = study(file, out, *words)
        until(lambda: len(finished(out)) >= 3 and len(running(out)) == 2, process)
        before = alive(out)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        lost["node"] = before | alive(out)  # one may have ended, and the next have begun, on the way
        sleep(5)
        joined(nodes)
        until(lambda: len(finished(out)) >= 9 and len(running(out)) >= 1, process)
        before = alive(out)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lost["coordinator"] = before | alive(out)
        done = finished(out)
        kept = {name: (out / "trials" / name / "report.html").stat().st_mtime_ns for name in done}
        process = study(file, out, *words)
        code = process.wait()
    assert code == 0, out.with_suffix(".log").read_text()
    again = {name for name, times in begun(out).items() if times > 1}
    assert again <= lost["node"] | lost["coordinator"], f"begun twice without need: {again}"
    assert all((out / "trials" / name / "report.html").stat().st_mtime_ns == at for name, at in kept.items())
    assert rows(out) == rows(local), "other rows"
    return {
        "trials": len(finished(out)), "rows": len(rows(out)), "same rows": True,
        "running when the node was killed": len(lost["node"]),
        "running when the coordinator was killed": len(lost["coordinator"]),
        "begun more than once": len(again), "begins": sum(begun(out).values()), "finished and left alone": len(kept),
    }  # fmt: skip


def overhead(root: Path, trials: int) -> dict[str, Any]:
    out, file = root / "ray", root / "seconds.yaml"
    file.write_text((HERE / "seconds.yaml").read_text().replace("seeds: 200", f"seeds: {trials}"))
    with cluster() as nodes:
        process = study(file, out, "--engine=ray", f"--address={nodes.address}")
        until(lambda: len(finished(out)) >= 2, process)  # both nodes have imported what they need
        first, since, busy, looks = len(finished(out)), monotonic(), 0, 0
        while process.poll() is None and len(finished(out)) < trials:
            busy, looks = busy + len(alive(out)), looks + 1
            sleep(0.1)
        wall, counted = monotonic() - since, len(finished(out)) - first
        assert process.wait() == 0, out.with_suffix(".log").read_text()
    with open(out / "rows.csv", newline="") as table:
        own = [float(row["seconds"]) for row in csv.DictReader(table)]
    mean = sum(own) / len(own)
    return {
        "trials": trials, "nodes": 2, "seconds of a trial by its own clock": round(mean, 2),
        "seconds of a node for a trial": round(2 * wall / counted, 2),
        "overhead for a trial, seconds": round(2 * wall / counted - mean, 2),
        "trials running on average": round(busy / looks, 2), "load of the machine": round(os.getloadavg()[2], 1),
        "cores": os.cpu_count(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["faults", "overhead"])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="work here, where what is finished is not done again")
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp(prefix="ray-study-"))
    root.mkdir(exist_ok=True)
    found = faults(root) if asked.what == "faults" else overhead(root, asked.trials)
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if asked.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
