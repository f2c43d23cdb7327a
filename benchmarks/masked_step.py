"""What holding masks costs: a masked training step over a dense one, beside torch.nn.utils.prune and parametrize.

    python benchmarks/masked_step.py [--rounds 60] [--threads 2] [--json results/masked_step.json]

Every way is run in turn, round after round; each round's time is a mean over some steps, the ratio is the median over
rounds of (way / dense in the same round). On a machine that others use too, take one thread and the ratio of CPU times:
the best round of each way. All weights that should be pruned are checked to be +0.0 after the steps
(prune and parametrize leave them at other values in their raw parameter; that is noted, not refused). Two ways are
ours: the step of the training loop, which masks gradients and, after an elementwise optimiser such as this SGD, need
not touch the weights (`stepping.keeps_zeros`), and `held()`, which does both through hooks for any optimiser.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from sparsight.hold import bind
from sparsight.masks import dense, named, verify
from sparsight.own_loop import held as masks_held
from sparsight.score.random import Random
from sparsight.select import keep_largest
from sparsight.stepping import keeps_zeros
from sparsight.types import Masks
from sparsight.zoo import lenet_300_100, resnet18

DENSITY = 0.1
HELD_BAR = 1.10  # on both networks


@dataclass(frozen=True)
class Way:
    name: str
    step: Callable[[], None]
    held: Callable[[], bool]


class Multiply(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.float())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)


def ways(model: nn.Module, masks: Masks, x: torch.Tensor, y: torch.Tensor) -> list[Way]:
    def plain(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    def dense_way() -> Way:
        net = copy.deepcopy(model)
        optimizer = optimizer_of(net)
        return Way("dense", lambda: plain(net, optimizer), lambda: False)

    def ours() -> Way:
        net = copy.deepcopy(model)
        optimizer, bound = optimizer_of(net), bind(net, masks)
        bound.apply_()
        settled = keeps_zeros(optimizer)  # as in sparsight.train

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(net(x), y).backward()
            bound.mask_grads_()
            optimizer.step()
            if not settled:
                bound.apply_()

        def held() -> bool:
            verify(net, masks)
            return True

        return Way("sparsight, its loop", step, held)

    def foreign() -> Way:
        net = copy.deepcopy(model)
        optimizer = optimizer_of(net)
        context = masks_held(net, masks, optimizer)
        context.__enter__()

        def zero() -> bool:
            verify(net, masks)
            return True

        def step(context: object = context) -> None:  # the hooks go when the context is collected
            plain(net, optimizer)

        return Way("sparsight, held()", step, zero)

    def pruned() -> Way:
        net = copy.deepcopy(model)
        for name, mask in masks.items():
            prune.custom_from_mask(net.get_submodule(name.rpartition(".")[0]), "weight", mask)
        optimizer = optimizer_of(net)
        return Way("torch.nn.utils.prune", lambda: plain(net, optimizer), lambda: raw_is_zero(net, "weight_orig"))

    def parametrized() -> Way:
        net = copy.deepcopy(model)
        for name, mask in masks.items():
            parametrize.register_parametrization(net.get_submodule(name.rpartition(".")[0]), "weight", Multiply(mask))
        optimizer = optimizer_of(net)
        return Way("parametrize", lambda: plain(net, optimizer), lambda: raw_is_zero(net, "original"))

    def raw_is_zero(net: nn.Module, leaf: str) -> bool:
        raw = [p for n, p in net.named_parameters() if n.endswith(leaf)]
        pruned = (p.detach()[~mask] for p, mask in zip(raw, masks.values(), strict=True))
        return all(bool((p.contiguous().view(torch.int32) == 0).all()) for p in pruned)

    return [dense_way(), ours(), foreign(), pruned(), parametrized()]


def measure(ways: list[Way], rounds: int, steps: int) -> list[dict[str, object]]:
    for way in ways:
        for _ in range(3):
            way.step()
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    cpu: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(rounds):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            start, begun = perf_counter(), process_time()
            for _ in range(steps):
                way.step()
            cpu[way.name].append((process_time() - begun) / steps)
            seconds[way.name].append((perf_counter() - start) / steps)
    rows = []
    for way in ways:
        ratios = [a / b for a, b in zip(seconds[way.name], seconds["dense"], strict=True)]
        rows.append(
            {
                "way": way.name,
                "milliseconds": round(1e3 * statistics.median(seconds[way.name]), 3),
                "ratio to dense (median)": round(statistics.median(ratios), 3),
                "ratio to dense (best/best)": round(min(seconds[way.name]) / min(seconds["dense"]), 3),
                "ratio of CPU time (best/best)": round(min(cpu[way.name]) / min(cpu["dense"]), 3),
                "pruned weights are +0.0": way.held(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    cases = {
        "LeNet-300-100, batch 128": (lenet_300_100(seed=0), (128, 1, 28, 28), 10, 1.10),
        "ResNet-18, 14x14, batch 4": (resnet18(input_shape=(1, 14, 14), seed=0), (4, 1, 14, 14), 1, 1.07),
    }
    results = {}
    for name, (model, shape, steps, bar) in cases.items():
        full = dense(model)
        keep = round(DENSITY * sum(m.numel() for m in full.values()))
        masks = keep_largest(Random(1)(model, full, ()), full, keep)[0]
        x, y = torch.randn(shape, generator=generator), torch.randint(0, 10, shape[:1], generator=generator)
        rows = measure(ways(model, masks, x, y), args.rounds, steps)
        results[name] = {"bar of the loop": bar, "bar of held()": HELD_BAR, "rows": rows}
        size = f"{sum(p.numel() for p in named(model).values()):,} parameters, density {DENSITY}"
        print(f"\n{name} ({size}); to reach: its loop {bar}, held() {HELD_BAR}")
        for row in rows:
            print("  " + "  ".join(f"{key}: {value}" for key, value in row.items()))
    about = {"threads": args.threads, "torch": torch.__version__, "machine": platform.machine(), "rounds": args.rounds}
    if args.json:
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
