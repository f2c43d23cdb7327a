from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparsight.model.masks import dense, verify
from sparsight.model.names import named
from sparsight.numerics.seeds import derive
from sparsight.numerics.select import keep_largest
from sparsight.pruning.score.random import Random
from sparsight.train.batches import step_size
from sparsight.train.loop import train
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.parallel import runtime
from sparsight.train.plan import Hooks, Moment, TrainingPlan
from sparsight.train.stop import FixedEpochs
from sparsight.train.training import Training
from sparsight.types import Data, Split
from sparsight.zoo.data import digits


def model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))


def plan(**changes) -> TrainingPlan:
    return dataclasses.replace(TrainingPlan(batch_size=100, epochs=3), **changes)


def training(net: nn.Module, how: TrainingPlan, data: Data | None = None, density: float = 0.3, **more) -> Training:
    full = dense(net)
    masks = keep_largest(Random(1)(net, full, ()), full, round(density * sum(m.numel() for m in full.values())))[0]
    optimizer = how.optimizer(net.parameters())
    return Training(net, masks, optimizer, how, data or digits(), runtime("cpu"), 0, **more)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())


def test_learns_and_holds_the_mask():
    net = model()
    run = training(net, plan(epochs=8))
    seen = list(train(run))
    assert [o.epoch for o in seen] == [float(i) for i in range(1, 9)]
    assert [o.step for o in seen] == [i * math.ceil(len(digits().train) / 100) for i in range(1, 9)]
    assert seen[-1].reason == "trained all 8 epochs"
    assert all(o.reason is None for o in seen[:-1])
    assert seen[-1].train_loss < seen[0].train_loss
    assert seen[-1].validation_accuracy > 0.85
    verify(net, run.masks)


def test_the_learning_rate_follows_the_schedule_by_step():
    rates = []

    def note(moment: Moment) -> None:
        rates.append(moment.optimizer.param_groups[0]["lr"])

    how = plan(epochs=2, hooks=Hooks(after_step=note), optimizer=NesterovSGD(lr=0.2))
    list(train(training(model(), how)))
    n = len(rates)
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * i / n)) for i in range(n)], rel=1e-9)


def test_equals_a_plain_loop_bit_for_bit():
    """The loop is ordinary PyTorch: written out by hand it gives the same weights."""
    how = plan(epochs=1, batch_size=128)
    net, data = model(), digits()
    net[3].p = 0.0
    twin = copy.deepcopy(net)
    run = training(net, how, data)
    generator = torch.Generator().manual_seed(derive(run.seed, "level", 0, 0))
    order = torch.randperm(len(data.train), generator=generator)
    list(train(run))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    steps = math.ceil(len(order) / 128)
    weights = named(twin)
    with torch.no_grad():
        for name, mask in run.masks.items():
            weights[name][~mask] = 0
    for step in range(steps):
        index = order[step * 128 : (step + 1) * 128]
        optimizer.param_groups[0]["lr"] = 0.1 * (0.5 * (1 + math.cos(math.pi * (step / steps))))
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(data.train.x[index]), data.train.y[index]).backward()
        for name, mask in run.masks.items():
            weights[name].grad[~mask] = 0
        nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, mask in run.masks.items():
                weights[name][~mask] = 0
    assert same(net, twin)


def test_pruned_gradients_do_not_count_in_the_clipped_norm():
    norms = []

    def inflate(moment: Moment) -> None:
        for name, mask in moment.masks.items():
            named(moment.model)[name].grad[~mask] = 1e6

    def look(moment: Moment) -> None:
        grads = [p.grad for p in moment.model.parameters()]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))

    quiet, loud = model(), model()
    list(train(training(quiet, plan(epochs=1, clip=0.5))))
    list(train(training(loud, plan(epochs=1, clip=0.5, hooks=Hooks(on_gradients=inflate, after_step=look)))))
    assert same(quiet, loud)
    assert max(norms) <= 0.5 + 1e-5


