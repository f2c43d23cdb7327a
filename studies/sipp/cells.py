"""The cells of the study: an unpruned network, the ways to prune it, and what is left before and after training.

Plain PyTorch with the public parts of Sparsight: scorers, allocators, masks, restarts, evaluation.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from sparsight import (
    SNIP,
    Data,
    Global,
    Magnitude,
    Masks,
    Random,
    SiPP,
    Split,
    bind,
    counts,
    cross_entropy,
    dense,
    rewind,
)
from sparsight.model.functional import tapped
from sparsight.numerics.seeds import derive
from sparsight.numerics.stratified import stratified
from sparsight.pruning import (
    SiPPDet,  # fmt: skip
    SiPPHybrid,
    SiPPRand,  # fmt: skip
    carry_on,
)
from sparsight.pruning.sipp import keep_ratio  # fmt: skip
from sparsight.pruning.sipp.sensitivities import patches_of
from sparsight.train import NesterovSGD, classify  # fmt: skip
from sparsight.train.batches import batches
from sparsight.train.evaluate import evaluate
from sparsight.train.parallel import runtime
from sparsight.train.plan import cosine
from sparsight.types import Allocation, Allocator, Scorer, Scores  # fmt: skip
from sparsight.zoo.data import find_fashion_mnist, find_mnist, load
from sparsight.zoo.networks import build

Row = dict[str, Any]

EPOCHS, DENSE_EPOCHS = 2, 6
CALIBRATION, NOISE = 250, 0.3
METHODS = ("SiPP det", "SiPP rand", "SiPP hybrid", "magnitude", "SNIP", "random")
CONVOLUTIONS = (*METHODS, "SiPP det max")
"""What is run where there are patches: in linear layers the largest share of a patch is the mean one."""
FRESH = 1000  # added to a seed, for the fresh initialisation


@dataclass(frozen=True)
class Setting:
    """What a cell is run in."""

    data: str
    network: str
    seed: int
    images: int  # to train on
    judged: int  # of each split, at most
    batch: int = 250
    epochs: int = EPOCHS
    dense_epochs: int = DENSE_EPOCHS


@dataclass(frozen=True)
class Cell:
    """One network pruned once."""

    start: str  # "trained", "random"
    order: str  # "one-shot", "cascade"
    method: str
    density: float

    def key(self, data: str, network: str, seed: int) -> str:
        return f"{data}/{network}/{self.start}/{self.order}/{self.method}/{self.density:g}/{seed}"


def grid(densities: Sequence[float], methods: Sequence[str] = METHODS) -> list[Cell]:
    """All cells of a seed, those of one chain in falling density."""
    found = []
    for start, order in (("trained", "one-shot"), ("random", "one-shot"), ("trained", "cascade")):
        found += [Cell(start, order, "dense", 1.0)] if order == "one-shot" else []
        found += [Cell(start, order, method, density) for method in methods for density in densities]
    return found


def has(data: str) -> bool:
    return (find_mnist if data == "mnist" else find_fashion_mnist)() is not None


def quiet(threads: int) -> None:
    torch.set_num_threads(threads)


# -- rows on the disk ------------------------------------------------------------------------------------------


def finished(path: Path) -> dict[str, Row]:
    """The rows of a file by key; a last line that a kill has cut short is not one."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["key"]] = row
    return found


def append(path: Path, row: Row) -> None:
    """Add a line, and see it to the disk. What a kill has cut short before is closed off first."""
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def missing(cells: Iterable[Cell], done: dict[str, Row], at: Setting) -> list[Cell]:
    return [cell for cell in cells if cell.key(at.data, at.network, at.seed) not in done]


# -- running ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bench:
    """What all cells of a seed share."""

    at: Setting
    data: Data
    noisy: Split
    initial: nn.Module
    trained: nn.Module
    fresh: nn.Module
    examples: tuple[Any, ...]
    patches: dict[str, int]


def run(at: Setting, cells: Sequence[Cell], done: dict[str, Row]) -> Iterator[Row]:
    """The rows of all cells that are not done. A chain that was begun is gone through again, to the same weights."""
    left = missing(cells, done, at)
    if not left:
        return
    bench = _bench(at)
    chains: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        chains.setdefault((cell.start, cell.order, cell.method), []).append(cell)
    for (_, order, _), chain in chains.items():
        todo = {cell for cell in chain if cell in left}
        if todo:
            yield from (_cascade if order == "cascade" else _oneshot)(bench, chain, todo)


def _bench(at: Setting) -> Bench:
    data = load(at.data)
    train, validation, test = (
        _some(data.train, at.images),
        _some(data.validation, at.judged),
        _some(data.test, at.judged),
    )
    data = replace(data, train=train, validation=validation, test=test)
    initial, fresh = (_laid(build(at.network, data, seed)) for seed in (at.seed, at.seed + FRESH))
    trained = _train(copy.deepcopy(initial), dense(initial), data, at, at.dense_epochs, "dense")
    noise = torch.rand(test.x.shape, generator=Generator().manual_seed(derive(0, "noise"))).mul_(2).sub_(1)
    noisy = Split(test.x + noise * (NOISE / data.facts["normalisation"]["std"]), test.y)
    order = torch.randperm(len(train), generator=Generator().manual_seed(derive(at.seed, "score")))[:CALIBRATION]
    examples = ((train.x[order], train.y[order]),)
    return Bench(at, data, noisy, initial, trained, fresh, examples, _patches(initial, train.x[:1]))


def _some(split: Any, images: int) -> Split:
    """So many images, of all classes alike, always the same ones."""
    assert isinstance(split, Split)
    if images >= len(split):
        return split
    some, _ = stratified(split.y, [images])
    return Split(split.x[some], split.y[some])


