"""Peak resident memory of analysing a sharded checkpoint of more than 4 GB.

    python studies/analyze/memory.py FOLDER [--json studies/analyze/memory.json]

Writes the checkpoint (random weights, three dtypes, 6 shards) into FOLDER, analyses it in a fresh process whose
VmHWM is read at its end, checks one tensor's sums against numpy, and deletes the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

CHILD = """
import json, sys, time
import numba, torch, sparsight.analysis
def resident(what):
    return int(next(x for x in open("/proc/self/status") if x.startswith(what)).split()[1]) / 1024
before = resident("VmRSS")
start = time.perf_counter()
budget = int(sys.argv[2]) << 20
found = sparsight.analysis.analyze(sys.argv[1], p=(0.5, 1.0), q=(1.0, 2.0), eta=(0.0, 0.1), budget=budget)
seconds = time.perf_counter() - start
first = found.tensors[0]
print(json.dumps({
    "weights": found.count, "tensors": len(found.tensors), "seconds": round(seconds, 2),
    "resident_before_mib": round(before), "peak_mib": round(resident("VmHWM")), "threads": torch.get_num_threads(),
    "first": {"name": first.name, "index": [m.index for m in first.summary.measures]},
    "whole_index": [m.index for m in found.whole.measures],
}))
"""


def write(folder: Path) -> int:
    """6 shards of 750 MB: bytes in all."""
    folder.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(0)
    where, size = {}, 0
    for shard in range(6):
        name = f"model-{shard + 1:05}-of-00006.safetensors"
        dtype = (torch.float32, torch.bfloat16, torch.float16)[shard % 3]
        tensors = {}
        for layer in range(4):
            rows = 187_500_000 // 4 // 4096 * (4 // dtype.itemsize)
            w = torch.empty(rows, 4096, dtype=dtype)
            for a in range(0, rows, 4096):
                w[a : a + 4096] = torch.randn(len(w[a : a + 4096]), 4096, generator=g) * 0.02
            tensors[f"layers.{shard}.{layer}.weight"] = w
        save_file(tensors, folder / name)
        where |= dict.fromkeys(tensors, name)
        size += (folder / name).stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def reference(folder: Path) -> list[float]:
    """PQ indices of the first tensor in float64."""
    from safetensors import safe_open

    with safe_open(folder / "model-00001-of-00006.safetensors", "pt") as file:
        x = np.abs(file.get_tensor("layers.0.0.weight").numpy().reshape(-1).astype(np.float64))
    half, one, two = np.sqrt(x).mean(), x.mean(), (x * x).mean()
    return [1 - half**2 / one, 1 - one / two**0.5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    start = time.perf_counter()
    size = write(given.folder)
    print(f"wrote {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s")
    results = {"bytes": size, "platform": platform.platform(), "torch": torch.__version__, "runs": []}
    try:
        expected = reference(given.folder)
        for budget in (256, 64):
            command = [sys.executable, "-c", CHILD, str(given.folder), str(budget)]
            run = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert max(abs(a - b) for a, b in zip(run["first"]["index"], expected, strict=True)) < 1e-8, expected
            results["runs"].append({"budget_mib": budget, **run})
            print(results["runs"][-1])
        assert len({tuple(r["whole_index"]) for r in results["runs"]}) == 1, "the budget changed the result"
    finally:
        for path in given.folder.glob("model*"):
            path.unlink()
    given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