def test_stopping_rule_ends_a_level_early():
    run = training(model(), plan(epochs=5, stop=FixedEpochs(2)))
    seen = list(train(run))
    assert len(seen) == 2
    assert seen[-1].reason == "trained 2 of 2 epochs"


def test_resuming_between_epochs_gives_the_same_bits():
    net = model()
    whole = training(net, plan(epochs=4))
    list(train(whole))
    other = model()
    first = training(other, plan(epochs=4))
    steps = train(first)
    for _ in range(2):
        next(steps)
    third = model(seed=9)
    resumed = training(third, plan(epochs=4))
    third.load_state_dict(copy.deepcopy(other.state_dict()))
    resumed.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    resumed.observations = list(first.observations)
    list(train(resumed))
    assert same(net, third)
    assert resumed.observations == whole.observations


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(train(training(model(), plan(epochs=1))))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["loader", "list", "generator of unknown length"])
def test_any_iterable_of_batches_works(kind):
    data = digits()
    if kind == "loader":
        loader = DataLoader(TensorDataset(data.train.x, data.train.y), batch_size=64, shuffle=True)
    elif kind == "list":
        loader = [(data.train.x[i : i + 64], data.train.y[i : i + 64]) for i in range(0, len(data.train), 64)]
    else:

        class Stream:
            def __iter__(self):
                return ((data.train.x[i : i + 64], data.train.y[i : i + 64]) for i in range(0, len(data.train), 64))

        loader = Stream()
    seen = [
        [
            o.validation_accuracy
            for o in train(training(model(), plan(epochs=3), dataclasses.replace(data, train=loader)))
        ]
        for _ in range(2)
    ]
    assert seen[0] == seen[1]
    assert seen[0][-1] > 0.5


def test_a_loader_that_yields_nothing_is_refused():
    data = dataclasses.replace(digits(), train=[], name="empty")
    with pytest.raises(ValueError, match="training split of 'empty' must yield at least one batch"):
        list(train(training(model(), plan(), data)))
    data = dataclasses.replace(digits(), validation=[])
    with pytest.raises(ValueError, match="an empty split"):
        list(train(training(model(), plan(), data)))


def test_a_split_that_yields_its_batches_only_once_is_refused():
    known, again = digits(), [(torch.zeros(2, 1, 8, 8), torch.zeros(2).long())]
    for once in ((batch for batch in again), iter(again), map(tuple, again)):
        for name in ("train", "validation"):
            with pytest.raises(TypeError, match=f"the {name} split must yield its batches anew .* a list of batches"):
                dataclasses.replace(known, **{name: once})
    assert dataclasses.replace(known, train=again, validation=again, test=iter(again)).train is again


def test_divergence_is_an_error_that_names_the_place():
    with pytest.raises(ValueError, match="diverged.*level 0, epoch 1"):
        list(train(training(model(), plan(optimizer=NesterovSGD(lr=1e20), clip=None))))


def test_mask_updates_may_switch_weights_on_from_clean_zeros():
    states = []

    def swap(moment: Moment):
        if moment.step != 3:
            return None
        masks = {name: mask.clone() for name, mask in moment.masks.items()}
        mask = masks["4.weight"]
        off, on = (~mask).nonzero()[0], mask.nonzero()[0]
        mask[tuple(off)], mask[tuple(on)] = True, False
        states.append((tuple(off), tuple(on)))
        return masks

    def after(moment: Moment) -> None:
        if moment.step == 4:
            off, _ = states[0]
            grad = named(moment.model)["4.weight"].grad
            buffer = moment.optimizer.state[named(moment.model)["4.weight"]]["momentum_buffer"]
            # one step after the swap: momentum holds one gradient, not the history of a dead weight
            assert float(buffer[off]) == pytest.approx(float(grad[off]), rel=1e-5)

    net = model()
    how = plan(epochs=1, hooks=Hooks(update_masks=swap, after_step=after), optimizer=NesterovSGD(weight_decay=0.0))
    run = training(net, how)
    list(train(run))
    off, on = states[0]
    assert bool(run.masks["4.weight"][off])
    assert float(named(net)["4.weight"].detach()[off]) != 0.0
    assert float(named(net)["4.weight"].detach()[on]) == 0.0
    verify(net, run.masks)


