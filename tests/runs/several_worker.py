"""What test_several.py runs in two processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from two_processes import answer, convolutional, data, linear

from sparsight import execute, run
from sparsight.recipes import incop, sap, snip
from sparsight.records.identity import content_id
from sparsight.train.parallel import leave, runtime
from sparsight.types import Data

SETTINGS = {"epochs": 2, "batch_size": 20}
RUNS = {
    "sap": (lambda: sap(levels=2, **SETTINGS), linear),
    "snip": (lambda: snip(density=0.3, **SETTINGS), convolutional),
    "incop": (lambda: incop(levels=1, warmup=2, epochs=4, batch_size=20, evaluate_every=0.5), linear),
}


def refused(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def mean_of_gradients(rank: int) -> dict[str, Any]:
    """Of four parameters: one that both have, one of each process alone, one of none."""
    four = [nn.Parameter(torch.zeros(2)) for _ in range(4)]
    four[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    four[1 + rank].grad = torch.tensor([4.0, 6.0])
    runtime("cpu").average_(four)
    return {"mean": [None if p.grad is None else p.grad.tolist() for p in four]}


def main() -> None:
    where = runtime("cpu")
    rank, found = where.rank, {}
    for name, (recipe, model) in RUNS.items():
        outcome = execute(recipe(), model=model(), data=data(), device="cpu", out=f"{name}-run")
        ids = [record.id for record in outcome.levels]
        found[name] = {"ids": ids, "tested": outcome.evaluation is not None, "path": str(outcome.path)}
    results = list(run(RUNS["snip"][0](), convolutional(), data(), device="cpu"))
    found["in memory"] = [content_id(result.weights, result.masks) for result in results]
    found |= mean_of_gradients(rank)

    def other(out: str = "none", of: Data | None = None, **more: Any) -> Callable[[], Any]:
        recipe = sap(**{"levels": 1, "epochs": 1, "batch_size": 20, **more})
        return lambda: execute(recipe, model=linear(), data=of or data(), device="cpu", out=out)

    mine = data()
    samples = list(zip(mine.train.x, mine.train.y, strict=True))
    apart = dataclasses.replace(mine, train=torch.utils.data.DataLoader(samples, 10 + 20 * rank))
    tensors = torch.utils.data.TensorDataset(mine.train.x, mine.train.y)
    shuffled = torch.utils.data.DataLoader(tensors, 10, shuffle=True)
    sampler = torch.utils.data.DistributedSampler(tensors)
    parted = torch.utils.data.DataLoader(tensors, 10, sampler=sampler)
    found["own loaders"] = [
        content_id(level.weights, level.masks)
        for level in run(RUNS["sap"][0](), linear(), dataclasses.replace(mine, train=parted), device="cpu")
    ]
    found["refused"] = {
        "same": refused(lambda: next(run(RUNS["sap"][0](), linear(), dataclasses.replace(mine, train=shuffled)))),
        "parted": refused(lambda: next(run(RUNS["sap"][0](), linear(), dataclasses.replace(mine, test=parted)))),
        "batch": refused(other(batch_size=1)),
        "seed": refused(other(seed=rank)),
        "data": refused(other(of=apart)),
        "loader": refused(lambda: next(run(RUNS["sap"][0](), linear(), apart, device="cpu"))),
        "taken": refused(other(out="sap-run")),
        "sparse": refused(lambda: where.average_([sparse()])),
    }
    found["left"] = [path.name for path in Path().glob("none*")]
    answer(**found)
    leave()


def sparse() -> nn.Parameter:
    layer = nn.Embedding(4, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    return layer.weight


if __name__ == "__main__":
    main()
