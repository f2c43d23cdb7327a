"""Masks through every optimiser in every way of training: are pruned weights +0.0 after each step, and kept ones right?

    python studies/held/table.py [--out studies/held]        (about two minutes)

Each cell trains a small network for some steps inside `held`, with an exponential average of the weights as a copy, and
again in a loop that masks with `torch.where` and nothing of ours. After every step each pruned weight, and its average,
must have the bits of +0.0, and each kept one the bits of the other loop. The optimiser has made steps before pruning.
`cells.csv` has a row for each cell, `README.md` the table.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from optimizers import OPTIMIZERS, TwoCalls
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparsight import held

WAYS = ("plain", "DDP, 2 processes", "accumulation", "autocast bf16", "bf16 weights", "torch.compile")
STEPS = 6
HELD = "held"
TABLE = "## The table\n\n"


class Net(nn.Module):
    """A convolution, two layers and an embedding, whose gradient may be sparse."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8))
        self.words = nn.Embedding(20, 8, sparse=sparse)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.features(x) + self.words(words).mean(1)))


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """A fifth of the weights of every matrix and the convolution, at random."""
    g = torch.Generator().manual_seed(1)
    return {name: torch.rand(p.shape, generator=g) < 0.2 for name, p in model.named_parameters() if p.ndim > 1}


def batch(step: int, part: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1000 * step + part)
    x, words = torch.randn(16, 1, 8, 8, generator=g), torch.randint(0, 20, (16, 4), generator=g)
    return x.to(dtype), words, torch.randint(0, 3, (16,), generator=g)


class Training:
    """One network, its optimisers and its average, in one way."""

    def __init__(self, name: str, way: str) -> None:
        torch.manual_seed(0)
        self.way, self.dtype = way, torch.bfloat16 if way == "bf16 weights" else torch.float32
        self.model = Net(sparse=name.startswith("SparseAdam")).to(self.dtype)
        self.masks = masks_of(self.model)
        made = OPTIMIZERS[name](self.model)
        self.optimizers = made if isinstance(made, list) else [made]
        self.forward: Any = self.model
        if way.startswith("DDP"):
            self.forward = nn.parallel.DistributedDataParallel(self.model)
        elif way == "torch.compile":
            self.forward = torch.compile(self.model, backend="aot_eager")
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def closure(self, step: int, after: Callable[[], None]) -> Callable[[], Tensor]:
        parts = 3 if self.way == "accumulation" else 1
        rank = distributed.get_rank() if self.way.startswith("DDP") else 0

        def gradients() -> Tensor:
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            total = torch.zeros(())
            for part in range(parts):
                x, words, y = batch(step, part + 10 * rank, self.dtype)
                autocast = torch.autocast("cpu", torch.bfloat16) if self.way == "autocast bf16" else nullcontext()
                with autocast:
                    loss = nn.functional.cross_entropy(self.forward(x, words).float(), y) / parts
                loss.backward()
                total = total + loss.detach()
            after()
            return total

        return gradients

    def step(self, number: int, after: Callable[[], None] = lambda: None) -> None:
        """One step; `after` is called whenever there are new gradients."""
        gradients = self.closure(number, after)
        for optimizer in self.optimizers:
            if isinstance(optimizer, TwoCalls):
                gradients()
                optimizer.first_step()
                gradients()
                optimizer.second_step()
            elif type(optimizer).__name__ in ("LBFGS", "Sam"):
                optimizer.step(gradients)
        if not any(type(optimizer).__name__ in ("LBFGS", "Sam", "TwoCalls") for optimizer in self.optimizers):
            gradients()
            for optimizer in self.optimizers:
                optimizer.step()


