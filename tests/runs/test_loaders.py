"""Loaders that draw for themselves: a resumed run ends with the same bits, or says beforehand that it may not."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, TensorDataset

from sparsight import Data, execute, run
from sparsight.recipes import incop, lottery, snip
from sparsight.runs import adapted
from sparsight.runs.run import ResumeNote
from sparsight.train.evaluate import evaluate
from sparsight.train.judges import classify
from sparsight.train.parallel import runtime

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def own() -> torch.Generator:
    return torch.Generator().manual_seed(7)


class Epochs(Sampler):
    """As DistributedSampler: it must be told of each epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        yield from torch.randperm(96, generator=torch.Generator().manual_seed(self.epoch)).tolist()

    def __len__(self) -> int:
        return 96


class Noisy(Dataset):
    def __init__(self, rng) -> None:
        self.rng = rng

    def __getitem__(self, i):
        return X[i] + float(self.rng.random() if not isinstance(self.rng, torch.Generator) else 0), Y[i]

    def __len__(self) -> int:
        return 96


TABLE = TensorDataset(X, Y)
KEPT = {
    "a generator of the loader": lambda: DataLoader(TABLE, 16, shuffle=True, generator=own()),
    "one of its sampler": lambda: DataLoader(TABLE, 16, sampler=RandomSampler(TABLE, generator=own())),
    "one of its batch sampler": lambda: DataLoader(
        TABLE, batch_sampler=BatchSampler(RandomSampler(TABLE, generator=own()), 16, False)
    ),
    "a draw with replacement": lambda: DataLoader(
        TABLE, 16, sampler=RandomSampler(TABLE, replacement=True, num_samples=80, generator=own())
    ),
    "a sampler that is told the epoch": lambda: DataLoader(TABLE, 16, sampler=Epochs()),
    "workers": lambda: DataLoader(TABLE, 16, shuffle=True, generator=own(), num_workers=1),
}


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))


def data(make) -> Data:
    return Data(name="mine", train=make(), validation=DataLoader(TABLE, 48, shuffle=True, generator=own()))


def stop_after(epoch: float):
    def watch(event) -> None:
        if event.kind == "epoch" and event.level == 1 and event.observation.epoch >= epoch:
            raise KeyboardInterrupt

    return watch


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize(("every", "epoch"), [(1.0, 1.0), (0.5, 0.5)])
def test_resumed_to_the_same_bits(tmp_path, kind, every, epoch):
    recipe = lottery(rate=0.5, levels=1, epochs=2, evaluate_every=every, control=False)
    whole = execute(recipe, model=model(), data=data(KEPT[kind]), out=tmp_path / "whole", device="cpu", threads=1)
    with pytest.raises(KeyboardInterrupt):
        execute(recipe, model=model(), data=data(KEPT[kind]), out=tmp_path / "cut", threads=1, watch=stop_after(epoch))
    again = execute(recipe, model=model(), data=data(KEPT[kind]), out=tmp_path / "cut", threads=1, resume=True)
    assert [level.id for level in again.levels] == [level.id for level in whole.levels]


@pytest.mark.parametrize(
    "recipe", [snip(epochs=1, score_batches=2, control=False), incop(warmup=1, epochs=1, levels=1)]
)
def test_scorers_and_probes_draw_the_same_however_often_the_loader_was_gone_through(recipe, tmp_path):
    fresh, used = data(KEPT["a generator of the loader"]), data(KEPT["a generator of the loader"])
    for _ in used.train:
        pass
    found = [
        execute(recipe, model=model(), data=each, out=tmp_path / str(i), threads=1).levels[-1].id
        for i, each in enumerate((fresh, used))
    ]
    assert found[0] == found[1]


def test_epochs_come_in_different_orders():
    first = []

    def loss(net, batch):
        first.append(tuple(batch[0][:, 0].tolist()))
        return nn.functional.cross_entropy(net(batch[0]), batch[1])

    recipe = adapted(lottery(levels=0, epochs=3, control=False), loss=loss)
    list(run(recipe, model(), data(KEPT["a generator of the loader"])))
    assert len(set(first[::6])) == 3


def test_judging_leaves_the_generators_of_a_loader():
    loader = DataLoader(TABLE, 16, shuffle=True, generator=own())
    before = copy.copy(loader.generator.get_state())
    evaluate(model(), loader, classify, runtime("cpu"))
    assert torch.equal(loader.generator.get_state(), before)


@pytest.mark.parametrize(
    ("rng", "named"),
    [(np.random.default_rng(0), "dataset.rng"), (random.Random(0), "dataset.rng"), (own(), "dataset.rng")],
)
def test_state_that_cannot_be_kept_is_said_beforehand(tmp_path, rng, named):
    recipe = lottery(levels=0, epochs=1, control=False)
    split = Data(name="mine", train=DataLoader(Noisy(rng), 16), validation=DataLoader(TABLE, 48))
    with pytest.warns(ResumeNote, match=f"the train split draws from {named}, which a run cannot store"):
        execute(recipe, model=model(), data=split, out=tmp_path / "run", threads=1)
