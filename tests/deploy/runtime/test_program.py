"""Single operations and whole networks against torch in float64."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Detector, Inverted, error, exactly, sparse_
from torch import nn

from sparsight.deploy.runtime import stream
from sparsight.deploy.runtime.graph import Concat, Conv, Graph, Mean, Pool, Resample, Sum
from sparsight.deploy.runtime.program import compiled
from sparsight.deploy.runtime.trace import traced
from sparsight.deploy.runtime.weight import Weight
from sparsight.numerics.kernels import matvec
from sparsight.zoo import networks as zoo
from sparsight.zoo.networks.plain import vanilla_cnn

ACTIVATIONS = {
    "": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
ENOUGH = 1e-5


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(
    images=st.sampled_from([1, 1, 2, 16, 17]),
    groups=st.integers(1, 3),
    inner=st.integers(1, 4),
    outer=st.integers(1, 4),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    added=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_convolution_is_torchs(
    images, groups, inner, outer, size, kernel, stride, padding, dilation, density, activation, added, seed
):
    x = drawn(seed, images, groups * inner, *size)
    weight = drawn(seed + 1, groups * outer, inner, *kernel)
    weight *= drawn(seed + 2, *weight.shape).abs() <= {0.0: -1.0, 1.0: 99.0}.get(density, density)
    bias = drawn(seed + 3, groups * outer)
    try:
        wanted = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding, dilation, groups)
    except RuntimeError:
        return
    if wanted.numel() == 0 or wanted.shape[2] < 1 or wanted.shape[3] < 1:
        return
    graph = Graph()
    first = graph.input(tuple(x.shape[1:]))
    other = graph.input(tuple(wanted.shape[1:])) if added else None
    add = drawn(seed + 4, *wanted.shape)
    made = Conv(first, Weight.of(weight), bias.numpy(), stride, padding, dilation, groups, activation, other)
    graph.outputs.append(graph.add(made))
    (got,) = compiled(graph, images)(x, *([add] if added else []))
    wanted = ACTIVATIONS[activation](wanted + (add if added else 0))
    assert error(got, wanted) < ENOUGH


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(2, 2, 0, 1), (3, 2, 1, 1), (5, 1, 2, 1), (3, 1, 1, 2)]
)
def test_pooling_is_torchs(images, kernel, stride, padding, dilation):
    x = drawn(0, images, 3, 13, 14) - 3  # all below zero: padding must not win
    pairs = [(n, n) for n in (kernel, stride, padding)]
    graph = Graph()
    source = graph.input((3, 13, 14))
    graph.outputs.append(graph.add(Pool(source, "max", *pairs, dilation)))
    if dilation == 1:
        graph.outputs += [graph.add(Pool(source, "mean", *pairs, padded=padded)) for padded in (True, False)]
    got = compiled(graph, images)(x)
    assert torch.equal(got[0], F.max_pool2d(x, kernel, stride, padding, dilation))
    for found, padded in zip(got[1:], (True, False), strict=False):
        wanted = F.avg_pool2d(x.double(), kernel, stride, padding, count_include_pad=padded)
        assert error(found, wanted) < ENOUGH


@pytest.mark.parametrize("images", [1, 18])
def test_sums_joins_means_and_other_pixels(images):
    x = drawn(0, images, 3, 6, 5)
    graph = Graph()
    source = graph.input((3, 6, 5))
    up = graph.add(Resample(source, tuple(i // 2 for i in range(12)), (-1, *range(5))))
    twice = graph.add(Sum(up, up, "relu"))
    joined = graph.add(Concat((twice, up, twice)))
    graph.outputs = [joined, graph.add(Mean(joined))]
    got, mean = compiled(graph, images)(x)
    wanted = F.pad(x, (1, 0)).repeat_interleave(2, 2)
    wanted = torch.cat([F.relu(2 * wanted), wanted, F.relu(2 * wanted)], 1)
    assert torch.equal(got, wanted)
    assert error(mean, wanted.double().mean((2, 3))) < ENOUGH


@pytest.mark.parametrize("images", [1, 16])
def test_the_mean_of_a_large_flat_plane_is_exact_to_a_few_roundings(images):
    x = torch.full((images, 2, 56, 60), 2.5453)
    graph = Graph()
    graph.outputs = [graph.add(Mean(graph.input((2, 56, 60))))]
    (mean,) = compiled(graph, images)(x)
    assert error(mean, x.double().mean((2, 3))) < 2e-6


NETWORKS = {
    "resnet20": (lambda: zoo.resnet20((3, 32, 32)), (3, 32, 32)),
    "resnet18": (lambda: zoo.resnet18((3, 16, 16)), (3, 16, 16)),
    "lenet5": (zoo.lenet5, (1, 28, 28)),
    "lenet_300_100": (zoo.lenet_300_100, (1, 28, 28)),
    "circular": (vanilla_cnn, (1, 28, 28)),
    "cnn": (zoo.cnn, (1, 28, 28)),
    "detector": (Detector, (3, 40, 48)),
    "inverted": (Inverted, (3, 29, 31)),
    "rows": (lambda: nn.Sequential(nn.Linear(70, 33), nn.GELU(), nn.Linear(33, 5)), (70,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_are_torchs(name):
    make, shape = NETWORKS[name]
    model = sparse_(make(), 0.3)
    graph = traced(model, torch.randn(1, *shape))
    for images in (1, 2, 19):
        x = drawn(images, images, *shape)
        for got, wanted in zip(compiled(graph, images)(x), exactly(model, x), strict=True):
            assert error(got, wanted) < ENOUGH


def two_layers() -> Graph:
    weight = drawn(0, 24, 8, 3, 3).numpy() * (drawn(1, 24, 8, 3, 3).numpy() > 0.5)
    graph = Graph()
    x = graph.add(Conv(graph.input((8, 20, 20)), Weight.of(weight), np.ones(24), padding=(1, 1), activation="relu"))
    graph.outputs.append(graph.add(Conv(x, Weight.of(weight.transpose(1, 0, 2, 3)), np.ones(8), (2, 2), (1, 1))))
    return graph


@pytest.mark.parametrize("images", [1, 20])
def test_the_same_bits_for_any_number_of_threads_and_callers(images):
    x = drawn(2, images, 8, 20, 20)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            program = compiled(two_layers(), images)
            found += program(x)
            with ThreadPoolExecutor(4) as pool:
                found += [out for outs in pool.map(program, [x] * 12) for out in outs]
            torch.set_num_threads(1)
            found += program(x)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_passed_on(images, value):
    graph = two_layers()
    x = drawn(3, images, 8, 20, 20)
    x[0, :, 5, 7] = value
    (got,) = compiled(graph, images)(x)
    assert not got[0, :, 2:4, 3:5].isfinite().any()
    assert got[0, :, 6:].isfinite().all()
    assert got[0, :, :, 7:].isfinite().all()


@pytest.mark.parametrize("vectors", [1, 3, 6, 28])
def test_tiles_of_machines_with_fewer_registers(vectors, monkeypatch):
    monkeypatch.setattr(stream, "machine", lambda: stream.Machine(vectors, 8192))
    graph, x = two_layers(), drawn(4, 1, 8, 20, 20)
    wanted = compiled(graph, 1)(x)[0]
    monkeypatch.undo()
    assert error(wanted, compiled(graph, 1)(x)[0].double()) < ENOUGH


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("slots", [True, False])
def test_a_matrix_times_a_vector(activation, slots, monkeypatch):
    if not slots:
        monkeypatch.setattr(matvec, "by_slots", lambda half: None)
    weight, bias = drawn(0, 37, 301), drawn(1, 37)
    weight *= drawn(2, 37, 301) > 0.8
    weight[5] = 0
    x, add = drawn(3, 1, 301, 1, 1), drawn(4, 1, 37, 1, 1)
    graph = Graph()
    source, other = graph.input((301, 1, 1)), graph.input((37, 1, 1))
    made = Conv(source, Weight.of(weight).kernels(), bias.numpy(), activation=activation, add=other)
    graph.outputs.append(graph.add(made))
    (got,) = compiled(graph, 1)(x, add)
    wanted = weight.double() @ x.flatten().double() + bias + add.flatten()
    assert error(got, ACTIVATIONS[activation](wanted)) < ENOUGH


@pytest.mark.parametrize("images", [1, 2, 17])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sums_activations_and_means_of_plain_features(activation, images):
    """Batches of few rows have one number for each channel instead of vectors."""
    graph = Graph()
    source, other = graph.input((37, 1, 1)), graph.input((37, 1, 1))
    active = graph.add(Sum(source, None, activation))
    graph.outputs += [active, graph.add(Sum(active, other, activation)), graph.add(Mean(other))]
    x, y = drawn(0, images, 37, 1, 1), drawn(1, images, 37, 1, 1)
    first = ACTIVATIONS[activation](x.double())
    wanted = (first, ACTIVATIONS[activation](first + y), y.double())
    for got, exact in zip(compiled(graph, images)(x, y), wanted, strict=True):
        assert error(got, exact) < ENOUGH


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.0005, 0.02, 0.6, 1.0])
def test_rows_with_long_gaps_and_without_any(density, bfloat16):
    weight = drawn(0, 40, 5000) * (torch.rand(40, 5000, generator=torch.Generator().manual_seed(1)) < density)
    weight[:, 0] = weight[7] = 0
    weight[3, 4999] = 1.5
    graph = Graph()
    made = Conv(graph.input((5000, 1, 1)), Weight.of(weight).kernels(), np.zeros(40, np.float32))
    graph.outputs.append(graph.add(made))
    x = drawn(2, 1, 5000, 1, 1)
    stored = weight.bfloat16() if bfloat16 else weight
    (got,) = compiled(graph, 1, half=bfloat16)(x)
    assert error(got, stored.double() @ x.flatten().double()) < ENOUGH


def test_memory_is_stated_and_far_less_than_all_activations():
    model = sparse_(zoo.resnet18((3, 32, 32)), 0.1)
    program = compiled(traced(model, torch.randn(1, 3, 32, 32)), 1)
    all_of_them = sum(4 * step.out.channels * step.out.size[0] * step.out.size[1] for step in program.plan.steps)
    assert 0 < program.memory() < 0.6 * all_of_them


def test_shapes_that_do_not_fit_are_refused():
    graph = Graph()
    x = graph.input((3, 8, 8))
    with pytest.raises(ValueError, match="does not fit 3 channels"):
        graph.add(Conv(x, Weight.of(np.zeros((4, 2, 3, 3))), np.zeros(4)))
    with pytest.raises(ValueError, match="leaves nothing"):
        graph.add(Conv(x, Weight.of(np.zeros((4, 3, 9, 9))), np.zeros(4)))
    with pytest.raises(ValueError, match="cannot add"):
        graph.add(Sum(x, graph.input((3, 8, 9))))


@pytest.mark.parametrize("images", [1, 3])
def test_the_largest_of_a_window_with_nan_is_nan_and_of_infinity_infinity(images):
    x = drawn(0, images, 2, 12, 12)
    x[0, 0, 4, 4], x[0, 1, 4, 4], x[0, 1, 8, 8] = float("nan"), float("inf"), -float("inf")
    graph = Graph()
    graph.outputs.append(graph.add(Pool(graph.input((2, 12, 12)), "max", (3, 3), (2, 2), (1, 1))))
    torch.testing.assert_close(compiled(graph, images)(x)[0], F.max_pool2d(x, 3, 2, 1), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("images", [1, 20])
def test_weights_in_bfloat16_are_rounded_and_nothing_else_is(images):
    model = sparse_(nn.Sequential(Detector()), 0.3)
    graph = traced(model, torch.randn(1, 3, 40, 48))
    rounded = copy.copy(graph)
    rounded.operations = [
        replace(o, weight=replace(o.weight, values=torch.from_numpy(o.weight.values).bfloat16().float().numpy()))
        if isinstance(o, Conv)
        else o
        for o in graph.operations
    ]
    x = drawn(1, images, 3, 40, 48)
    for a, b in zip(compiled(graph, images, half=True)(x), compiled(rounded, images)(x), strict=True):
        assert error(a, b.double()) < 1e-6


def test_a_matrix_in_bfloat16_times_a_vector():
    weight = drawn(0, 40, 500) * (drawn(1, 40, 500) > 0.8)
    graph, x = Graph(), drawn(2, 1, 500, 1, 1)
    graph.outputs.append(graph.add(Conv(graph.input((500, 1, 1)), Weight.of(weight).kernels(), np.zeros(40))))
    (got,) = compiled(graph, 1, half=True)(x)
    assert error(got, weight.bfloat16().double() @ x.flatten().double()) < 1e-6
