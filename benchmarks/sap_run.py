"""A whole SAP run, beside the bare compute of its training steps and beside the published code's way of working.

    python benchmarks/sap_run.py [--levels 30] [--rounds 3] [--published-levels 8] [--threads 1]
                                 [--json benchmarks/results/sap_run.json]

The MLP 784-128-256-10 on Fashion-MNIST, batch 250, 3 epochs a level, global SAP (0.5, 1), dense control off; by default
30 levels on one thread, as in `studies/pq_index`.

- "sparsight": `execute`, from reading the data to the end of the last level: training with held masks, clipping, a
  pass over the validation split after each epoch, scores, selection, PQ indices, and everything stored with
  `keep="all"`. Choosing, the test split and the report, which follow once, are stated apart.
- "bare": as many forward and backward passes and optimiser steps, on batches that lie ready in memory. A level of it is
  run, and taken out of the run's time, after each level of the run, so that both see the same machine.
- "published way": written for this benchmark from the description of the published code: a `DataLoader` over tensors,
  the gradient of each parameter masked in turn, a pass over the test split after each epoch, and in each round the PQ
  index at 110 (p, q) pairs (p = 0.1 … 1.0, q = 1.0 … 2.0) for every neuron, every layer and all weights, two norms a
  pair. It stores nothing and logs nothing, which the published code does. What it would cost with each norm taken only
  once, and with no grid at all, is stated too.

The published way, which takes long, goes through fewer levels after each round; what is compared is seconds a level,
and reading the data counts in ours alone. Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from sparsight.recipes import sap
from sparsight.records.journal import Event
from sparsight.runs.execute import execute
from sparsight.train.optimizers import NesterovSGD
from sparsight.types import Split
from sparsight.zoo.data import fashion_mnist
from sparsight.zoo.networks import mlp

Seconds = dict[str, float]

P, Q = 0.5, 1.0
BATCH = 250
BARS = {"sparsight over bare": 1.3, "published way over sparsight": 1.7}
PAIRS = [(p / 10, q / 10) for p in range(1, 11) for q in range(10, 21)]

WITHOUT: dict[str, Callable[[Seconds], float]] = {
    "published way over sparsight": lambda s: s["all"],
    "published way, each norm once, over sparsight": lambda s: s["all"] - s["grid"] + s["thrifty grid"],
    "published way without the grid over sparsight": lambda s: s["all"] - s["grid"],
}
PARTS: list[str] = ["all", "train", "test", "grid", "thrifty grid"]


def network() -> nn.Module:
    return mlp(input_shape=(1, 28, 28), classes=10, seed=0)


def tensors(split: object) -> tuple[Tensor, Tensor]:
    assert isinstance(split, Split)
    return split.x, split.y


# -- sparsight -------------------------------------------------------------------------------------------------


def ours(levels: int, epochs: int, between: Callable[[], None] = lambda: None) -> Seconds:
    """A run; what `between` takes after each of its levels does not count."""
    recipe = sap(p=P, q=Q, target_density=0.0, levels=levels, epochs=epochs, batch_size=BATCH, control=False)
    done: list[float] = []
    other = 0.0

    def watch(event: Event) -> None:
        nonlocal other
        if event.kind == "done":
            since = perf_counter()
            done.append(since - other)
            between()
            other += perf_counter() - since

    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        outcome = execute(recipe, model=network(), out=Path(folder) / "run", device="cpu", watch=watch)
        end = perf_counter() - other
    assert len(done) == levels + 1, f"{len(done) - 1} levels instead of {levels}"
    parts = {
        part: sum(getattr(times, part) for times in outcome.times) for part in ("prune", "train", "validate", "store")
    }
    return {"all": done[-1] - start, **parts, "choose, test, report": end - done[-1]}


# -- bare ------------------------------------------------------------------------------------------------------


def resident() -> list[tuple[Tensor, Tensor]]:
    """The batches of an epoch, ready in memory."""
    images, labels = tensors(fashion_mnist().train)
    return [(x.clone(), y.clone()) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)]


def bare(ready: Sequence[tuple[Tensor, Tensor]], epochs: int) -> float:
    """Seconds of one level."""
    start = perf_counter()
    model = network()
    optimizer = NesterovSGD()(model.parameters())
    for _ in range(epochs):
        for x, y in ready:
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return perf_counter() - start


def both(levels: int, epochs: int, ready: Sequence[tuple[Tensor, Tensor]]) -> tuple[Seconds, Seconds]:
    spent: list[float] = []
    run = ours(levels, epochs, lambda: spent.append(bare(ready, epochs)))
    assert len(spent) == levels + 1
    return run, {"all": sum(spent)}


# -- the published way -----------------------------------------------------------------------------------------


def scopes(weights: list[Tensor], masks: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to measure, pruned weights 0, and the alive weights of each: neurons, layers, all."""
    held = [w * m for w, m in zip(weights, masks, strict=True)]
    for w, m in zip(held, masks, strict=True):
        yield w, m.sum(1)
    for w, m in zip(held, masks, strict=True):
        yield w.reshape(1, -1), m.sum().reshape(1)
    yield torch.cat([w.flatten() for w in held])[None], torch.stack([m.sum() for m in masks]).sum()[None]


