"""Evaluating inside epochs: the points, the same bits as without, and going on from inside an epoch."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparsight.measure.flow import Probe
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.folder import RunFolder
from sparsight.records.journal import Event
from sparsight.runs.execute import execute
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Until
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import AllOf, FixedEpochs, FlowPlateau, GradientConsistent, MaskStable
from sparsight.train.training import next_point
from sparsight.types import Data, Split
from sparsight.zoo.data import digits


def points(every: float, length: int | None, end: int, stops=()) -> list[tuple[int, int]]:
    here, found = (0, 0), []
    while here < (end, 0):
        here = next_point(here, every, length, (end, *stops))
        found.append(here)
    return found


def test_generators_go_on_from_where_they_were_found():
    import json
    import random

    from sparsight.numerics.seeds import captured, drawing_on, seeded
    from sparsight.records.packing import pack_state, unpack_state

    def draws() -> list[float]:
        legacy = np.random.rand(3).tolist()  # noqa: NPY002
        return [*torch.rand(3).tolist(), *legacy, random.random(), random.gauss(0.0, 1.0)]

    with seeded(3):
        draws()  # an odd number of Gaussians: the second one of the pair waits
        states = captured()
        expected = draws(), draws()
    outside = captured()
    tensors, skeleton = pack_state(states)
    stored = unpack_state(tensors, json.loads(json.dumps(skeleton)))
    for found in (states, stored):
        with drawing_on(found):
            assert (draws(), draws()) == expected
    assert random.getstate() == outside["python"]
    assert torch.equal(torch.get_rng_state(), outside["torch"])
    assert torch.equal(captured()["numpy"][1], outside["numpy"][1])


class TestPoints:
    def test_written_out(self):
        assert points(1.0, 10, 3) == [(1, 0), (2, 0), (3, 0)]
        assert points(1.0, None, 2) == [(1, 0), (2, 0)]
        assert points(2.0, None, 5) == [(2, 0), (4, 0), (5, 0)]
        assert points(2.0, None, 5, (3,)) == [(2, 0), (3, 0), (4, 0), (5, 0)]
        assert points(0.5, 10, 2) == [(0, 5), (1, 0), (1, 5), (2, 0)]
        assert points(0.5, 3, 1) == [(0, 2), (1, 0)]  # the first step that reaches it
        assert points(1.5, 10, 3) == [(1, 5), (3, 0)]
        assert points(0.1, 3, 1) == [(0, 1), (0, 2), (1, 0)]  # no more points than steps
        assert points(1 / 3, 9, 1) == [(0, 3), (0, 6), (1, 0)]
        with pytest.raises(ValueError, match=r"after 0.5 epochs.*whole epochs"):
            points(0.5, None, 1)

    @given(every=st.floats(0.01, 3.0), length=st.integers(1, 40), end=st.integers(1, 5))
    def test_they_rise_and_are_the_first_steps_that_reach_a_multiple(self, every, length, end):
        found = points(every, length, end)
        steps = [e * length + s for e, s in found]
        assert all(a < b for a, b in itertools.pairwise(steps))
        assert all(0 <= s < length for _, s in found)
        assert found[-1] == (end, 0)
        reached = {max(1, int(np.ceil(k * every * length - 1e-6))) for k in range(1, int(end / every + 1e-9) + 1)}
        assert set(steps) == {step for step in reached if step < end * length} | {end * length}


def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


class Noise(torch.utils.data.Dataset):
    """A foreign data set that draws from global generators. (Not from `random`: beartype, with which the tests check
    types, draws from it too.)"""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return 300

    def __getitem__(self, i: int):
        x = self.split.x[i] + 0.1 * torch.randn(self.split.x[i].shape)
        return x + 0.1 * float(np.random.rand()), self.split.y[i]  # noqa: NPY002


def data(kind: str) -> Data:
    source = digits()
    few = Split(source.train.x[:330], source.train.y[:330], augment=noisy)
    if kind == "loader":
        return dataclasses.replace(source, train=DataLoader(Noise(few), batch_size=50, shuffle=True))
    if kind == "plain loader":
        return dataclasses.replace(source, train=DataLoader(TensorDataset(few.x, few.y), batch_size=50, shuffle=True))
    return dataclasses.replace(source, train=few)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
        )


def recipe(*, rewind_epoch: int = 0, **plan) -> Recipe:
    """Of two levels; `plan` are fields of their training."""
    level = Level((Shrink(0.5),), train=TrainingPlan(batch_size=50, epochs=2, **plan))
    return Recipe(
        name="test", score=Magnitude(), levels=Until(level, levels=1), rewind_epoch=rewind_epoch, seed=3, probes=50
    )


WATCHFUL = AllOf(MaskStable(tol=1e-9), FlowPlateau(tol=1e-9), GradientConsistent(1e-9, statistic="ema"))


@pytest.mark.parametrize("kind", ["split", "loader", "plain loader"])
def test_evaluating_inside_epochs_trains_the_same_bits(kind):
    whole = list(run(recipe(), network(), data(kind), device="cpu"))
    for every in (0.4, 2.0):
        parts = list(run(recipe(evaluate_every=every, stop=WATCHFUL), network(), data(kind), device="cpu"))
        for a, b in zip(whole, parts, strict=True):
            assert a.record.id == b.record.id
            assert a.record.observations[-1].validation_loss == b.record.observations[-1].validation_loss
            assert a.record.steps == b.record.steps
    length = 7 if kind == "split" else len(data(kind).train)
    finest = next(run(recipe(evaluate_every=0.01), network(), data(kind), device="cpu")).record.observations
    assert [o.step for o in finest] == list(range(1, 2 * length + 1))
    assert [o.epoch for o in finest] == pytest.approx([i / length for i in range(1, 2 * length + 1)])
    # a whole epoch's mean loss is that of its parts
    if kind == "loader":  # its batches are all of one size
        first = whole[0].record.observations[0].train_loss
        assert np.mean([o.train_loss for o in finest[:length]]) == pytest.approx(first)


def test_the_rewind_point_is_where_it_was_asked_for():
    """It is an evaluation point of its own, and the same whatever lies between."""
    expected = list(run(recipe(rewind_epoch=1), network(), data("split"), device="cpu"))
    for every in (0.4, 2.0):
        found = list(run(recipe(rewind_epoch=1, evaluate_every=every), network(), data("split"), device="cpu"))
        assert [r.record.id for r in found] == [r.record.id for r in expected]
        assert 1.0 in [o.epoch for o in found[0].record.observations]


def test_a_rule_may_end_a_level_inside_an_epoch():
    how = recipe(stop=FixedEpochs(0.4), evaluate_every=0.2)
    first, second = (r.record for r in run(how, network(), data("split"), device="cpu"))
    assert first.epochs == second.epochs == pytest.approx(3 / 7)
    assert first.reason == "trained 0.428571 of 0.4 epochs"


def test_a_split_that_tells_no_length_has_whole_epochs_only():
    class Stream:
        def __iter__(self):
            return iter([(digits().train.x[:50], digits().train.y[:50])] * 2)

    endless = dataclasses.replace(digits(), train=Stream())
    assert len(list(run(recipe(), network(), endless, device="cpu"))) == 2
    with pytest.raises(ValueError, match="has no length"):
        list(run(recipe(evaluate_every=0.5), network(), endless, device="cpu"))


@pytest.mark.parametrize("kind", ["split", "loader"])
def test_interrupted_inside_an_epoch_it_ends_with_the_same_bits(tmp_path, kind):
    how = recipe(evaluate_every=0.4, stop=WATCHFUL)
    if kind == "loader":  # the probe of a noisy loader is what the loader gave then
        how = recipe(evaluate_every=0.4, stop=AllOf(MaskStable(tol=1e-9), GradientConsistent(1e-9, statistic="ema")))
    ticks = 0

    def count(event: Event) -> None:
        nonlocal ticks
        ticks += 1

    execute(how, model=network(), data=data(kind), out=tmp_path / "whole", device="cpu", watch=count)
    for stop in range(1, ticks, 3):
        folder, seen = tmp_path / f"at{stop}", 0

        def interrupt(event: Event, stop: int = stop) -> None:
            nonlocal seen
            if seen == stop:
                raise KeyboardInterrupt
            seen += 1

        with pytest.raises(KeyboardInterrupt):
            execute(how, model=network(), data=data(kind), out=folder, device="cpu", watch=interrupt)
        torch.manual_seed(stop)  # what the process drew before does not matter
        execute(how, model=network(), data=data(kind), out=folder, resume=True, device="cpu")
        for name in ("levels.jsonl", "evaluation.json", "model.safetensors", "masks.safetensors"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (stop, name)


def test_the_probe_is_kept_with_the_run(tmp_path):
    from safetensors.torch import load_file, save_file

    from sparsight.records.files import DamagedFile

    how = recipe(stop=WATCHFUL)
    execute(how, model=network(), data=data("split"), out=tmp_path / "r", device="cpu")
    indices = load_file(tmp_path / "r" / "probe.safetensors")["indices"]
    assert len(indices) == 50
    assert bool((indices[1:] > indices[:-1]).all())
    with RunFolder.open(tmp_path / "r", write=True) as folder:
        folder.keep_probe(Probe(indices, (), 3))
        with pytest.raises(DamagedFile, match="its samples"):
            folder.keep_probe(Probe(indices + 1, (), 3))
    save_file({"indices": indices}, tmp_path / "r" / "probe.safetensors")
    with RunFolder.open(tmp_path / "r", write=True) as folder, pytest.raises(DamagedFile):
        folder.keep_probe(Probe(indices, (), 3))
    execute(recipe(), model=network(), data=data("split"), out=tmp_path / "plain", device="cpu")
    assert not (tmp_path / "plain" / "probe.safetensors").exists()
