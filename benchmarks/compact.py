"""How much smaller and faster compaction makes networks of the zoo that were trained and pruned.

    python benchmarks/compact.py --json benchmarks/results/compact.json

Each network is trained and pruned by `sparsight run oneshot`. Dense and compacted it is timed in eager PyTorch on one
thread, in turns: the least process time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from sparsight.cli import main as sparsight
from sparsight.cli.certify_inputs import network_of
from sparsight.deploy import compact
from sparsight.deploy.bench import machine, timed
from sparsight.records.outputs import write_output

NETWORKS = {  # data, and epochs of training of each level
    "lenet-300-100": ("digits", 10),
    "cnn": ("digits", 2),
    "resnet20": ("digits", 3),
    "vanilla-cnn": ("digits", 5),
}
DENSITIES = (0.05, 0.01)
BATCHES = (1, 64)


def measured(model: str, data: str, density: float, epochs: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--target-density", str(density), "--epochs", str(epochs), "--no-control", "--device", "cpu"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = sparsight(["run", "oneshot", "--model", model, "--data", data, *words, "--out", f"{folder}/run"])
        if code:
            raise SystemExit(f"{model} on {data} could not be pruned")
        _, network, x = network_of(Path(folder, "run"), None, None, None)
        done = compact(network, x)
    found: dict[str, Any] = {
        "model": model, "data": data, "density": density, "before": done.before, "after": done.after,
        "difference": done.difference, "stays": sum(one.units for one in done.left), "seconds": {},
    }  # fmt: skip
    for batch in BATCHES:
        inputs = x[:1].expand(batch, *x.shape[1:]).contiguous()
        with torch.inference_mode():
            ways = {"dense": lambda i=inputs: network(i), "compacted": lambda i=inputs: done.module(i)}
            found["seconds"][str(batch)] = {name: t.process for name, t in timed(ways, rounds).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model, (data, epochs) in NETWORKS.items():
        for density in DENSITIES:
            rows.append(row := measured(model, data, density, epochs, asked.rounds))
            speed = {n: round(s["dense"] / s["compacted"], 2) for n, s in row["seconds"].items()}
            size = f"{row['before']:,} → {row['after']:,} ({row['before'] / row['after']:.1f}×)"
            print(f"{model} on {data}, density {density:g}: {size}, times as fast at batch {speed}", flush=True)
            if asked.json:  # after each, so that what was measured stays
                write_output(asked.json, [(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n").encode()])


if __name__ == "__main__":
    main()