def grid(weights: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """The PQ index at every pair, as its definition has it: two norms each."""
    found = []
    for w, d in scopes(weights, masks):
        for p, q in PAIRS:
            low, high = torch.linalg.vector_norm(w, p, dim=1), torch.linalg.vector_norm(w, q, dim=1)
            found.append(1 - d ** (1 / q - 1 / p) * low / high)
    return found


def thrifty_grid(weights: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """The same numbers, each norm taken once."""
    found = []
    for w, d in scopes(weights, masks):
        norms = {e: torch.linalg.vector_norm(w, e, dim=1) for e in dict.fromkeys(e for pair in PAIRS for e in pair)}
        found += [1 - d ** (1 / q - 1 / p) * norms[p] / norms[q] for p, q in PAIRS]
    return found


def prune(weights: list[Tensor], masks: list[Tensor]) -> list[Tensor]:
    """SAP's count by the global index, and a threshold from a full sort."""
    alive = torch.cat([w[m.bool()].abs() for w, m in zip(weights, masks, strict=True)])
    low, high = torch.linalg.vector_norm(alive, P), torch.linalg.vector_norm(alive, Q)
    index = 1 - len(alive) ** (1 / Q - 1 / P) * low / high
    r = torch.ceil(len(alive) * (1 - index) ** (P * Q / (Q - P)))
    count = int(len(alive) * torch.clamp(1 - r / len(alive), 0, 0.9))
    threshold = alive.sort().values[count]
    return [torch.where(w.abs() < threshold, torch.zeros_like(m), m) for w, m in zip(weights, masks, strict=True)]


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
    model.train()
    return right / 10_000


def published(levels: int, epochs: int) -> Seconds:
    seconds: Seconds = dict.fromkeys(PARTS, 0.0)

    def timed(what: str, work: Callable[..., object], *given: object) -> None:
        since = perf_counter()
        work(*given)
        seconds[what] += perf_counter() - since

    data = fashion_mnist()
    train = DataLoader(TensorDataset(*tensors(data.train)), batch_size=BATCH, shuffle=True)
    test = DataLoader(TensorDataset(*tensors(data.test)), batch_size=BATCH)
    model = network()
    initial = {name: p.detach().clone() for name, p in model.named_parameters()}
    masks = {name: torch.ones_like(p) for name, p in model.named_parameters() if p.dim() > 1}
    start = perf_counter()
    for _ in range(levels + 1):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(initial[name] * masks.get(name, 1.0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        schedule = CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            timed("train", epoch, model, train, masks, optimizer)
            schedule.step()
            timed("test", accuracy, model, test)
        weights = [p.detach() for name, p in model.named_parameters() if name in masks]
        timed("grid", grid, weights, list(masks.values()))
        since = perf_counter()
        timed("thrifty grid", thrifty_grid, weights, list(masks.values()))
        start += perf_counter() - since  # measured beside, not part of the run
        masks = dict(zip(masks, prune(weights, list(masks.values())), strict=True))
    seconds["all"] = perf_counter() - start
    return seconds


def epoch(model: nn.Module, loader: DataLoader, masks: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    for x, y in loader:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for name, p in model.named_parameters():
            if name in masks and p.grad is not None:
                p.grad.data = p.grad.data * masks[name]
        optimizer.step()


# -- all together ----------------------------------------------------------------------------------------------


def check() -> None:
    """Both grids give the indices that the package gives."""
    from sparsight.measure.pq import pq_index

    weights = [torch.randn(20, 30, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    masks = [(w > -0.5).float() for w in weights]
    for found in (grid(weights, masks), thrifty_grid(weights, masks)):
        assert len(found) == 5 * len(PAIRS)
        whole = pq_index({"a": weights[0], "b": weights[1]}, 0.5, 1.0, mask={"a": masks[0] > 0, "b": masks[1] > 0})
        assert abs(float(found[4 * len(PAIRS) + PAIRS.index((0.5, 1.0))]) - whole) < 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--levels", type=int, default=30, help="pruned levels; the dense one comes before")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--published-levels", type=int, default=8, help="pruned levels of the published way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    check()
    ready = resident()
    both(1, 1, ready)  # compiled, read, warm
    published(1, 1)
    seen: dict[str, list[Seconds]] = {"sparsight": [], "bare": [], "published way": []}
    for _ in range(args.rounds):
        run, steps = both(args.levels, args.epochs, ready)
        seen["sparsight"].append(run)
        seen["bare"].append(steps)
        seen["published way"].append(published(args.published_levels, args.epochs))
    levels, others = args.levels + 1, args.published_levels + 1
    ratios = {
        "sparsight over bare": median(
            a["all"] / b["all"] for a, b in zip(seen["sparsight"], seen["bare"], strict=True)
        ),
        **{
            name: median(
                part(a) / others / (b["all"] / levels)
                for a, b in zip(seen["published way"], seen["sparsight"], strict=True)
            )
            for name, part in WITHOUT.items()
        },
    }
    seconds = {name: {k: round(median(s[k] for s in runs), 3) for k in runs[0]} for name, runs in seen.items()}
    for name, parts in seconds.items():
        print(f"{name}: " + ", ".join(f"{part} {value:.2f} s" for part, value in parts.items()))
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}" + (f" (to reach: {BARS[name]})" if name in BARS else ""))
    about = {k: getattr(args, k) for k in ("levels", "epochs", "rounds", "published_levels", "threads")}
    about |= {"batch": BATCH, "p": P, "q": Q, "torch": torch.__version__, "machine": platform.machine()}
    if args.json:
        found = {"about": about, "bars": BARS, "ratios": {k: round(v, 3) for k, v in ratios.items()}}
        args.json.write_text(json.dumps({**found, "seconds": seconds, "rounds": seen}, indent=1) + "\n")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
