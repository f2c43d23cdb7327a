"""Which networks can be trained after pruning at initialisation? Depth, density and the edge of chaos; Stable ResNets.

    python studies/init/trainability.py                     all of it, two jobs at a time, of one thread each
    python studies/init/trainability.py --only growth       one part
    python studies/init/trainability.py --list              what is left, and how long it takes
    python studies/init/results.py                          tables and pictures of what there is

map: tanh networks of 10, 25, 50 and 100 linear layers of width 100 at densities 1, 0.6, 0.3 and 0.1, pruned by SNIP
(= SBP) on one batch of 100 images, globally; layers may die. Four regimes, all with sigma_b = 0.2: ordered (sigma_w =
1, chi = 0.78); at the edge of chaos (sigma_w = 1.304); from there rescaled by neuron (the paper's rule, its gain right)
or by data. 2000 steps of SGD with momentum 0.9 on batches of 50 of 10 000 Fashion-MNIST images, no weight decay, no
clipping, the rate along a cosine. Each network takes the rate of 0.01, 0.03, 0.1, 0.3 or 1, over its depth, whose
validation loss (1000 images) is least after 100 steps. The 14 networks of one depth and seed train side by side.
The paper: MNIST, batches of 100, 10 000 steps at one rate of 0.001, depths up to 100, sparsity 10 to 90 %.

growth: activations, gradients and the spread of SNIP's criterion over the blocks of small ResNets with 3 to 51 blocks,
plain and stable, with and without batch norm; He weights, 32 images, nothing is trained.

stable: test accuracy of ResNet-8 and Stable ResNet-8, both pruned by SBP at density 0.1 to 0.01, 10 000 images of
14x14 pixels (the mean of 2x2, for time), 2 epochs. stable-plain: the same without batch norm.

3 seeds of everything. Test splits are read once, when a cell is finished. Seed 0 of all parts comes first; started
again, the study goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cells
import deep
import growth
from cells import Job
from pruned import VARIANTS, key, measure

OUT = Path("runs/init/trainability.jsonl")
DEPTHS, WIDTH, DENSITIES = (10, 25, 50, 100), 100, (0.6, 0.3, 0.1)
BLOCKS = (3, 9, 15, 30, 51)
SPARSE = (0.1, 0.05, 0.02, 0.01)
PART = {"plain": "resnet8", "stable": "stable-resnet8"}
BARE = {"plain": "pruned:resnet8_bare", "stable": "pruned:stable_resnet8_bare"}

LAYER_STEP = 0.85e-4  # seconds of one layer of one network in one step, of one quiet thread
RESNET8, GROWTH_BLOCK = 6.0, 0.03


def jobs_of(seeds: Sequence[int], smoke: bool) -> list[Job]:
    """Every part, seed after seed, the cheapest first; in a smoke run the smallest of each part."""
    return [job for seed in (seeds[:1] if smoke else seeds) for job in _seed(seed, smoke)]


def _seed(seed: int, smoke: bool) -> Iterator[Job]:
    for blocks in BLOCKS[:2] if smoke else BLOCKS:
        for norm in (True, False):
            for stable in (False, True):
                yield _growth(blocks, norm, stable, seed, smoke)
    for depth in DEPTHS[:2] if smoke else DEPTHS:
        yield _map(depth, seed, smoke)
    yield from _stable("stable", PART, seed, smoke)
    yield from _stable("stable-plain", BARE, seed, smoke)


def _growth(blocks: int, norm: bool, stable: bool, seed: int, smoke: bool) -> Job:
    name = f"growth {'stable' if stable else 'plain'} {blocks} blocks {'' if norm else 'no norm '}seed {seed}"
    given = {"blocks": blocks, "stable": stable, "norm": norm, "seed": seed, "smoke": smoke}
    return Job("growth", seed, (name,), growth.measure, given, GROWTH_BLOCK * blocks)


def _map(depth: int, seed: int, smoke: bool) -> Job:
    what = deep.nets(DENSITIES)
    names = tuple(f"map {depth} layers {regime} {density:g} seed {seed}" for regime, density in what)
    given = {"depth": depth, "width": WIDTH, "seed": seed, "densities": DENSITIES, "smoke": smoke}
    length = deep.Length()
    steps = length.steps + len(deep.RATES) * length.trial
    seconds = LAYER_STEP * steps * len(what) * (depth + 5)  # the first layer is as wide as eight, and half as deep
    return Job("map", seed, names, deep.measure, given, seconds)


def _stable(block: str, models: dict[str, str], seed: int, smoke: bool) -> Iterator[Job]:
    for part, model in models.items():
        for density in (1.0, 0.1) if smoke else (1.0, *SPARSE):
            method = "dense" if density == 1 else "sbp"
            name = f"{block} {part} " + key("resnet8", method, density, VARIANTS[0], seed)
            given = {"network": "resnet8", "method": method, "density": density, "variant": VARIANTS[0], "seed": seed}
            yield Job(block, seed, (name,), measure, {**given, "smoke": smoke, "model": model}, RESNET8)


def main(argv: Sequence[str] | None = None) -> int:
    return cells.main("Trainability after pruning at initialisation.", jobs_of, OUT, argv)


if __name__ == "__main__":
    sys.exit(main())
