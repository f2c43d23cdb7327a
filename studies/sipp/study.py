"""SiPP beside magnitude, SNIP and random: pruned, retrained, and retrained from a fresh initialisation.

    python studies/sipp/study.py --out runs/sipp                  all that the machine has data for
    python studies/sipp/study.py --out runs/sipp --only lenet5    one block (more than one may be named)
    python studies/sipp/study.py --out runs/sipp --list           the cells, one a line, and what they cost
    python studies/sipp/study.py --out runs/sipp-smoke --smoke    two cells of each kind, to see that all runs

The same command goes on after any end of it: every finished cell is a line of a file for its block, on the disk before
the next begins, and is skipped. Two processes may work on different blocks of one folder. Seed 0 of every block comes
before seed 1 of any. `results.py` beside it makes the tables and the picture.

A cell is one network, pruned once:

    start    trained       pruned after 6 epochs
             random        pruned at initialisation (one-shot alone: an untrained network has no levels)
    order    one-shot      the unpruned network is scored and pruned to each density
             cascade       from density to density: score the current network, prune, train, and so on
    method   SiPP det, SiPP rand, SiPP hybrid, magnitude, SNIP, random; on LeNet-5 SiPP det max

and what is measured of it on validation images, test images, and test images with uniform noise of +-0.3 grey values:

    pruned     without any training after pruning (sampled weights reweighted)
    retrained  trained for 2 epochs from the weights as pruned
    fresh      trained for 2 epochs from another initialisation under the same masks (one-shot alone)

All methods of a seed share the unpruned network, the batches, the fresh initialisation and 250 training images to score
on, of which SiPP takes as many as the published formula says (C = 3, delta = 1e-16). As in the published code SiPP det
takes the mean over patches, rand and hybrid the maximum, and samples are left as drawn (`exact=False`); SiPP det max
ranks by the maximum, which is the same in linear layers.
Training: Nesterov SGD, learning rate 0.1 falling to 0 along a cosine, momentum 0.9, weight decay 5e-4, gradients masked
and then clipped to norm 1, batches of 250. Method "dense" is the same without pruning.

Smaller than the paper's protocol, to fit 50 minutes of one core (33 without MNIST): 2 epochs of retraining (50 there),
8 densities from 0.8 to 0.01 (30 there), 15 000 of 55 000 training images. LeNet-5 was cut down first: 1 500 training
images in batches of 50, 1 500 images of each split to judge by, 5 densities. It is run on MNIST, and on Fashion-MNIST
where MNIST is not there. MNIST is read from $SPARSIGHT_DATA/mnist, and its own block is skipped without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cells
from cells import Cell

DENSITIES = (0.8, 0.43, 0.23, 0.12, 0.065, 0.035, 0.019, 0.01)  # a geometric sequence, to two digits
FEW = (0.5, 0.2, 0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Block:
    """A network on data: what is run of it."""

    network: str
    data: tuple[str, ...]  # the first that the machine has
    densities: tuple[float, ...]
    images: int  # to train on
    judged: int  # of each split, at most
    batch: int
    epoch: float  # seconds of one core
    judging: float  # seconds of one core, all three splits
    methods: tuple[str, ...] = cells.METHODS
    seeds: int = 3


BLOCKS = {
    "fashion": Block("lenet-300-100", ("fashion-mnist",), DENSITIES, 15_000, 10_000, 250, 0.45, 0.3),
    "mnist": Block("lenet-300-100", ("mnist",), DENSITIES, 15_000, 10_000, 250, 0.45, 0.3),
    "lenet5": Block("lenet5", ("mnist", "fashion-mnist"), FEW, 1_500, 1_500, 50, 0.55, 0.5, cells.CONVOLUTIONS),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The SiPP study.", epilog=f"Blocks: {', '.join(BLOCKS)}.")
    parser.add_argument("--out", type=Path, default=Path("runs/sipp"), help="the folder of the study")
    parser.add_argument("--only", nargs="+", choices=list(BLOCKS), metavar="BLOCK", help="these blocks alone")
    parser.add_argument("--threads", type=int, default=1, help="threads; the last digits depend on them")
    parser.add_argument("--smoke", action="store_true", help="two densities, one seed, one epoch, 500 images")
    parser.add_argument("--list", action="store_true", help="name the cells and run none")
    given = parser.parse_args(argv)
    there, absent = _there(given.only or list(BLOCKS))
    for name in absent:
        print(f"{name} is skipped: {' or '.join(BLOCKS[name].data)} is not on this machine", flush=True)
    work = plan(there, given.smoke)
    if given.list:
        for name, seed, data, todo in work:
            for cell in todo:
                print(f"{name}\t{cell.key(data, BLOCKS[name].network, seed)}\t{cost(BLOCKS[name], [cell]):.1f} s")
    if not given.smoke:
        print(estimate(work), flush=True)
    if not given.list:
        given.out.mkdir(parents=True, exist_ok=True)
        cells.quiet(given.threads)
        for name, seed, data, todo in work:
            _run(given.out, name, seed, data, todo, given.smoke)
    return 0


Work = list[tuple[str, int, str, list[Cell]]]


def plan(there: dict[str, str], smoke: bool = False) -> Work:
    """(block, seed, data, cells): seed 0 of all blocks, then seed 1, then seed 2."""
    most = max((BLOCKS[name].seeds for name in there), default=0)
    found = []
    for seed in range(1 if smoke else most):
        for name, data in there.items():
            block = BLOCKS[name]
            if seed < block.seeds:
                densities = block.densities[1:4:2] if smoke else block.densities
                found.append((name, seed, data, cells.grid(densities, block.methods)))
    return found


def _there(wanted: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The data of each block, and the blocks whose data the machine lacks."""
    found = {name: next((d for d in BLOCKS[name].data if cells.has(d)), None) for name in wanted}
    return {name: data for name, data in found.items() if data}, [name for name, data in found.items() if not data]


def cost(block: Block, todo: Sequence[Cell]) -> float:
    """Seconds of one quiet core, without the unpruned network."""
    epochs = sum(cells.EPOCHS * (2 if cell.order == "one-shot" else 1) for cell in todo)
    return block.epoch * epochs + block.judging * sum(3 if cell.order == "one-shot" else 2 for cell in todo)


def estimate(work: Work) -> str:
    said, whole = {}, 0.0
    for name, _, _, todo in work:
        minutes = (cost(BLOCKS[name], todo) + cells.DENSE_EPOCHS * BLOCKS[name].epoch) / 60
        said[name], whole = said.get(name, 0.0) + minutes, whole + minutes
    parts = ", ".join(f"{name} {minutes:.0f}" for name, minutes in said.items())
    return f"{sum(len(todo) for *_, todo in work)} cells, about {whole:.0f} minutes of one quiet core ({parts})"


def _run(out: Path, name: str, seed: int, data: str, todo: Sequence[Cell], smoke: bool) -> None:
    block = BLOCKS[name]
    path = out / f"rows-{name}.jsonl"
    setting = cells.Setting(data, block.network, seed, block.images, block.judged, block.batch)
    if smoke:
        setting = replace(setting, images=500, judged=500, epochs=1, dense_epochs=1)
    done = cells.finished(path)
    left = cells.missing(todo, done, setting)
    print(f"{name}, seed {seed}: {len(left)} of {len(todo)} cells to do", flush=True)
    for row in cells.run(setting, todo, done):
        cells.append(path, row)


if __name__ == "__main__":
    sys.exit(main())
