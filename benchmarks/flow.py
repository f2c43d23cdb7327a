"""What measuring flow once an epoch costs, as a share of the training it steers, beside the published code's way.

    python benchmarks/flow.py [--rounds 5] [--threads 2] [--images 55000] [--json results/flow.json]

Fashion-MNIST at batch 128, nine tenths of the weights pruned, 1 024 probes. Everything runs in turn, round after round;
a share is the median over rounds of (measuring / the epoch of training in the same round). Validation (5 000 images,
after every epoch) is no part of measuring and stands in a row of its own. The average of training gradients needs no
probes, but a norm of every gradient at every step, which a run gets with masking and clipping.

The published code (Sekeh-Lab/InfCoP) goes twice through the training set in batches of 64, for means and deviations and
then for correlations in float32, and once for its gradient flow, after every second epoch: by its count of passes that
is 2 / 6 and 1 / 6 of the training. Here it is given tensors in memory, no augmentation, no copies between devices, and
hooks only while it measures, which makes it faster than it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from sparsight import dense, gradient_flow, information_flow, verify
from sparsight.measure.flow import both_flows, gf_ema, probe
from sparsight.measure.flow.gradients import averaged
from sparsight.model.functional import evaluating, tapped
from sparsight.model.hold import bind
from sparsight.model.names import named
from sparsight.numerics import keep_largest
from sparsight.pruning.score.random import Random
from sparsight.train import TrainingPlan
from sparsight.train.batches import batches
from sparsight.train.loop import train
from sparsight.train.parallel import runtime
from sparsight.train.training import Training
from sparsight.types import Data, Split
from sparsight.zoo.data import fashion_mnist
from sparsight.zoo.networks import cnn, lenet_300_100

BAR = 0.03
DENSITY = 0.1
PROBES = 1024
EVERY = 2  # the published code measures after so many epochs


def training(model: nn.Module, data: Data) -> Training:
    plan = TrainingPlan(batch_size=128, epochs=100)
    full = dense(model)
    kept = round(DENSITY * sum(mask.numel() for mask in full.values()))
    masks = keep_largest(Random(1)(model, full, ()), full, kept)[0]
    optimizer = plan.optimizer(model.parameters())
    return Training(model, masks, optimizer, plan, data, runtime("cpu"), 0)


# -- the published way -------------------------------------------------------------------------------------------


def forward_pass(model: nn.Module, split: Split, see: Callable[[dict[str, Tensor]], None]) -> None:
    """One pass over the split in batches of 64; `see` gets the pooled outputs of every layer."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and "shortcut" not in n}
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: object, out: Tensor) -> None:
        seen[name] = out.detach().mean((2, 3)) if out.dim() == 4 else out.detach().clone()

    with evaluating(model), torch.no_grad(), tapped(layers, keep):
        for x, _ in batches(split, 64):
            model(x)
            see(seen)


def published_information_flow(model: nn.Module, split: Split) -> list[float]:
    sums: dict[str, tuple[Tensor, Tensor]] = {}

    def moments(seen: dict[str, Tensor]) -> None:
        for name, x in seen.items():
            a, b = sums.get(name, (0.0, 0.0))
            sums[name] = a + x.sum(0), b + x.square().sum(0)

    forward_pass(model, split, moments)
    mean = {name: a / len(split) for name, (a, _) in sums.items()}
    sd = {
        name: (b / len(split) - mean[name].square()).clamp_min(0).sqrt().clamp_min(1e-6)
        for name, (_, b) in sums.items()
    }
    names, rho = list(sums), {}

    def products(seen: dict[str, Tensor]) -> None:
        z = {name: (x - mean[name]) / sd[name] for name, x in seen.items()}
        for a, b in pairwise(names):
            rho[a, b] = rho.get((a, b), 0.0) + z[a].T @ z[b]

    forward_pass(model, split, products)
    return [float(r.mean()) / len(split) for r in rho.values()]


