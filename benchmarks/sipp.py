"""SiPP's sensitivities of ResNet-18 beside a plain loop over filters, and the time of its allocation.

    python benchmarks/sipp.py [--threads 2] [--points 191] [--rival-points 6] [--rounds 3] [--json results/sipp.json]

The rival goes through points, layers and filters as the published code does, a few elementwise passes over the patches
for each filter. It is as slow as that sounds, so it sees `--rival-points` points and its time is given for each point;
ours is the whole call over `--points` points, its fixed costs included, divided by them. Both are checked to agree.
Rounds alternate; the ratio is that of the best times. Memory is what the resident size grew by at its peak, each
reduction in a process of its own. The allocation has 10^4 groups of 20 to 600 edges.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsight.model.functional import tapped
from sparsight.model.masks import dense
from sparsight.pruning.sipp.groups import Groups, share_out, whole
from sparsight.pruning.sipp.score import SiPP, layers_using
from sparsight.pruning.sipp.sensitivities import Reduction
from sparsight.zoo.networks import resnet18

BARS = {"mean": 8.0, "max": 5.0}
SIDE = 32


def model_of() -> nn.Module:
    return resnet18((3, SIDE, SIDE), seed=0).eval()


def inputs(points: int) -> Tensor:
    return torch.randn(points, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def ours(model: nn.Module, x: Tensor, reduction: Reduction) -> dict[str, Tensor]:
    return SiPP(reduction, points=len(x))(model, dense(model), [(x, None)])


def rival(model: nn.Module, x: Tensor, reduction: Reduction) -> dict[str, Tensor]:
    """Point by point, layer by layer, filter by filter."""
    masks = dense(model)
    users = {name: layers[0] for name, layers in layers_using(model, masks).items()}
    found = {name: torch.zeros(mask.shape).flatten(1) for name, mask in masks.items()}

    def see(name: str, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.get_parameter("weight").detach().flatten(1)
        a = given[0].detach()
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)  # "same" and "valid": ResNet-18 pads by numbers
            a = functional.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)[0]
        else:
            a = a.t()
        for part in [a] if bool((a >= 0).all()) else [a.clamp(min=0), (-a).clamp(min=0)]:
            for f, row in enumerate(weight):
                for side in (row.clamp(min=0), (-row).clamp(min=0)):
                    products = side.unsqueeze(1) * part
                    z = products.sum(0)
                    shares = products / torch.where(z > 2**-23, z, torch.inf)
                    share = shares.amax(1) if reduction == "max" else shares.mean(1)
                    found[name][f] = torch.maximum(found[name][f], share)

    with torch.no_grad(), tapped(users, see):
        for point in x:
            model(point.unsqueeze(0))
    return {name: score.reshape(masks[name].shape) for name, score in found.items()}


def timed(work: Callable[..., object], *args: object) -> float:
    start = perf_counter()
    work(*args)
    return perf_counter() - start


def grown(reduction: Reduction, points: int, threads: int) -> float:
    """MiB by which the resident size grew at its peak."""
    torch.set_num_threads(threads)
    model, x = model_of(), inputs(points)
    ours(model, x[:1], reduction)
    before = resident()
    ours(model, x, reduction)
    return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sensitivities(args: argparse.Namespace) -> list[dict[str, object]]:
    model, x = model_of(), inputs(args.points)
    few, rows = x[: args.rival_points], []
    for reduction in ("mean", "max"):
        mine, theirs = ours(model, few, reduction), rival(model, few[:1], reduction)
        alone = ours(model, few[:1], reduction)
        # Where a part of an output is next to nothing the two have other thresholds: theirs is absolute.
        apart = torch.cat([(alone[name] - theirs[name]).abs().flatten() for name in theirs])
        other = float((apart > 1e-4).float().mean())
        if other > 1e-4 or any(bool((mine[name] < alone[name] - 1e-6).any()) for name in mine):
            raise SystemExit(f"{reduction}: {other:.2%} of the sensitivities differ")
        seconds: dict[str, list[float]] = {"ours": [], "rival": []}
        for _ in range(args.rounds):
            seconds["rival"].append(timed(rival, model, few, reduction))
            seconds["ours"].append(timed(ours, model, x, reduction))
        each = {"ours": min(seconds["ours"]) / args.points, "rival": min(seconds["rival"]) / args.rival_points}
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(grown, (reduction, args.points, args.threads))
        rows.append(
            {
                "reduction": reduction,
                "seconds, all points": round(min(seconds["ours"]), 2),
                "seconds, all points (median)": round(statistics.median(seconds["ours"]), 2),
                "seconds a point": round(each["ours"], 4),
                "rival, seconds a point": round(each["rival"], 4),
                "times faster": round(each["rival"] / each["ours"], 1),
                "bar": BARS[reduction],
                "peak extra MiB": round(memory),
                "share of weights that differ by more than 1e-4": other,
            }
        )
    return rows


def allocation(rounds: int) -> dict[str, object]:
    generator = np.random.default_rng(0)
    n = 10_000
    sums, edges = generator.uniform(1, 13, n), generator.integers(20, 600, n)
    groups = Groups(sums, edges, 6 * 40 * sums, np.full(n, 1 / 512))
    rows = {}
    for share in (0.01, 0.1, 0.5):
        budget = int(share * edges.sum())
        best = min(timed(lambda b=budget: whole(share_out(groups, b)[0], edges, b)) for _ in range(rounds))
        rows[f"seconds at density {share}"] = round(best, 4)
    return {"groups": n, "bar": 0.2, **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--points", type=int, default=191)
    parser.add_argument("--rival-points", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows, spent = sensitivities(args), allocation(args.rounds)
    print(f"ResNet-18, {SIDE}x{SIDE}, {args.points} points, {args.threads} threads")
    for row in [*rows, spent]:
        print("  " + "  ".join(f"{key}: {value}" for key, value in row.items()))
    about = {"threads": args.threads, "torch": torch.__version__, "machine": platform.machine(), "points": args.points}
    if args.json:
        args.json.write_text(json.dumps({"about": about, "sensitivities": rows, "allocation": spent}, indent=1) + "\n")


if __name__ == "__main__":
    main()
