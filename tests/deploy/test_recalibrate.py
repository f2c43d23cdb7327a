"""BatchNorm statistics taken anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sparsight.deploy import recalibrate_


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 3),
        nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, track_running_stats=False),
    )  # fmt: skip


def batches(*sizes: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 1, 8, 8, generator=generator) + 2 for size in sizes]


def test_statistics_are_plain_averages_over_the_batches():
    model = network().eval()
    with torch.no_grad():
        model[0].weight[:, :, 1] = 0
    found = batches(8, 4, 16)
    assert recalibrate_(model, [(x, torch.zeros(len(x))) for x in found]) == 3
    with torch.no_grad():
        outputs = [model[0](x).double().transpose(0, 1).flatten(1) for x in found]
    assert torch.allclose(model[1].running_mean.double(), torch.stack([y.mean(1) for y in outputs]).mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var.double(), torch.stack([y.var(1) for y in outputs]).mean(0), rtol=1e-4)
    assert model[1].num_batches_tracked == 3
    with torch.no_grad():  # the second sees what the first, in training, put out
        first = copy.deepcopy(model[1]).train()
        seen = [model[4](first(model[0](x)).flatten(1)).mean(0) for x in found]
    assert torch.allclose(model[5].running_mean, torch.stack(seen).mean(0), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_all_else_stays(training):
    model = network().train(training)
    model[4].eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    recalibrate_(model, iter(batches(4, 4)))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{n}.{what}" for n in (1, 5) for what in ("running_mean", "running_var", "num_batches_tracked")}
    assert [module.training for module in model.modules()] == modes
    assert (model[1].momentum, model[5].momentum) == (0.3, 0.1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("given", "said"), [
    ([], "needs at least one batch, got none"),
    ([*batches(4), torch.randn(4, 2, 8, 8)], "the model fails on batch 1 to recalibrate on: "),
    (batches(1), "the model fails on batch 0 to recalibrate on: .*more than 1 value per channel"),
])  # fmt: skip
def test_what_is_refused_leaves_statistics_as_they_were(given, said):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=said):
        recalibrate_(model, given)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model[1].momentum == 0.3


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False)])
def test_without_batch_norm(model):
    with pytest.raises(ValueError, match=f"this {type(model).__name__} has no BatchNorm that keeps statistics"):
        recalibrate_(model, batches(2))
