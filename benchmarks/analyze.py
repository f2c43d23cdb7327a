"""Speed of `analyze`, beside reading and summing the same tensors, and beside `torch.linalg.vector_norm`.

    python benchmarks/analyze.py [--weights 100663296] [--rows 4096] [--threads 1 2] [--folder DIR]
                                 [--json benchmarks/results/analyze.json]
    python benchmarks/analyze.py --layer llama-3-70b --memory --rounds 25

The rival "read and sum" is `Tensor.sum` of every tensor; bytes per second are given as a share of it. "sums alone" is
`analyze` without a sample, and of all defaults of the command line together is also said how much longer they take.
Rounds of all contestants take turns, and the best round of each counts. The file is read through the page cache, after
once having been read, and beside it `pread` alone into a buffer; "cold" is both after the file has left the page cache,
where the disk is the limit. With --folder it lies there. With --memory there is no file and no `vector_norm`: rounds
are short, so that there can be more of them. Bars for tensors of 2^24 weights and more, on two threads: the sums at
0.8 of the bytes per second at (1, 2) and 0.75 at (0.5, 1), all defaults at most 15 % longer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sparsight.analysis import analyze

PAIRS = ((0.5, 1.0), (1.0, 2.0))
ETAS = (0.0, 0.1)
ALONE = ", sums alone"
COLUMNS = 4096
LAYERS = {  # the matrices of one layer, as its checkpoint holds them
    "llama-3-70b": {
        "q_proj": (8192, 8192), "k_proj": (1024, 8192), "v_proj": (1024, 8192), "o_proj": (8192, 8192),
        "gate_proj": (28672, 8192), "up_proj": (28672, 8192), "down_proj": (8192, 28672),
    }
}  # fmt: skip


def shapes_of(weights: int, rows: int) -> dict[str, tuple[int, int]]:
    """As many tensors of `rows` x 4096 as fit into `weights`."""
    return {f"layer{i}.weight": (rows, COLUMNS) for i in range(weights // (rows * COLUMNS))}


def make(shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Normal weights."""
    g = torch.Generator().manual_seed(0)
    return {name: (torch.randn(shape, generator=g) * 0.02).to(dtype) for name, shape in shapes.items()}


def best(contestants: dict[str, Callable[[], object]], rounds: int, path: Path) -> dict[str, float]:
    """Seconds of the best round of each; rounds take turns. The file leaves the page cache before a "cold" one."""
    found = dict.fromkeys(contestants, float("inf"))
    for contestant in contestants.values():
        contestant()
    for _ in range(rounds):
        for name, contestant in contestants.items():
            if name.startswith("cold"):
                forget(path)
            start = time.perf_counter()
            contestant()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def forget(path: Path) -> None:
    """Have the file's pages leave the page cache, as far as the system does it."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def norms(tensors: dict[str, Tensor], p: float, q: float) -> list[float]:
    """The straightforward PQ index of each tensor."""
    found = []
    for x in tensors.values():
        low, high = (torch.linalg.vector_norm(x.float().flatten(), e) for e in (p, q))
        found.append(float(1 - x.numel() ** (1 / q - 1 / p) * low / high))
    return found


def truth(tensors: dict[str, Tensor], p: float, q: float) -> list[float]:
    found = []
    for x in tensors.values():
        v = x.double().abs().flatten()
        low, high = ((v**e).mean().item() ** (1 / e) for e in (p, q))
        found.append(1 - low / high)
    return found


def plain_read(path: Path, threads: int) -> None:
    """Every byte of the file by pread into one buffer a thread."""
    size, step = path.stat().st_size, 4 << 20
    file = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(threads) as pool:
            buffers = [memoryview(bytearray(step)) for _ in range(threads)]

            def work(k: int) -> None:
                for at in range(k * step, size, threads * step):
                    os.preadv(file, [buffers[k]], at)

            list(pool.map(work, range(threads)))
    finally:
        os.close(file)


def analyses(thing: Path | Mapping[str, Tensor], prefix: str = "") -> dict[str, Callable[[], object]]:
    """All defaults together, and the sums alone."""
    found = {}
    for p, q in PAIRS:
        found[f"{prefix}({p:g}, {q:g})"] = partial(analyze, thing, p, q, ETAS)
        found[f"{prefix}({p:g}, {q:g}){ALONE}"] = partial(analyze, thing, p, q, ETAS, sample=False)
    return found


def in_memory(tensors: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Reading and summing, and `analyze`, of tensors where they are."""
    return {"read and sum": lambda: [x.sum() for x in tensors.values()], **analyses(tensors)}