def by_hand(training: Training) -> list[dict[str, Tensor]]:
    """The steps with masks laid on by `torch.where`; all weights, and their averages, after each."""
    masks, parameters = training.masks, dict(training.model.named_parameters())
    average = dict(training.average.module.named_parameters())

    def mask(tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, keep in masks.items():
                tensors[name].copy_(torch.where(keep, tensors[name], 0.0))

    def mask_gradients() -> None:
        for name, keep in masks.items():
            grad = parameters[name].grad
            if grad is not None and grad.is_sparse:
                rows = grad.coalesce()
                values = torch.where(keep[rows.indices()[0]], rows.values(), 0.0)
                parameters[name].grad = torch.sparse_coo_tensor(
                    rows.indices(), values, rows.shape, check_invariants=True
                )
            elif grad is not None:
                grad.copy_(torch.where(keep, grad, 0.0))

    inside = [x for o in training.optimizers for x in (o, *vars(o).values()) if hasattr(x, "state")]
    for each in inside:
        for name, keep in masks.items():
            state = each.state.get(parameters[name], {})
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == keep.shape:
                    value.copy_(torch.where(keep, value, 0.0))
    mask(parameters), mask(average)
    seen = []
    for number in range(STEPS):
        training.step(number, mask_gradients)
        mask(parameters)
        training.average.update_parameters(training.model)
        seen.append(copied(parameters, average))
    return seen


def in_block(training: Training) -> list[dict[str, Tensor]]:
    """The same inside `held`. AssertionError for a pruned weight that is not +0.0."""
    parameters, average = dict(training.model.named_parameters()), dict(training.average.module.named_parameters())
    one = training.optimizers[0] if len(training.optimizers) == 1 else training.optimizers
    seen = []
    with held(training.forward, training.masks, one, copies=[training.average]):
        for number in range(STEPS):
            training.step(number)
            clean("after the step", parameters, training.masks)
            training.average.update_parameters(training.model)
            clean("in the average", average, training.masks)
            seen.append(copied(parameters, average))
    clean("at the end", parameters, training.masks)
    clean("in the average at the end", average, training.masks)
    return seen


def copied(parameters: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    both = {**parameters, **{f"the average's {name}": value for name, value in average.items()}}
    return {name: value.detach().clone() for name, value in both.items()}


def clean(when: str, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        pruned = parameters[name].detach()[~mask]
        bits = pruned.view(torch.int16 if pruned.element_size() == 2 else torch.int32)
        assert not bits.any(), f"{int((bits != 0).sum())} pruned weights of {name} are not +0.0 {when}"


def bits_differ(a: Tensor, b: Tensor) -> bool:
    kind = torch.int16 if a.element_size() == 2 else torch.int32
    return not torch.equal(a.view(kind), b.view(kind))


def cell(name: str, way: str) -> str:
    """What becomes of masks with an optimiser in one way: held, or in words what went wrong or was refused."""
    with ExitStack() as stack:
        if name.startswith("Zero") and not distributed.is_initialized():
            stack.enter_context(alone())
        try:
            other = Training(name, way)
            for number in (100, 101):
                other.step(number)
            expected = by_hand(other)
        except Exception as error:
            return f"impossible without masks too: {' '.join(str(error).split())[:100]}"
        ours = Training(name, way)
        for number in (100, 101):
            ours.step(number)
        try:
            found = in_block(ours)
        except (AssertionError, ValueError, TypeError, RuntimeError) as error:
            return f"{'LOST' if isinstance(error, AssertionError) else 'refused'}: {' '.join(str(error).split())}"
        for number, (a, b) in enumerate(zip(found, expected, strict=True)):
            wrong = [k for k in a if bits_differ(a[k], b[k])]
            if wrong:
                return f"LOST: kept weights of {wrong[0]} differ after step {number + 1}"
        return HELD


class alone:
    """A process group of this process only."""

    def __enter__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        store = f"file://{self.folder.name}/store"
        distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)

    def __exit__(self, *_: object) -> None:
        distributed.destroy_process_group()
        self.folder.cleanup()


def in_processes(rank: int, folder: str) -> None:
    """The column with two processes: each trains on batches of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = [cell(name, WAYS[1]) for name in OPTIMIZERS]
    Path(folder, str(rank)).write_text("\n".join(found))
    distributed.barrier()
    distributed.destroy_process_group()


def everything() -> dict[tuple[str, str], str]:
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(in_processes, (folder,), nprocs=2)
        both = [Path(folder, str(rank)).read_text().split("\n") for rank in (0, 1)]
    for name, one, other in zip(OPTIMIZERS, *both, strict=True):
        cells[name, WAYS[1]] = one if one == other else f"{one}; in the other process: {other}"
    for name in OPTIMIZERS:
        for way in WAYS:
            if not way.startswith("DDP"):
                cells[name, way] = cell(name, way)
                torch.compiler.reset()
    return cells


def write(cells: Mapping[tuple[str, str], str], out: Path) -> None:
    """cells.csv, and the table at the end of README.md."""
    with (out / "cells.csv").open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("optimizer", "way", "result"))
        lines.writerows((name, way, cells[name, way]) for name in OPTIMIZERS for way in WAYS)
    rows = ["| optimizer | " + " | ".join(WAYS) + " |", "| --- |" + " --- |" * len(WAYS)]
    rows += [f"| {name} | " + " | ".join(cells[name, way] for way in WAYS) + " |" for name in OPTIMIZERS]
    page = out / "README.md"
    text = page.read_text().partition(TABLE)[0] if page.exists() else ""
    page.write_text(text + TABLE + "\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    cells = everything()
    write(cells, args.out)
    for (name, way), result in cells.items():
        if result != HELD:
            print(f"{name} / {way}: {result}")
    print(f"{sum(result == HELD for result in cells.values())} of {len(cells)} cells are held")


if __name__ == "__main__":
    main()
