"""Pruning before training, method against method, at six densities from 0.5 to 0.005 on Fashion-MNIST, 3 seeds.

    python studies/init/methods.py                          every cell, two at a time, of one thread each
    python studies/init/methods.py --only lenet-300-100     one network
    python studies/init/methods.py --list                   what is left, and how long it takes
    python studies/init/results.py                          tables and pictures of what there is

| Network | Images | Epochs | Methods | Ablations |
| --- | --- | --- | --- | --- |
| LeNet-300-100 | 20 000 | 3 | SNIP, GraSP, SynFlow, magnitude, random, SBP, SBP-SR | shuffled, reinitialised |
| LeNet-5 (20-50-500) | 10 000 | 2 | the same without SBP | |
| ResNet-8 | 10 000, of 14x14 pixels | 2 | the same; SBP-SR is SBP on the Stable ResNet-8 | |

The dense network of each is trained as long. Less than was asked for, so that both studies of pruning at initialisation
take about an hour of one core: LeNet-5 sees a sixth of the images, ResNet-8 images at half resolution (the mean
of 2x2 pixels, a quarter of the work); both are far from trained out. SBP differs from SNIP in the initial weights
alone (He instead of PyTorch's), so it is on LeNet-300-100 only; the ablations are for the four methods of Frankle
et al., ICLR 2021.

Recipes are the library's, with their own defaults (Nesterov SGD, learning rate 0.1 along a cosine, weight decay 5e-4,
gradients clipped to norm 1, at least one weight in every tensor) and batches of 100; nothing is tuned. The validation
split (2000 images) is looked at once, at the end; the test split is read once, when a cell is finished.

Seed 0 of all networks comes first, then seed 1: a study that is broken off is a smaller one. Started again, it goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cells
from cells import Job
from pruned import METHODS, VARIANTS, key, measure

OUT = Path("runs/init/methods.jsonl")
DENSITIES = (0.5, 0.2, 0.1, 0.03, 0.01, 0.005)
NETWORKS = ("lenet-300-100", "lenet5", "resnet8")
ABLATED = ("snip", "grasp", "synflow", "magnitude")

SECONDS = {"lenet-300-100": 1.5, "lenet5": 5.5, "resnet8": 6.0}  # of a cell, one thread of a quiet machine
SYNFLOW = {"lenet-300-100": 1.0, "lenet5": 2.0, "resnet8": 2.0}  # the hundred rounds besides


def methods_of(network: str) -> list[tuple[str, str]]:
    """(method, variant) of a network, without the dense one."""
    own = [method for method in METHODS if method != "sbp" or network == "lenet-300-100"]
    plain = [(method, VARIANTS[0]) for method in own]
    if network != "lenet-300-100":
        return plain
    return plain + [(method, variant) for variant in VARIANTS[1:] for method in ABLATED]


def jobs_of(seeds: Sequence[int], smoke: bool) -> list[Job]:
    """Every cell, seed after seed; in a smoke run one density of seed 0."""
    return [
        job
        for seed in (seeds[:1] if smoke else seeds)
        for network in NETWORKS
        for job in _network(network, seed, (0.03,) if smoke else DENSITIES, smoke)
    ]


def _network(network: str, seed: int, densities: Sequence[float], smoke: bool) -> Iterator[Job]:
    yield _job(network, "dense", 1.0, VARIANTS[0], seed, smoke)
    for method, variant in methods_of(network):
        for density in densities:
            yield _job(network, method, density, variant, seed, smoke)


def _job(network: str, method: str, density: float, variant: str, seed: int, smoke: bool) -> Job:
    cell = {"network": network, "method": method, "density": density, "variant": variant, "seed": seed}
    seconds = SECONDS[network] + (SYNFLOW[network] if method == "synflow" else 0.0)
    name = key(network, method, density, variant, seed)
    return Job(network, seed, (name,), measure, {**cell, "smoke": smoke}, seconds)


def main(argv: Sequence[str] | None = None) -> int:
    return cells.main("Pruning before training: the methods.", jobs_of, OUT, argv)


if __name__ == "__main__":
    sys.exit(main())
