"""What is summed in float64 is the same on a device without that type: nothing of it is made there."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from without_float64 import DEVICE, There, device, moved

from sparsight.measure.criticality.phase import phase_of
from sparsight.measure.flow import flow_distance, gf_ema, gradient_flow, information_flow
from sparsight.measure.pq import pq_index, pq_index_gradient, retained_bound, row_sums
from sparsight.model.loss import cross_entropy
from sparsight.model.masks import dense
from sparsight.numerics.exact import at_home, exact, home
from sparsight.pruning.conditioning import conditioning
from sparsight.pruning.rescale import Rescale
from sparsight.pruning.score.snip import SNIP
from sparsight.pruning.score.synflow import SynFlow
from sparsight.train.evaluate import evaluate
from sparsight.train.judges import classify
from sparsight.train.training import LossSum
from sparsight.types import Split


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(12, 4, generator=g), torch.randint(3, (12,), generator=g)


def here(x):
    """Numbers, wherever they are."""
    return x.held if isinstance(x, There) else x


def test_the_device_of_the_tests_refuses_float64():
    with device():
        assert torch.zeros(2, device=DEVICE).device == DEVICE
        for make in (
            lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
            lambda: There(torch.ones(2)).double(),
            lambda: There(torch.ones(2)).sum(0, dtype=torch.float64),
            lambda: torch.ones(2).to(DEVICE, torch.float64),
        ):
            with pytest.raises(TypeError, match="float64"):
                make()


def test_where_float64_numbers_live():
    cpu, x = torch.device("cpu"), torch.randn(3)
    assert home(cpu) == cpu
    assert torch.equal(exact(x), x.double())
    assert at_home(x) is x
    assert exact(x.double().requires_grad_()).requires_grad
    with device():
        assert home(DEVICE) == cpu
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64):
            found = exact(There(x.to(dtype)))
            assert type(found) is Tensor
            assert torch.equal(found, x.to(dtype).double())


def flows(model, x, y):
    masks = dense(model)
    information = information_flow(model, [(x, y)])
    signed = information_flow(model, [(x, y)], reduction="signed")
    gradient = gradient_flow(model, masks, [(x, y)], loss=cross_entropy)
    average = gf_ema({name: p.detach() for name, p in model.named_parameters()})
    average = gf_ema({name: p.detach() * 2 for name, p in model.named_parameters()}, average)
    return information.values, signed.values, gradient.values, average.values


def pq(model, x, y):
    masks, weights = dense(model), {name: p.detach() for name, p in model.named_parameters()}
    weights = {name: weights[name] for name in masks}
    rows = row_sums(weights, (0.5, 1.0), masks)["2.weight"]
    one = weights["0.weight"]
    bound = retained_bound(one.abs().flatten() * 0 + 5, one.abs().flatten() * 0 + 0.5, 1.0, 2.0)
    slope = pq_index_gradient(one)
    assert slope.device == one.device
    return torch.tensor([rows.row(i).index(0.5, 1.0) for i in range(8)]), pq_index(one, dim=1), slope, bound


def phase(model, x, y):
    found = phase_of(model)
    return torch.tensor([value for row in found.layers for value in (row.sigma_w, row.sigma_b, row.chi)])


def trained(model, x, y):
    tally = LossSum(torch.zeros((), dtype=torch.float64, device=home(x.device)))
    for _ in range(3):
        tally.add(cross_entropy(model, (x, y)), 12.0)
    runtime = SimpleNamespace(device=x.device, autocast=torch.no_grad, main=True, world=1)
    worth = evaluate(model, Split(x, y), classify, runtime)
    return tally.sum(), torch.tensor([worth.accuracy, worth.loss], dtype=torch.float64)


def scored(model, x, y):
    snip = SNIP(loss=cross_entropy)(model, dense(model), [(x, y)])
    found = conditioning(model, [(x, y)], loss=cross_entropy)
    return *snip.values(), torch.tensor(list(found.moments.values()), dtype=torch.float64)


def rescaled(model, x, y):
    masks = dense(model)
    factors = [rule.factors(model, masks) for rule in (Rescale(by="neuron"), Rescale(by="layer", gain="dense"))]
    assert all(factor.device == x.device for each in factors for factor in each.values())
    return [factor for each in factors for factor in each.values()]


@pytest.mark.parametrize("measure", [flows, pq, phase, trained, scored, rescaled])
def test_numbers_are_those_of_the_cpu_to_the_bit(measure):
    model, (x, y) = network(), batch()
    with torch.random.fork_rng():
        expected = measure(copy.deepcopy(model), x, y)
        with device():
            found = measure(moved(model), There(x), There(y))
    expected, found = ((e,) if isinstance(e, Tensor) else e for e in (expected, found))
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.detach(), here(other).detach())


def test_synflow_is_computed_on_the_cpu_and_comes_back_as_shares_of_the_largest():
    model, (x, y) = network(), batch()
    expected = SynFlow()(model, dense(model), [(x, y)])
    most = max(score.max() for score in expected.values())
    with device():
        model = moved(model)
        found = SynFlow()(model, dense(model), [(There(x), There(y))])
        shaped = SynFlow(input_shape=(4,))(model, dense(model))
    for name, score in expected.items():
        assert found[name].device == DEVICE
        assert torch.equal(here(found[name]), (score / most).float())
        assert torch.equal(here(shaped[name]), here(found[name]))


def test_a_flow_may_be_given_as_numbers_of_the_device():
    with device():
        x, y = There(torch.tensor([1.0, 2.0])), There(torch.tensor([1.0, 4.0]))
        assert flow_distance(x, y, "l2") == 2.0
        assert flow_distance([1.0, 2.0], y, "linf") == 2.0