def published_gradient_flow(model: nn.Module, split: Split) -> list[float]:
    """As executed: the stale gradient added up over a pass of forwards."""
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.grad is not None and p.dim() > 1}

    def again(_: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            if name in total and parameter.grad is not None:
                total[name] += parameter.grad

    forward_pass(model, split, again)
    return [float(g.norm()) for g in total.values()]


# -- measuring ---------------------------------------------------------------------------------------------------


def ways(t: Training, split: Split) -> dict[str, tuple[Callable[[], object], float]]:
    """What is run after an epoch, and how often in an epoch it counts."""
    probes, parameters = probe(split, PROBES, batch_size=t.plan.batch_size), named(t.model)
    steps = -(-len(split) // t.plan.batch_size)

    bound, names = bind(t.model, t.masks), tuple(t.masks)

    def averages() -> None:
        """As in a run that clips: the norms come with it."""
        norms, average = bound.mask_and_measure_grads_(), None
        assert norms is not None
        for _ in range(steps):
            average = averaged(names, norms.of_held(), average)

    def averages_alone() -> None:
        average = None
        for _ in range(steps):
            average = gf_ema({name: parameters[name].grad for name in t.masks}, average)

    return {
        "information flow, rms": (lambda: information_flow(t.model, probes), 1.0),
        "information flow, signed": (lambda: information_flow(t.model, probes, reduction="signed"), 1.0),
        "information flow after the activation": (lambda: information_flow(t.model, probes, site="post_act"), 1.0),
        "gradient flow": (lambda: gradient_flow(t.model, t.masks, probes), 1.0),
        "information and gradient flow": (lambda: both_flows(t.model, t.masks, probes), 1.0),
        "average of training gradients": (averages, 1.0),
        "average of training gradients, gf_ema by itself": (averages_alone, 1.0),
        "published information flow": (lambda: published_information_flow(t.model, split), 1 / EVERY),
        "published gradient flow": (lambda: published_gradient_flow(t.model, split), 1 / EVERY),
    }


def measure(model: nn.Module, data: Data, rounds: int) -> dict[str, Any]:
    assert isinstance(data.train, Split)
    t = training(model, data)
    todo, epochs = ways(t, data.train), train(t)
    next(epochs)
    for run, _ in todo.values():
        run()
    trained: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in (*todo, "validation")}
    for _ in range(rounds):
        before = dict(t.seconds)
        next(epochs)
        trained.append(t.seconds["train"] - before["train"])
        seconds["validation"].append(t.seconds["validate"] - before["validate"])
        for name, (run, times) in todo.items():
            start = perf_counter()
            run()
            seconds[name].append(times * (perf_counter() - start))
    verify(t.model, t.masks)
    rows = []
    for name, spent in seconds.items():
        share = statistics.median(a / b for a, b in zip(spent, trained, strict=True))
        ours = name.startswith(("information", "gradient"))
        rows.append({"what": name, "milliseconds an epoch": round(1e3 * statistics.median(spent), 2),
                     "share of training": round(share, 4), "bar": BAR if ours else None})  # fmt: skip
    return {"seconds per epoch of training": round(statistics.median(trained), 3), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, help="train on the first so many images only (for a quick try)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = fashion_mnist()
    assert isinstance(data.train, Split)
    split = dataclasses.replace(data.train, x=data.train.x[: args.images], y=data.train.y[: args.images])
    data = dataclasses.replace(data, train=split)
    networks = {"LeNet-300-100": lenet_300_100(seed=0), "CNN 16-32-64-128 with batch norm": cnn(width=0.25, seed=0)}
    results = {}
    for name, model in networks.items():
        results[name] = measure(model, data, args.rounds)
        print(f"\n{name}, {results[name]['seconds per epoch of training']} s an epoch of {len(split):,} images")
        for row in results[name]["rows"]:
            print("  " + "  ".join(f"{key}: {value}" for key, value in row.items()))
    about = {"threads": args.threads, "torch": torch.__version__, "machine": platform.machine(), "rounds": args.rounds,
             "images": len(split), "probes": PROBES, "batch size": 128}  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
