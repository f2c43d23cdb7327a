"""What scoring costs: time and peak memory of each scorer, as multiples of one training step on a ResNet-18.

    python benchmarks/scorers.py [--batch 64] [--side 32] [--rounds 7] [--threads 2] [--json results/scorers.json]

One batch is scored and one batch is trained on (forward, backward, SGD with Nesterov momentum). Times: step and scorer
in turn, the ratio is the median over rounds. Memory: growth of resident memory over a process that has only loaded the
packages, sampled, so it includes the network and the batch; each way in a process of its own. Bar: twice the memory
of a training step. glibc keeps much of what is freed and cannot always use it again; "in use" is the same with
MALLOC_MMAP_THRESHOLD_ at 1 MB, where whatever is larger goes back to the system when it is freed. A scorer that is not
installed here is left out and named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import statistics
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch
from torch import nn

from sparsight.model.masks import dense
from sparsight.zoo.networks import resnet18

STEP = "training step"
SCORERS: dict[str, tuple[str, str, dict[str, Any]]] = {  # label: module, class, arguments
    "Magnitude": ("sparsight.pruning.score.magnitude", "Magnitude", {}),
    "Random": ("sparsight.pruning.score.random", "Random", {}),
    "SNIP": ("sparsight.pruning.score.snip", "SNIP", {}),
    "GraSP": ("sparsight.pruning.score.grasp", "GraSP", {"temperature": 200.0}),
    "SynFlow": ("sparsight.pruning.score.synflow", "SynFlow", {}),
    "MBP": ("sparsight.pruning.score.mbp", "MBP", {}),
    "SiPP": ("sparsight.pruning.sipp.score", "SiPP", {}),
}
BAR = 2.0
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


def scorer(label: str) -> Callable[..., Any] | None:
    """The scorer of that label, or None where there is none."""
    home, name, arguments = SCORERS[label]
    try:
        return getattr(importlib.import_module(home), name)(**arguments)
    except (ModuleNotFoundError, AttributeError):
        return None


def work(label: str, batch: int, side: int) -> Callable[[], None]:
    """One training step, or one call of a scorer, on a network of its own."""
    generator = torch.Generator().manual_seed(0)
    model = resnet18(input_shape=(3, side, side), seed=0)
    x = torch.randn(batch, 3, side, side, generator=generator)
    y = torch.randint(0, 10, (batch,), generator=generator)
    if label == STEP:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return step
    score, masks = scorer(label), dense(model)
    assert score is not None
    return lambda: score(model, masks, [(x, y)]) and None


def peak(label: str, batch: int, side: int, threads: int, pipe: Any) -> None:
    """Send the bytes by which resident memory grew at most, from before the network was made; sampled."""
    torch.set_num_threads(threads)
    scorer(label) if label != STEP else None  # what it imports is no memory of its own
    process, stop, seen = psutil.Process(), threading.Event(), []

    def watch() -> None:
        while not stop.wait(0.001):
            seen.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    job = work(label, batch, side)
    for _ in range(2):  # momentum is there from the second step on
        job()
    stop.set()
    watcher.join()
    pipe.send(max(seen) - before)


def memory(label: str, batch: int, side: int, threads: int, given_back: bool = False) -> int:
    """Bytes; with `given_back` of a process that keeps nothing large that it has freed."""
    os.environ.pop(THRESHOLD, None)
    if given_back:
        os.environ[THRESHOLD] = "1000000"  # read by the C library as the process starts
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=peak, args=(label, batch, side, threads, theirs))
    process.start()
    theirs.close()
    grown = mine.recv()
    process.join()
    return grown


def times(label: str, batch: int, side: int, rounds: int) -> tuple[float, float, float]:
    """(seconds of the scorer, of a training step, their ratio): medians over rounds, taken in turn."""
    ways = (work(label, batch, side), work(STEP, batch, side))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for way, spent in zip(ways, seconds, strict=True):
            start = perf_counter()
            way()
            if turn:
                spent.append(perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*seconds, strict=True))
    return statistics.median(seconds[0]), statistics.median(seconds[1]), ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(SCORERS), default=list(SCORERS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    at = (args.batch, args.side)
    step_bytes, step_in_use = (memory(STEP, *at, args.threads, given_back) for given_back in (False, True))
    rows, absent = [], [label for label in args.only if scorer(label) is None]
    print(f"ResNet-18, {args.side}x{args.side}, batch {args.batch}, {args.threads} threads")
    print(f"  {STEP}: {step_bytes / 1e6:,.0f} MB; not here: {', '.join(absent) or 'none'}")
    for label in (x for x in args.only if x not in absent):
        used, in_use = (memory(label, *at, args.threads, given_back) for given_back in (False, True))
        own, step, ratio = times(label, *at, args.rounds)
        rows.append(
            {
                "scorer": label,
                "seconds": round(own, 4),
                "seconds of a training step": round(step, 4),
                "time as a multiple of a step": round(ratio, 3),
                "megabytes": round(used / 1e6, 1),
                "memory as a multiple of a step": round(used / step_bytes, 3),
                "memory in use as a multiple of a step": round(in_use / step_in_use, 3),
                "within the bar": used <= BAR * step_bytes,
            }
        )
        print("  " + "  ".join(f"{key}: {value}" for key, value in rows[-1].items()), flush=True)
    about = {"threads": args.threads, "torch": torch.__version__, "machine": platform.machine(), "rounds": args.rounds}
    network = {"network": "ResNet-18", "batch": args.batch, "side": args.side, "bar": BAR}
    if args.json:
        steps = {"step_bytes": step_bytes, "step_bytes_in_use": step_in_use}
        text = json.dumps({"about": about | network, **steps, "rows": rows}, indent=1)
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
