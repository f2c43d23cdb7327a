"""When schedules prune, by counting: every step of a training is asked once."""

from __future__ import annotations

import pytest
import torch

from sparsight import Magnitude, Shrink, counts, dense
from sparsight.integrations import AtEpochs, Gradual, Place, Schedule
from sparsight.integrations.session import Session
from sparsight.pruning import SAP, Uniform
from sparsight.pruning.schedules import Linear


def kept_before(schedule: Schedule, steps: int, start: int = 0, masks=None) -> tuple[list[int], dict]:
    """The weights that are left at each step of a training of one epoch a step, and the masks at the end."""
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 50)
    masks = dense(model) if masks is None else masks
    since, found = -1, []
    for step in range(start, steps):
        allocator = schedule.due(Place(step, steps, step, steps), since, masks)
        since = step
        if allocator is not None:
            masks = dict(allocator(Magnitude()(model, masks), masks))
        found.append(counts(masks)[0])
    return found, masks


def test_gradual_follows_its_equation():
    found, _ = kept_before(Gradual(0.1, rounds=4, begin=0.2, end=0.6), 10)
    left = [0.1 + 0.9 * (1 - i / 4) ** 3 for i in range(5)]
    assert found == [1000] * 3 + [round(1000 * x) for x in (*left[1:4], *[left[4]] * 4)]


def test_shape_and_allocator_are_exchangeable():
    found, masks = kept_before(Gradual(0.5, rounds=5, end=1, shape=Linear, allocate=lambda d: Uniform(d, "neuron")), 11)
    assert found == [1000, 1000, 900, 900, 800, 800, 700, 700, 600, 600, 500]
    assert masks["weight"].sum(1).tolist() == [10] * 50


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [(Gradual(0.1), 1), (Gradual(0.1, end=1.0), 3), (Gradual(0.1, begin=1.0, end=1.0), 7), (Gradual(0.1, end=0), 5)],
    ids=str,
)
def test_the_last_round_comes_before_the_last_step_at_the_latest(schedule, steps):
    found, masks = kept_before(schedule, steps)
    assert found[-1] == 100
    assert schedule.left(masks) == ""


def test_a_training_that_becomes_longer_never_brings_weights_back():
    schedule = Gradual(0.1, end=0.5)
    _, masks = kept_before(schedule, 10)
    found, _ = kept_before(schedule, 100, start=10, masks=masks)
    assert set(found) == {100}
    _, masks = kept_before(schedule, 10)
    found, _ = kept_before(Gradual(0.05), 10, start=9, masks=masks)  # shorter: the last round is over, and still due
    assert found == [50]


def test_a_density_of_one_prunes_nothing():
    assert set(kept_before(Gradual(1.0), 10)[0]) == {1000}
    _, masks = kept_before(Gradual(0.3), 5)
    assert Gradual(0.1).left(masks) == "300 of 1,000 weights are left, and 100 were asked for"


def test_epochs_prune_once_each():
    found, _ = kept_before(AtEpochs(Shrink(0.5), epochs=(0, 3)), 5)
    assert found == [500, 500, 500, 250, 250]
    schedule = AtEpochs(Shrink(0.5), epochs=(0,))
    assert schedule.due(Place(4, 9, None, 2), 3, {}) is None
    assert schedule.due(Place(0, 9, 0, 2), 0, {}) is None


def test_a_schedule_of_a_sharded_model_is_refused_before_anything_is_trained():
    model = torch.nn.Linear(3, 2)
    model.weight.device_mesh = "as a DTensor of FSDP2 has one"  # type: ignore[attr-defined]
    session = Session(Gradual(density=0.5), None)
    with pytest.raises(TypeError, match="sharded over processes"):
        session.begin(model, torch.optim.SGD(model.parameters()), Place(0, 40, 0, 1), None, ())
    assert not session.running


def test_what_is_refused():
    for density in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"density must be in \[0, 1\]"):
            Gradual(density)
    with pytest.raises(ValueError, match="cannot prune 1000 of 1000 alive weights: min_keep=1"):
        Gradual(0.0).check(Place(0, 10, 0, 1), {"weight": torch.ones(50, 20, dtype=torch.bool)})
    with pytest.raises(ValueError, match="begin must not come after end, got begin=0.8 and end=0.7"):
        Gradual(0.1, begin=0.8)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        Gradual(0.1, rounds=0)
    with pytest.raises(TypeError, match="allocate holds 0.1, which is not an allocator"):
        Gradual(0.1, allocate=lambda d: d)  # type: ignore[arg-type, return-value]
    for epochs in ((), (1, 1)):
        with pytest.raises(ValueError, match="epochs must be at least one number, each once"):
            AtEpochs(SAP(), epochs)
    with pytest.raises(ValueError, match="epochs must be at least 0, got -1"):
        AtEpochs(SAP(), (-1,))
    with pytest.raises(TypeError, match="which is not an allocator: it is a class"):
        AtEpochs(SAP, (1,))  # type: ignore[arg-type]
