"""`sparse_runtime` from packed files and run folders: the same outputs, and no dense weight in between."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MethodType

import numpy as np
import pytest
import torch
from networks import Detector, Inverted, error, sparse_
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from sparsight import execute, sparse_runtime
from sparsight.checkpoint import CheckpointError, open_checkpoint, pack
from sparsight.checkpoint.packed import read
from sparsight.deploy.runtime import choice
from sparsight.deploy.runtime.stored import Stored
from sparsight.deploy.runtime.weight import Weight
from sparsight.recipes import oneshot
from sparsight.zoo import networks as zoo

ENOUGH = 1e-5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_file", lambda: tmp_path / "cache" / "runtime.json")


@pytest.fixture
def wins(monkeypatch) -> list[str]:
    """The way that is always faster: what is chosen must not depend on a busy machine."""
    way = ["sparse"]

    def measured(ways, seconds):
        for call in ways.values():
            call()
        return dict.fromkeys(ways, 9.0) | {way[0]: 1.0}

    monkeypatch.setattr(choice, "_measured", measured)
    return way


def packed(model: nn.Module, tmp_path) -> str:
    path = str(tmp_path / "packed.safetensors")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.0)  # -0.0 would be a value
    pack(model, path)
    return path


def empty(make) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def same(fast: nn.Module, model: nn.Module, *inputs: Tensor) -> None:
    with torch.inference_mode():
        for x in inputs:
            found, wanted = fast(x), model(x)
            for a, b in zip(*([y] if isinstance(y, Tensor) else y for y in (found, wanted)), strict=True):
                assert a.shape == b.shape
                assert error(a, b.double()) < ENOUGH


MAKERS = [
    (lambda: zoo.resnet20((3, 32, 32)), (3, 32, 32)), (Detector, (3, 32, 32)), (Inverted, (3, 24, 24)),
    (zoo.lenet5, (1, 28, 28)), (lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), (7, 32)),
]  # fmt: skip


@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize(("make", "shape"), MAKERS)
def test_a_packed_file_gives_the_models_outputs(make, shape, seconds, wins, tmp_path):
    model = sparse_(make(), 0.2)
    fast = sparse_runtime(empty(make), torch.randn(1, *shape), weights=packed(model, tmp_path), seconds=seconds)
    assert "sparse" in {row.runs for row in fast.plan}
    same(fast, model, *(torch.randn(n, *shape) for n in (1, 3, 17)), torch.randn(0, *shape))
    if len(shape) == 3 and shape[0] == 3:  # another size runs part by part
        same(fast, model, torch.randn(2, 3, 40, 48))


def test_no_dense_weight_is_made(wins, tmp_path, monkeypatch):
    """Neither is the decoder of dense tensors called, nor is an array or tensor of a layer's size made."""

    def make():
        return nn.Sequential(*(nn.Linear(700, 700) for _ in range(3)), nn.Linear(700, 5))

    model, numbers = sparse_(make(), 0.02), 700 * 700
    file = packed(model, tmp_path)

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in torch.utils._pytree.tree_leaves(out):
                if isinstance(x, Tensor) and not x.is_meta and not isinstance(x, FakeTensor):
                    assert x.untyped_storage().nbytes() < numbers, func
            return out

    decode = read.chunks.decode

    def only_biases(chunk, layout, out):
        assert len(out) <= 700
        decode(chunk, layout, out)

    monkeypatch.setattr(read.chunks, "decode", only_biases)
    network, x = empty(make), torch.ones(2, 700)
    sparse_runtime(empty(make), torch.ones(1, 700), weights=file, seconds=0)(x)  # what is first loaded and compiled
    tracemalloc.start()
    with Watched():
        fast = sparse_runtime(network, torch.randn(1, 700), weights=file, seconds=0)
        with torch.inference_mode():
            found = fast(x)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * numbers
    assert {row.runs for row in fast.plan} == {"sparse"}
    assert error(found, model(x).detach().double()) < ENOUGH


