"""Memory that `sparse_runtime` takes from a dense checkpoint and from a packed file of the same network.

    python benchmarks/runtime_memory.py [--json benchmarks/results/runtime_memory.json]

Six linear layers of 4096 by 4096, drawn at random and pruned in every layer. Each way is a process of its own that
makes the network run sparse (`seconds=0`: nothing is timed) and calls it on one input: its high-water mark, less that
of a process that only loads PyTorch and Sparsight.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import sparsight
from sparsight.checkpoint import pack
from sparsight.deploy.bench import machine, prune_at_random_
from sparsight.deploy.ledger.measure import high_water

LAYERS, WIDTH = 6, 4096
DENSITIES = (0.2, 0.1, 0.05)


def network() -> nn.Module:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))).eval()


def child(way: str, folder: Path) -> None:
    torch.set_num_threads(1)
    x = torch.ones(1, WIDTH)
    if way != "nothing":
        with torch.device("meta"):
            model = network()
        if way == "packed":
            fast = sparsight.sparse_runtime(model, x, weights=folder / "packed.safetensors", seconds=0)
        else:
            model = model.to_empty(device="cpu")
            sparsight.load_into(folder / "dense.safetensors", model)
            fast = model if way == "torch" else sparsight.sparse_runtime(model, x, seconds=0)
            del model
        with torch.inference_mode():
            fast(x)
    else:
        sparsight.sparse_runtime(nn.Linear(16, 16).eval(), x[:, :16], seconds=0)
    print(high_water())


def measured(density: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model = network()
        prune_at_random_(model, density, 0)
        save_file(model.state_dict(), Path(folder) / "dense.safetensors")
        size = pack(model, Path(folder) / "packed.safetensors").size
        most = {}
        for way in ("nothing", "torch", "dense", "packed"):
            command = [sys.executable, __file__, "--child", way, folder]
            most[way] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    bare = most.pop("nothing")
    dense = 4 * LAYERS * WIDTH**2
    return {
        "density": density,
        "dense": dense,
        "file": size,
        "loaded": bare,
        "peak": {k: v - bare for k, v in most.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], Path(asked.child[1]))
        return
    rows = []
    for density in DENSITIES:
        rows.append(row := measured(density))
        peak = ", ".join(f"{way} {size / 1e6:.0f} MB" for way, size in row["peak"].items())
        print(f"density {density}: dense {row['dense'] / 1e6:.0f} MB, file {row['file'] / 1e6:.0f} MB; peak: {peak}")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
