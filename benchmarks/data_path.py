"""An epoch of masked training on tensors in memory, beside the same loop fed by a DataLoader.

    python benchmarks/data_path.py [--rounds 5] [--threads 2] [--json results/data_path.json]

LeNet-300-100 on Fashion-MNIST at batch 128, one thread setting for all, the masks held on every side; all ways run in
turn, round after round. The rival loaders go through a TensorDataset, as a user would write it, shuffled.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from sparsight.model.masks import dense, verify
from sparsight.numerics.select import keep_largest
from sparsight.pruning.score.random import Random
from sparsight.train import TrainingPlan
from sparsight.train.loop import _stretch
from sparsight.train.parallel import runtime
from sparsight.train.training import Training
from sparsight.zoo.data import fashion_mnist
from sparsight.zoo.networks import lenet_300_100

BARS = {"DataLoader, no workers": 1.4, "DataLoader, 2 workers": 2.5}


def training(train: Any) -> Training:
    data, model = fashion_mnist(), lenet_300_100(seed=0)
    plan = TrainingPlan(batch_size=128, epochs=100)
    full = dense(model)
    masks = keep_largest(Random(1)(model, full, ()), full, 26_620)[0]
    split = data.train if train is None else train(data.train)
    data = dataclasses.replace(data, train=split)
    optimizer = plan.optimizer(model.parameters())
    return Training(model, masks, optimizer, plan, data, runtime("cpu"), 0)


def loader(workers: int) -> Any:
    return lambda s: DataLoader(TensorDataset(s.x, s.y), batch_size=128, shuffle=True, num_workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ways = {
        "in memory": training(None),
        "DataLoader, no workers": training(loader(0)),
        "DataLoader, 2 workers": training(loader(2)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds + 1):
        for name, way in ways.items():
            start = perf_counter()
            _stretch(way, None)
            if turn:
                seconds[name].append(perf_counter() - start)
    rows = []
    for name, way in ways.items():
        verify(way.model, way.masks)
        ratios = [a / b for a, b in zip(seconds[name], seconds["in memory"], strict=True)]
        rows.append(
            {
                "way": name,
                "seconds per epoch": round(statistics.median(seconds[name]), 3),
                "in memory is faster by": round(statistics.median(ratios), 2),
                "bar": BARS.get(name),
            }
        )
        print("  ".join(f"{key}: {value}" for key, value in rows[-1].items()))
    about = {"threads": args.threads, "torch": torch.__version__, "machine": platform.machine(), "rounds": args.rounds}
    if args.json:
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
