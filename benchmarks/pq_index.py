"""The PQ index at the speed of reading: bytes per second beside a plain sum, and the error beside vector_norm.

    python benchmarks/pq_index.py [--weights 100000000] [--rounds 15] [--threads 1 2] [--json results/pq_index.json]

Float32 weights of a Gaussian, as one vector and as tensors of 4096 x 4096. The rival reads the same memory once and
adds it up: `torch.sum` or a compiled loop, whichever is faster here. All ways run in turn, round after round; the
best round of each counts, since what others do on the machine can only slow it. Bars: on two threads 0.8 of the rival's
bytes per second at (1, 2) and 0.75 at (0.5, 1), 0.6 on one. Errors are against power sums in float64 (numpy, pairwise).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import numpy as np
import torch

from sparsight import pq_index
from sparsight.numerics.kernels.jit import each

PAIRS = ((0.5, 1.0), (1.0, 2.0))
BARS = {1: (0.6, 0.6), 2: (0.75, 0.8)}  # by threads, for each of PAIRS
PIECE = 1 << 20


@numba.njit(nogil=True, fastmath=True)
def plain(x: np.ndarray) -> float:
    total = np.float32(0)
    for i in range(x.shape[0]):
        total += x[i]
    return total


def compiled_sum(tensors: list[torch.Tensor]) -> float:
    pieces = [part.numpy() for t in tensors for part in t.reshape(-1).split(PIECE)]
    return float(sum(each(lambda i: plain(pieces[i]), len(pieces))))


def by_norms(tensors: list[torch.Tensor], p: float, q: float) -> float:
    """The formula as it stands, in float32; several tensors through the norm of their norms."""
    norms = [torch.stack([torch.linalg.vector_norm(t, e) for t in tensors]).double().norm(e).item() for e in (p, q)]
    return 1 - sum(t.numel() for t in tensors) ** (1 / q - 1 / p) * norms[0] / norms[1]


def exact(tensors: list[torch.Tensor], p: float, q: float) -> float:
    sums, count = np.zeros(2, dtype=np.longdouble), sum(t.numel() for t in tensors)
    for t in tensors:
        for part in t.reshape(-1).split(PIECE):
            w = part.double().abs().numpy()
            sums += [np.sum(w**e) if e != 0.5 else np.sum(np.sqrt(w)) for e in (p, q)]
    means = (sums / count) ** np.array([1 / p, 1 / q], dtype=np.longdouble)
    return float(1 - means[0] / means[1])


def best(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each way's fastest round, after one to warm up."""
    seconds = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = perf_counter()
            way()
            if turn:
                seconds[name] = min(seconds[name], perf_counter() - start)
    return seconds


def measure(shape: str, tensors: list[torch.Tensor], threads: int, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    named = {str(i): t for i, t in enumerate(tensors)}
    gigabytes = sum(t.numel() for t in tensors) * 4e-9
    ways: dict[str, Callable[[], Any]] = {
        "torch.sum": lambda: [t.sum() for t in tensors],
        "compiled sum": lambda: compiled_sum(tensors),
    }
    for p, q in PAIRS:
        ways[f"pq_index({p:g}, {q:g})"] = lambda p=p, q=q: pq_index(named, p, q)
        ways[f"vector_norm({p:g}, {q:g})"] = lambda p=p, q=q: by_norms(tensors, p, q)
    slow = {name: way for name, way in ways.items() if name.startswith("vector")}
    seconds = best({n: w for n, w in ways.items() if n not in slow}, rounds) | best(slow, 1)
    bars = dict(zip((f"pq_index({p:g}, {q:g})" for p, q in PAIRS), BARS.get(threads, ()), strict=False))
    rival = min(("torch.sum", "compiled sum"), key=seconds.__getitem__)
    return [
        {
            "weights": shape,
            "threads": threads,
            "way": name,
            "GB/s": round(gigabytes / s, 2),
            "of the rival": round(seconds[rival] / s, 3),
            "rival": rival,
            "bar": bars.get(name),
        }
        for name, s in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    vector = torch.randn(args.weights, generator=torch.Generator().manual_seed(0))
    matrices = list(vector[: args.weights >> 24 << 24].reshape(-1, 4096, 4096))
    sets = {"one vector": [vector]}
    if matrices:
        sets[f"{len(matrices)} of 4096 x 4096"] = matrices
    rows, errors = [], []
    for shape, tensors in sets.items():
        for threads in args.threads:
            rows += measure(shape, tensors, threads, args.rounds)
    for shape, tensors in sets.items():
        for p, q in PAIRS:
            true = exact(tensors, p, q)
            ours = pq_index({str(i): t for i, t in enumerate(tensors)}, p, q)
            norms = by_norms(tensors, p, q)
            found = {"exact": true, "error of pq_index": ours - true, "error of vector_norm": norms - true}
            errors.append({"weights": shape, "p": p, "q": q, **found})
    for row in [*rows, *errors]:
        print("  ".join(f"{key}: {value}" for key, value in row.items()))
    if args.json:
        about = {"weights": args.weights, "rounds": args.rounds, "torch": torch.__version__, "numba": numba.__version__}
        about["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
        args.json.write_text(json.dumps({"about": about, "rows": rows, "errors": errors}, indent=1) + "\n")


if __name__ == "__main__":
    main()