def _laid(model: nn.Module) -> nn.Module:
    """Channels last in memory, which is faster where there are convolutions."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] - torch declares no such overload


def _patches(model: nn.Module, x: Tensor) -> dict[str, int]:
    """How often each weight of a tensor is used for one image: FLOPs are the sum of kept weights times this."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    found: dict[str, int] = {}

    def see(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found[f"{name}.weight"] = patches_of(layer, inputs[0])

    with tapped(layers, see), torch.no_grad():
        model(x)
    return found


def _oneshot(bench: Bench, chain: Sequence[Cell], todo: set[Cell]) -> Iterator[Row]:
    """Every density from the unpruned network, whose weights are scored once."""
    whole = bench.trained if chain[0].start == "trained" else bench.initial
    masks, scores = dense(whole), None
    for cell in chain:
        if cell not in todo:
            continue
        since = time.perf_counter()
        if cell.method == "dense":
            allocation = Allocation(masks)
        else:
            scores = _scorer(cell.method, bench.at.seed)(whole, masks, bench.examples) if scores is None else scores
            allocation = _plan(cell, bench.at.seed, scores, masks)
        model = carry_on(copy.deepcopy(whole), {}, allocation)
        row = _row(bench, cell, allocation, whole) | _judged(bench, model, "pruned")
        _train(model, allocation.masks, bench.data, bench.at, bench.at.epochs, "retrained")
        row |= _judged(bench, model, "retrained")
        other = rewind(copy.deepcopy(whole), bench.fresh.state_dict(), replace(allocation, multipliers=None))
        _train(other, allocation.masks, bench.data, bench.at, bench.at.epochs, "fresh")
        yield row | _judged(bench, other, "fresh") | {"seconds": round(time.perf_counter() - since, 2)}


def _cascade(bench: Bench, chain: Sequence[Cell], todo: set[Cell]) -> Iterator[Row]:
    """From density to density, trained between them."""
    model, masks = copy.deepcopy(bench.trained), dense(bench.trained)
    last = max(i for i, cell in enumerate(chain) if cell in todo)
    for level, cell in enumerate(chain[: last + 1]):
        since = time.perf_counter()
        scores = _scorer(cell.method, bench.at.seed)(model, masks, bench.examples)
        allocation = _plan(cell, derive(bench.at.seed, "level", level), scores, masks)
        masks, model = dict(allocation.masks), carry_on(model, {}, allocation)
        row = _row(bench, cell, allocation, bench.trained) | _judged(bench, model, "pruned")
        _train(model, masks, bench.data, bench.at, bench.at.epochs, f"cascade {level}")
        row |= _judged(bench, model, "retrained")
        if cell in todo:
            yield row | {"seconds": round(time.perf_counter() - since, 2)}


def _scorer(method: str, seed: int) -> Scorer:
    if method.startswith("SiPP"):
        return SiPP("mean" if method == "SiPP det" else "max")
    return {"magnitude": Magnitude(), "SNIP": SNIP(), "random": Random(derive(seed, "random"))}[method]


def _plan(cell: Cell, seed: int, scores: Scores, masks: Masks) -> Allocation:
    kinds: dict[str, Allocator] = {
        "SiPP det": SiPPDet(cell.density),
        "SiPP det max": SiPPDet(cell.density),
        "SiPP rand": SiPPRand(cell.density, exact=False, seed=seed),
        "SiPP hybrid": SiPPHybrid(cell.density, exact=False, seed=seed),
    }
    return kinds.get(cell.method, Global(cell.density)).plan(scores, masks)


def _train(model: nn.Module, masks: Masks, data: Data, at: Setting, epochs: int, role: str) -> nn.Module:
    """An ordinary loop: masked gradients, clipped; the pruned weights 0 after each step."""
    assert isinstance(data.train, Split)
    optimizer = NesterovSGD()(model.parameters())
    rates = [group["lr"] for group in optimizer.param_groups]
    steps, step = epochs * -(-len(data.train) // at.batch), 0
    hold = bind(model, masks)
    hold.apply_()
    for epoch in range(epochs):
        order = Generator().manual_seed(derive(at.seed, role, epoch))
        for batch in batches(data.train, at.batch, generator=order):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * cosine(step / steps)
            optimizer.zero_grad()
            cross_entropy(model, batch).backward()
            hold.mask_grads_()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            hold.apply_()
            step += 1
    return model


# -- what is measured ------------------------------------------------------------------------------------------


def _row(bench: Bench, cell: Cell, allocation: Allocation, whole: nn.Module) -> Row:
    at, (kept, total) = bench.at, counts(allocation.masks)
    used = {name: int(mask.sum()) * bench.patches[name] for name, mask in allocation.masks.items()}
    every = sum(mask.numel() * bench.patches[name] for name, mask in allocation.masks.items())
    return {
        "key": cell.key(at.data, at.network, at.seed), "data": at.data, "network": at.network, "start": cell.start,
        "order": cell.order, "method": cell.method, "density": cell.density, "seed": at.seed, "images": at.images,
        "kept": kept, "total": total, "keep_ratio": keep_ratio(whole, allocation.masks),
        "flops": sum(used.values()) / every, "reweighted": allocation.multipliers is not None,
    }  # fmt: skip


def _judged(bench: Bench, model: nn.Module, when: str) -> Row:
    splits = {"validation": bench.data.validation, "test": bench.data.test, "noisy": bench.noisy}
    where = runtime("cpu")
    return {
        f"{when}_{name}": evaluate(model, split, classify, where).accuracy for name, split in splits.items() if split
    }