def of_file(path: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Reading, and `analyze`, of the file that holds them."""
    read = partial(plain_read, path, threads)
    cold = {name: f for name, f in analyses(path, "cold file ").items() if not name.endswith(ALONE)}
    return {"pread": read, "cold pread": read, **analyses(path, "file "), **cold}


def one_dtype(
    shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, threads: list[int], rounds: int, folder: Path | None
) -> list[dict]:
    tensors = make(shapes, dtype)
    count = sum(x.numel() for x in tensors.values())
    path = Path() if folder is None else folder / "speed.safetensors"
    if folder is not None:
        save_file(tensors, path)
    results = []
    for n in threads:
        torch.set_num_threads(n)
        contestants = in_memory(tensors)
        if folder is not None:
            contestants |= of_file(path, n)
            contestants |= {f"vector_norm ({p:g}, {q:g})": partial(norms, tensors, p, q) for p, q in PAIRS}
        seconds = best(contestants, rounds, path)
        size = count * dtype.itemsize
        for name, took in seconds.items():
            rivals = {"file": "pread", "cold": "cold pread"}
            rival = seconds[rivals.get(name.partition(" ")[0], "read and sum")]
            row = {"dtype": str(dtype), "tensors": len(tensors), "threads": n, "what": name, "weights": count}
            row |= {"seconds": took}
            row |= {"gb_per_s": size / took / 1e9, "share": rival / took}
            longer = took / seconds[name + ALONE] - 1 if name + ALONE in seconds else None
            results.append(row if longer is None else {**row, "longer_than_sums_alone": longer})
            print(
                f"{dtype!s:15} {n} {name:28} {size / took / 1e9:6.1f} GB/s  {count / took / 1e9:5.2f} G/s"
                f"  {rival / took:6.1%}{'' if longer is None else f'  {longer:+.1%} over the sums alone'}"
            )
    if folder is not None:
        path.unlink()
    return results


def errors(weights: int) -> list[dict]:
    """Greatest error of the PQ index, of one large tensor."""
    g = torch.Generator().manual_seed(0)
    x = {"one.weight": torch.randn(weights // 4096, 4096, generator=g)}
    found = []
    for p, q in PAIRS:
        true = truth(x, p, q)[0]
        ours = analyze(x, p, q, sample=False).tensors[0].summary.measures[0].index
        theirs = norms(x, p, q)[0]
        found.append({"p": p, "q": q, "true": true, "ours": abs(ours - true), "vector_norm": abs(theirs - true)})
        print(f"({p:g}, {q:g}) error of the index: ours {abs(ours - true):.1e}, vector_norm {abs(theirs - true):.1e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=6 << 24)
    parser.add_argument("--rows", type=int, default=4096, help="of each tensor; columns are 4096")
    parser.add_argument(
        "--layer", choices=sorted(LAYERS), help="instead of so many weights, the matrices of this layer"
    )
    parser.add_argument("--memory", action="store_true", help="leave out what is slow: files and vector_norm")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    if not given.layer and not 0 < given.rows * COLUMNS <= given.weights:
        got = f"got {given.rows} x {COLUMNS} and {given.weights}"
        parser.error(f"--weights must be at least one tensor of --rows x {COLUMNS}: {got}")
    shapes = LAYERS[given.layer] if given.layer else shapes_of(given.weights, given.rows)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        speed = [
            row
            for dtype in (torch.float32, torch.bfloat16)
            for row in one_dtype(shapes, dtype, given.threads, given.rounds, None if given.memory else Path(folder))
        ]
    wrong = [] if given.memory else errors(sum(math.prod(shape) for shape in shapes.values()))
    about = {
        "platform": platform.platform(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cores": os.cpu_count(),
    }
    if given.json:
        given.json.write_text(json.dumps({**about, "speed": speed, "errors": wrong}, indent=1) + "\n")


if __name__ == "__main__":
    main()