def test_what_is_faster_dense_is_read_dense(wins, tmp_path):
    wins[0] = "torch"
    model = sparse_(zoo.lenet5(), 0.2)
    fast = sparse_runtime(empty(zoo.lenet5), torch.randn(1, 1, 28, 28), weights=packed(model, tmp_path))
    assert {row.runs for row in fast.plan} == {"torch"}
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in fast.state_dict().items())
    same(fast, model, torch.randn(3, 1, 28, 28))


def test_times_are_taken_beside_dense_weights_once(wins, tmp_path, monkeypatch):
    model = sparse_(zoo.lenet5(), 0.2)
    file, x = packed(model, tmp_path), torch.randn(1, 1, 28, 28)
    plans = [sparse_runtime(empty(zoo.lenet5), x, weights=file).plan]

    @contextmanager
    def never(self, module):
        raise AssertionError("dense weights were made again")
        yield

    monkeypatch.setattr(Stored, "dense", never)
    plans.append(sparse_runtime(empty(zoo.lenet5), x, weights=file).plan)
    assert plans[0] == plans[1]
    assert plans[0][0].milliseconds == {"torch": 9.0, "sparse": 1.0}


class Tied(nn.Module):
    """A weight that an embedding and a linear layer share, one read past its layer, one of a layer never called."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight
        self.past, self.never, self.twice = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)
        self.other.weight = self.twice.weight

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(self.past(x), self.past.weight)
        return self.head(self.other(self.twice(x)).sort(1).values)


def test_weights_that_are_shared_or_read_past_their_layers(wins, tmp_path):
    model = sparse_(Tied(), 0.3)
    fast = sparse_runtime(empty(Tied), torch.randn(2, 8), weights=packed(model, tmp_path))
    same(fast, model, torch.randn(3, 8))


class Curious(nn.Module):
    """Reads weights of layers that it calls, and hides what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(48, 48) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alive = (self.b.weight.data != 0).sum()
        return (self.a(x) if bool((self.c.weight > 0).any()) else self.c(self.a(x))), alive + self.b(x).sum()


def test_weights_that_are_read_beside_their_layers_are_dense(wins, tmp_path):
    model, x = sparse_(Curious(), 0.2), torch.randn(2, 48)
    fast = sparse_runtime(empty(Curious), x, weights=packed(model, tmp_path), seconds=0)
    same(fast, model, x)
    assert not torch.equal(fast.a.weight, fast.a.weight)  # kept without its zeros
    assert torch.equal(fast.b.weight, model.b.weight)
    assert torch.equal(fast.c.weight, model.c.weight)


def test_ten_threads_at_once_and_more_shapes_than_are_kept(wins, tmp_path):
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 4, 3))

    model, x = sparse_(make(), 0.2), torch.randn(1, 3, 8, 8)
    fast = sparse_runtime(empty(make), x, weights=packed(model, tmp_path), seconds=0)
    inputs = [torch.randn(1 + i % 2, 3, 8, 8 + i % 10) for i in range(40)]
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(fast, inputs))
    for x, got in zip(inputs, found, strict=True):
        assert error(got, model(x).detach().double()) < ENOUGH


def test_a_layer_with_a_forward_of_its_own_keeps_it(wins, tmp_path):
    model = sparse_(nn.Sequential(nn.Linear(48, 48), nn.Linear(48, 4)), 0.2)
    file = packed(model, tmp_path)

    def tripled(layer: nn.Linear, x: Tensor) -> Tensor:
        return 3 * nn.functional.linear(x, layer.weight, layer.bias)

    model[0].forward = MethodType(tripled, model[0])
    same(sparse_runtime(model, torch.randn(2, 48), weights=file, seconds=0), model, torch.randn(3, 48))


