"""Layers and networks to time: exactly as sparse as asked, and the same for torch and for the runtime."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsight.deploy.bench import conv, linear, prune_at_random_
from sparsight.deploy.runtime.graph import Conv


@pytest.mark.parametrize(
    ("case", "kept", "of"),
    [
        (conv((3, 5), 8, density=0.1), 14, 135),  # 13.5 to the even number
        (conv((4, 6), 9, kernel=1, stride=2, density=0.25), 6, 24),
        (linear((10, 7), density=0.5), 35, 70),
        (linear((10, 7), density=0.0), 0, 70),
        (conv((3, 5), 8, density=1.0), 135, 135),
    ],
)
def test_as_many_weights_as_asked_for(case, kept, of):
    assert int(case.module.weight.count_nonzero()) == kept
    assert case.density == kept / of


@pytest.mark.parametrize(
    ("case", "name", "x", "out"),
    [
        (conv((3, 5), 8, 3, 2, batch=4), "3×3 3→5 @ 8, stride 2, batch 4", (4, 3, 8, 8), (5, 4, 4)),
        (conv((6, 6), 7, 5), "5×5 6 @ 7, batch 1", (1, 6, 7, 7), (6, 7, 7)),
        (linear((10, 7), batch=2), "linear 10→7, batch 2", (2, 10), (7, 1, 1)),
    ],
)
def test_a_layer_and_its_graph(case, name, x, out):
    assert (case.name, tuple(case.x.shape), case.layer) == (name, x, True)
    (given,) = case.graph.outputs
    assert given.shape == out
    assert tuple(case.module(case.x).shape)[1:] == (out if len(x) == 4 else out[:1])
    operation = case.graph.operations[-1]
    assert isinstance(operation, Conv)
    dense = case.module.weight.detach().numpy().ravel()
    assert operation.weight.places.tolist() == dense.nonzero()[0].tolist()
    assert (operation.weight.values == dense[operation.weight.places]).all()
    assert (operation.bias == case.module.bias.detach().numpy()).all()
    assert not case.module.training


def test_a_seed_gives_the_same_case():
    first, again, other = (linear((10, 7), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.module.weight, again.module.weight)
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.module.weight, other.module.weight)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: conv((3, 5), 8, density=1.5), "density must be in [0, 1], got 1.5"),
        (lambda: linear((3, 5), density=-0.1), "density must be in [0, 1], got -0.1"),
        (lambda: linear((3, 5), batch=0), "batch must be at least 1, got 0"),
        (lambda: linear((3, 0)), "features must be at least 1, got 0"),
        (lambda: conv((0, 5), 8), "channels must be at least 1, got 0"),
        (lambda: conv((3, 5), 8, stride=0), "stride must be at least 1, got 0"),
        (lambda: conv((3, 5), 0), "size must be at least 1, got 0"),
        (lambda: conv((3, 5), 8, 0), "kernel must be at least 1, got 0"),
        (lambda: conv((3, 5), 8, seed=-1), "seed must be at least 0, got -1"),
    ],
)
def test_what_is_no_layer(make, said):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == said


def test_pruning_at_random_leaves_what_is_named_and_keeps_the_scale_of_signals():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(400, 300), nn.BatchNorm1d(300))
    before = [p.detach().clone() for p in module.parameters()]
    prune_at_random_(module, 0.25, seed=0, leave=("0",))
    after = list(module.parameters())
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, True, True, True]
    weight = module[1].weight.detach()
    assert int(weight.count_nonzero()) == 30_000
    assert float(weight.square().sum(1).mean()) == pytest.approx(2, rel=0.02)