def test_a_penalty_is_added_to_the_loss():
    def l1(moment: Moment):
        return 0.05 * sum(p.abs().sum() for p in moment.model.parameters())

    plain, small = model(), model()
    list(train(training(plain, plan(epochs=2))))
    list(train(training(small, plan(epochs=2, hooks=Hooks(penalty=l1)))))
    norm = [sum(float(p.detach().abs().sum()) for p in net.parameters()) for net in (plain, small)]
    assert norm[1] < 0.5 * norm[0]


def test_mixed_precision_and_channels_last():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    net = net.to(memory_format=torch.channels_last)
    run = training(net, plan(epochs=2), channels_last=True)
    run.runtime = runtime("cpu", "bf16")
    try:
        seen = list(train(run))
    finally:
        runtime("cpu", "no")
    assert seen[-1].validation_accuracy > 0.5
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.dtype is torch.float32
    verify(net, run.masks)


@pytest.mark.parametrize("kind", ["eps 0", "wrapper", "moved"])
def test_the_loop_holds_what_an_elementwise_step_would_not(kind):
    """With eps = 0 a step on zeros makes NaN, a wrapper writes after its inner step, and weights may move in memory."""

    class Follows(torch.optim.Adam):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(1e-3)

    def optimizer(parameters) -> torch.optim.Optimizer:
        kinds = {"eps 0": lambda p: torch.optim.Adam(p, 1e-3, eps=0.0), "wrapper": lambda p: Follows(p, 1e-3)}
        return kinds.get(kind, lambda p: torch.optim.SGD(p, 1e-2))(parameters)

    looked = []

    def loss(model: nn.Module, batch) -> torch.Tensor:
        verify(net, run.masks)
        if kind == "moved" and len(looked) == 3:
            for p in net.parameters():
                p.data = p.detach().t().contiguous().t() if p.ndim == 2 else p.detach().clone()
        looked.append(min(float(w.detach()[run.masks[k]].abs().min()) for k, w in named(net).items() if k in run.masks))
        pull = sum(p.square().sum() for p in net.parameters())  # no kept weight has a gradient of 0, whose step is NaN
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) + 1e-3 * pull

    net = model()
    run = training(net, plan(epochs=1, optimizer=optimizer, loss=loss))
    list(train(run))
    assert len(looked) == math.ceil(len(digits().train) / 100)
    assert min(looked) > 0  # no kept weight was cleared


@pytest.mark.parametrize(
    ("samples", "asked", "size"),
    [(1197, None, 32), (9750, None, 32), (9751, None, 250), (55_000, None, 250), (1197, 250, 250), (55_000, 7, 7)],
)
def test_a_small_split_is_trained_on_in_small_steps(samples, asked, size):
    """250 samples, unless they make fewer than 40 steps an epoch; a number that is given stays."""
    split = Split(torch.zeros(samples, 1), torch.zeros(samples, dtype=torch.int64))
    assert step_size(split, asked) == size
    assert asked is not None or (size == 250) == (math.ceil(samples / 250) >= 40)


def test_a_plan_without_a_batch_size_trains_as_one_with_the_number_that_it_comes_to():
    runs = [training(model(), TrainingPlan(epochs=1, batch_size=size)) for size in (None, 32, 250)]
    steps = [list(train(run))[-1].step for run in runs]
    assert steps == [38, 38, 5]
    assert same(runs[0].model, runs[1].model)
    assert not same(runs[0].model, runs[2].model)


def test_a_loader_keeps_its_own_batches():
    loader = DataLoader(TensorDataset(digits().train.x, digits().train.y), batch_size=100)
    assert step_size(loader, None) == 250
    run = training(model(), TrainingPlan(epochs=1), dataclasses.replace(digits(), train=loader))
    assert list(train(run))[-1].step == 12


def test_observations_say_how_many_answers_were_judged():
    seen = list(train(training(model(), plan(epochs=2))))
    assert [o.samples for o in seen] == [300, 300]