def test_a_module_with_weights_of_its_own_is_untouched(wins, tmp_path):
    model, other = sparse_(zoo.lenet5(), 0.2), zoo.lenet5(seed=3).eval()
    before = copy.deepcopy(other.state_dict())
    fast = sparse_runtime(other, torch.randn(1, 1, 28, 28), weights=packed(model, tmp_path))
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    same(fast, model, torch.randn(2, 1, 28, 28))
    half = sparse_runtime(other, torch.randn(1, 1, 28, 28), weights=packed(model, tmp_path), bfloat16=True, seconds=0)
    with torch.inference_mode():
        x = torch.randn(2, 1, 28, 28)
        assert 1e-5 < error(half(x), model(x).double()) < 5e-2


@pytest.mark.parametrize("lossy", [None, "bfloat16"])
def test_a_weight_is_what_its_tensor_is(tmp_path, lossy):
    dense = torch.randn(40, 3, 5, 5) * (torch.rand(40, 3, 5, 5) < 0.3)
    dense[0, 0, 0, :3] = torch.tensor([-0.0, 1e-40, torch.inf])
    pack({"x": dense, "zeros": torch.zeros(4000, 7)}, tmp_path / "x", lossy=lossy)
    entries = {entry.name: entry for entry in open_checkpoint(tmp_path / "x").entries}
    found, wanted = Weight.stored(entries["x"]), Weight.of(dense if lossy is None else dense.bfloat16())
    for a, b in ((found.places, wanted.places), (found.values, wanted.values)):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert found.density == np.count_nonzero(dense if lossy is None else dense.bfloat16().float()) / 3000
    assert Weight.stored(entries["zeros"]).counts().tolist() == [0] * 4000
    turned = Weight.of(dense[:, 0, 0]).transposed()
    assert np.array_equal(turned.places, Weight.of(dense[:, 0, 0].T).places)
    assert np.array_equal(turned.values, Weight.of(dense[:, 0, 0].T).values)


def test_refusals(wins, tmp_path):
    model = sparse_(zoo.lenet5(), 0.2)
    file, x = packed(model, tmp_path), torch.randn(1, 1, 28, 28)
    fast = sparse_runtime(empty(zoo.lenet5), x, weights=file, seconds=0)
    with pytest.raises(RuntimeError, match="dense weights of this network were never made"):
        fast.state_dict()
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            copied(fast)
    with pytest.raises(ValueError, match="takes float32 on the CPU without autocast, got torch.float64"):
        fast(x.double())
    alone = sparse_runtime(
        nn.Linear(48, 48).eval(), torch.ones(1, 48), weights=packed(sparse_(nn.Linear(48, 48), 0.2), tmp_path),
        seconds=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"a Linear of packed weights takes rows, got shape \(\)"):
        alone(torch.tensor(1.0))
    file = packed(model, tmp_path)
    with pytest.raises(RuntimeError, match="no gradients"):
        fast(x.clone().requires_grad_())
    with pytest.raises(ValueError, match="does not fit MLP"):
        sparse_runtime(empty(zoo.lenet_300_100), x, weights=file)
    with pytest.raises(CheckpointError, match="No such file"):
        sparse_runtime(empty(zoo.lenet5), x, weights=tmp_path / "none")
    with pytest.raises(ValueError, match="expected a module or the folder of a run"):
        sparse_runtime(tmp_path / "packed.safetensors", x)
    with pytest.raises(ValueError, match="expected an example"):
        sparse_runtime(model)

    class More(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = zoo.lenet5()
            self.register_buffer("shift", torch.ones(()), persistent=False)

    with pytest.warns(match="prefix"), pytest.raises(ValueError, match="has no 'shift'"):
        sparse_runtime(empty(More), x, weights=file)


def test_the_network_of_a_run(wins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(
        oneshot(target_density=0.2, epochs=1, control=False), model="lenet-300-100", data="digits", out="run",
        keep="packed",
    )  # fmt: skip
    fast, x = sparse_runtime("run"), torch.randn(5, 1, 8, 8)
    assert {row.runs for row in fast.plan} == {"sparse"}
    model = zoo.lenet_300_100((1, 8, 8), 10).eval()
    import sparsight

    sparsight.load_into("run", model)
    same(fast, model, x)
    same(sparse_runtime(model, x, weights="run"), model, x)
