"""Exact selection over many scores: time and memory, beside sorting and partitioning their concatenation.

    python benchmarks/selection.py [--entries 100000000] [--threads 2] [--json results.json]

Every rival makes the masks of all tensors, and their concatenation is part of its time. Promise: at 10^8
float32 scores in 60 tensors and two threads, at least 50 times as fast as `torch.sort` and 4 times as
`numpy.partition`, without a temporary in proportion to the scores beyond the masks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from sparsight.numerics import prune_smallest


def make(entries: int, tensors: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Magnitudes of normal weights, in tensors whose sizes differ by up to a factor of ten."""
    g = torch.Generator().manual_seed(seed)
    share = torch.linspace(1, 10, tensors, dtype=torch.float64)
    ends = (share.cumsum(0) / share.sum() * entries).round().long().tolist()
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    scores = {f"t{i}": torch.randn(n, generator=g).abs_() for i, n in enumerate(sizes)}
    return scores, {name: torch.ones(s.shape, dtype=torch.bool) for name, s in scores.items()}


def ours(scores: dict[str, Tensor], masks: dict[str, Tensor], gone: int) -> dict[str, Tensor]:
    return prune_smallest(scores, masks, gone)[0]


def by_sort(scores: dict[str, Tensor], masks: dict[str, Tensor], gone: int) -> dict[str, Tensor]:
    threshold = torch.cat([s[masks[n]] for n, s in scores.items()]).sort().values[gone]
    return {n: (s >= threshold) & masks[n] for n, s in scores.items()}


def by_partition(scores: dict[str, Tensor], masks: dict[str, Tensor], gone: int) -> dict[str, Tensor]:
    joined = np.concatenate([s.numpy() for s in scores.values()])  # all are alive: nothing to leave out
    threshold = float(np.partition(joined, gone)[gone])
    return {n: (s >= threshold) & masks[n] for n, s in scores.items()}


def by_partition_in_place(scores: dict[str, Tensor], masks: dict[str, Tensor], gone: int) -> dict[str, Tensor]:
    joined = np.concatenate([s.numpy() for s in scores.values()])
    joined.partition(gone)  # spares the copy that numpy.partition makes
    threshold = float(joined[gone])
    return {n: (s >= threshold) & masks[n] for n, s in scores.items()}


def best(work: Callable[[], dict[str, Tensor]], repeats: int) -> tuple[float, dict[str, Tensor]]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def peak_extra(work: Callable[[], dict[str, Tensor]]) -> int:
    """Bytes by which resident memory grew at most while working, the masks included; sampled."""
    process, stop, seen = psutil.Process(), threading.Event(), []

    def watch() -> None:
        while not stop.is_set():
            seen.append(process.memory_info().rss)
            stop.wait(0.0005)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = work()
    seen.append(process.memory_info().rss)
    stop.set()
    watcher.join()
    del result
    return max(seen) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000_000)
    parser.add_argument("--tensors", type=int, default=60)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    scores, masks = make(args.entries, args.tensors)
    gone = args.entries - int(args.density * args.entries)
    ours(*make(3_000_000, 2, seed=1), 2_700_000)  # compiles
    memory = peak_extra(lambda: ours(scores, masks, gone))

    rivals = {
        "sparsight": (ours, args.repeats),
        "numpy.partition": (by_partition, args.repeats),
        "ndarray.partition": (by_partition_in_place, args.repeats),
        "torch.sort": (by_sort, 1),
    }
    seconds: dict[str, float] = {}
    kept: dict[str, int] = {}
    mine: dict[str, Tensor] = {}
    for name, (select, repeats) in rivals.items():
        seconds[name], result = best(lambda select=select: select(scores, masks, gone), repeats)
        kept[name] = sum(int(m.sum()) for m in result.values())
        mine = mine or result
        if any((mine[n] & ~m).any() for n, m in result.items()):  # rivals keep all ties: a superset of ours
            raise SystemExit(f"{name} chose other weights than sparsight")

    asked = args.entries - gone
    print(f"{args.entries:,} float32 scores in {args.tensors} tensors, {args.threads} threads, keep {asked:,}")
    print(f"{'':18} {'seconds':>9} {'ratio':>8} {'kept':>12}   (ratio: rival / sparsight)")
    for name, s in seconds.items():
        print(f"{name:18} {s:9.4f} {s / seconds['sparsight']:8.1f} {kept[name]:12,}")
    beyond = (memory - args.entries) / 1e6
    print(f"peak extra memory of sparsight beyond the masks: {beyond:.1f} MB, scores {args.entries * 4 / 1e6:.0f} MB")
    if args.json:
        args.json.write_text(json.dumps({
            "entries": args.entries, "tensors": args.tensors, "threads": args.threads, "keep": asked,
            "seconds": seconds, "ratio": {n: s / seconds["sparsight"] for n, s in seconds.items()}, "kept": kept,
            "extra_bytes_beyond_masks": memory - args.entries, "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(), "torch": torch.__version__,
        }, indent=1) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
