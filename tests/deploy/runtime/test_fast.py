"""`sparse_runtime` on people's models: the same outputs, the model untouched, refusals in words."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from networks import Bottlenecks, Detector, Inverted, Several, error, sparse_
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsight import sparse_runtime
from sparsight.deploy.runtime import choice, visit
from sparsight.deploy.runtime.program import Runner
from sparsight.deploy.runtime.trace import NotTraced, traced
from sparsight.zoo import networks as zoo

ENOUGH = 1e-5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_file", lambda: tmp_path / "cache" / "runtime.json")


@pytest.fixture
def sparse_wins(monkeypatch):
    """As if the sparse way were always faster: what is chosen must not depend on a busy machine."""
    monkeypatch.setattr(choice, "_measured", lambda ways, seconds: dict.fromkeys(ways, 1.0) | {"torch": 9.0})


@pytest.fixture
def torch_wins(monkeypatch):
    monkeypatch.setattr(choice, "_measured", lambda ways, seconds: dict.fromkeys(ways, 9.0) | {"torch": 1.0})


def same(found, wanted) -> None:
    found, wanted = ([x] if isinstance(x, Tensor) else list(x) for x in (found, wanted))
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert error(a.detach(), b.detach().double()) < ENOUGH


@pytest.mark.parametrize(
    ("make", "shape"),
    [(lambda: zoo.resnet20((3, 32, 32)), (3, 32, 32)), (Detector, (3, 32, 32)), (zoo.lenet_300_100, (1, 28, 28))],
)
def test_any_batch_size_and_other_shapes(make, shape, sparse_wins):
    model = sparse_(make(), 0.2)
    fast_one = sparse_runtime(model, torch.randn(1, *shape))
    assert {row.runs for row in fast_one.plan} == {"sparse"}
    with torch.inference_mode():
        for images in (1, 2, 5, 16, 21):
            x = torch.randn(images, *shape)
            same(fast_one(x), model(x))
        if make is not zoo.lenet_300_100:
            x = torch.randn(2, 3, 40, 40)
            same(fast_one(x), model(x))
        same(fast_one(torch.randn(0, *shape)), model(torch.randn(0, *shape)))


NAMED = {
    "resnet18": (lambda: zoo.resnet18((3, 32, 32)), lambda n: (torch.randn(n, 3, 32, 32),)),
    "bottlenecks": (Bottlenecks, lambda n: (torch.randn(n, 3, 48, 40),)),
    "mobilenet": (Inverted, lambda n: (torch.randn(n, 3, 24, 24),)),
    "transformer": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2),
        lambda n: (torch.randn(n, 7, 32),),
    ),
    "several inputs": (Several, lambda n: (torch.randint(0, 20, (n, 9)), torch.rand(n, 9, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_networks_that_people_have(name, sparse_wins):
    make, inputs = NAMED[name]
    model = sparse_(make(), 0.2)
    made = sparse_runtime(model, inputs(1))
    assert any(row.runs == "sparse" for row in made.plan)
    for n in (1, 3, 17):
        given = inputs(n)
        with torch.inference_mode():
            for a, b in zip(*([x] if isinstance(x, Tensor) else x for x in (made(*given), model(*given))), strict=True):
                assert a.shape == b.shape
                assert a.dtype == b.dtype
                assert torch.equal(a, b) if not a.is_floating_point() else error(a, b.double()) < ENOUGH


def test_layers_of_a_transformer_run_what_the_plan_says(sparse_wins):
    model = sparse_(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 0.2)
    made = sparse_runtime(model, torch.randn(1, 7, 32))
    called = []
    for name in ("linear1", "linear2"):
        forward = getattr(made, name).forward
        assert isinstance(forward, visit.FastForward)
        getattr(made, name).forward = lambda x, f=forward, n=name: called.append(n) or f(x)
    with torch.inference_mode():
        made(torch.randn(2, 5, 32))
    assert called == ["linear1", "linear2"]


def test_a_network_that_gains_nothing_as_a_whole_stays_as_it_is(monkeypatch):
    def measured(ways, seconds):
        parts = len(asked) < 2
        asked.append(1)
        return dict.fromkeys(ways, 1.0 if parts else 9.0) | {"torch": 9.0 if parts else 1.0}

    asked: list[int] = []
    monkeypatch.setattr(choice, "_measured", measured)
    model = sparse_(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 0.2)
    made = sparse_runtime(model, torch.randn(1, 7, 32))
    assert len(asked) == 3
    assert {row.runs for row in made.plan} == {"torch"}
    assert any(row.why == "with all such parts the network is 0.11 times as fast" for row in made.plan)
    assert all("forward" not in vars(module) for module in made.modules())
    assert made.activation_relu_or_gelu == model.activation_relu_or_gelu


def test_a_layer_in_the_middle_of_a_model_that_cannot_be_traced(sparse_wins):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.recurrent = nn.Linear(12, 20), nn.LSTM(20, 16, batch_first=True)
            self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))

        def forward(self, x: Tensor, twice: bool = False) -> Tensor:
            x = self.recurrent(self.first(x))[0].cumsum(1)
            return self.head(x) * (2 if twice else 1)

    model = sparse_(Odd(), 0.3)
    made = sparse_runtime(model, torch.randn(2, 7, 12))
    sparse = {row.name for row in made.plan if row.runs == "sparse"}
    assert sparse == {"first", "head.0", "head.2"}
    for shape in ((2, 7, 12), (1, 3, 12), (5, 1, 12)):
        x = torch.randn(shape)
        with torch.inference_mode():
            same(made(x), model(x))
            same(made(x, twice=True), model(x, twice=True))


def test_what_mixes_rows_is_not_taken_for_a_layer_on_rows(sparse_wins):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.clone().sort(1).values)

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1).reshape(x.shape)) + x.flatten(1).flatten(1).reshape(x.shape)

    model = sparse_(Mixed(), 0.3)
    x = torch.randn(2, 3, 12)
    with torch.inference_mode():
        same(sparse_runtime(model, x)(x), model(x))


def test_generate_gives_the_dense_tokens(sparse_wins):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=60, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    model = sparse_(transformers.GPT2LMHeadModel(config), 0.2)
    made = sparse_runtime(model, torch.randint(0, 60, (1, 4)))
    assert any("attn" in row.name and row.runs == "sparse" for row in made.plan)
    prompt = torch.randint(2, 60, (1, 5))
    tokens = [m.generate(prompt, max_new_tokens=12, do_sample=False) for m in (made, model)]
    assert torch.equal(*tokens)


def test_the_model_is_untouched_and_shares_its_memory(sparse_wins):
    model = sparse_(zoo.lenet5(), 0.2)
    before = copy.deepcopy(model.state_dict())
    made = sparse_runtime(model, torch.randn(1, 1, 28, 28))
    assert "forward" not in vars(model)
    assert list(before) == list(made.state_dict())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    for a, b in zip(model.parameters(), made.parameters(), strict=True):
        assert a.data_ptr() == b.data_ptr()
    model.train()  # the copy alone is for inference


class InPlace(nn.Module):
    """A block changes its input, which is used again; what is done with both cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.other = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(12, 12)), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        return self.block(x).sort(1).values + self.other(x)


def test_a_block_that_changes_its_input_still_does(sparse_wins):
    model = sparse_(InPlace(), 0.3)
    made, x = sparse_runtime(model, torch.randn(2, 12)), torch.randn(3, 12)
    assert {row.name for row in made.plan if row.runs == "sparse"} == {"block.1", "other"}
    with torch.inference_mode():
        same(made(x), model(x))


class ReadAgain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        F.relu_(y)
        return self.b(x) + y


def test_what_is_changed_in_place_is_read_changed():
    model, x = sparse_(ReadAgain(), 0.5), torch.randn(2, 3, 8, 8)
    same(Runner(traced(model, x), (3, 8, 8))(x), model(x))


def test_one_image_without_a_batch_runs_in_torch(sparse_wins):
    model = sparse_(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3)), 0.3)
    made, x = sparse_runtime(model, torch.randn(3, 8, 8)), torch.randn(2, 3, 8, 8)
    assert {row.why for row in made.plan} == {"its input is one image without a batch"}
    with torch.inference_mode():
        same(made(x), model(x))
        same(made(x[0]), model(x[0]))


def test_weights_that_hooks_compute(sparse_wins):
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    for layer in (model[0], model[2]):
        prune.random_unstructured(layer, "weight", 0.8)
    model(torch.randn(2, 12))  # the weights need gradients: they cannot be copied as they are
    made, x = sparse_runtime(model, torch.randn(2, 12)), torch.randn(3, 12)
    assert {(row.name, row.runs) for row in made.plan} == {("0", "sparse"), ("2", "sparse")}
    with torch.inference_mode():
        same(made(x), model(x))


def test_random_numbers_and_buffers_of_the_model_stay_as_they_are(sparse_wins):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(12, 12)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(x).sort(1).values

    model, before = sparse_(Counting(), 0.3), torch.get_rng_state()
    made = sparse_runtime(model, torch.ones(2, 12))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.calls == made.calls == 0
    sparse_runtime(sparse_(zoo.lenet5(seed=0), 0.2), torch.ones(1, 1, 28, 28))  # traced
    assert torch.equal(torch.get_rng_state(), before)
    assert {row.runs for row in made.plan} == {"sparse"}


def test_refusals(sparse_wins):
    model = sparse_(zoo.lenet5(), 0.2)
    x = torch.randn(1, 1, 28, 28)
    with pytest.raises(ValueError, match=r"call model\.eval"):
        sparse_runtime(copy.deepcopy(model).train(), x)
    with pytest.raises(ValueError, match="fails on the example"):
        sparse_runtime(model, torch.randn(1, 7, 28, 28))
    made = sparse_runtime(model, x)
    with pytest.raises(RuntimeError, match="inference"):
        made.train()
    with pytest.raises(RuntimeError, match="no gradients"):
        made(x.clone().requires_grad_())
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            copied(made)
    assert made.eval() is made


def test_what_gains_nothing_stays_as_it_is(torch_wins):
    model = sparse_(zoo.lenet5(), 0.2)
    made = sparse_runtime(model, torch.randn(1, 1, 28, 28))
    assert {row.runs for row in made.plan} == {"torch"}
    assert all("forward" not in vars(module) for module in made.modules())
    dense = sparse_runtime(sparse_(zoo.lenet5(), 1.0), torch.randn(1, 1, 28, 28))
    assert dense.plan == []


def test_all_zero_layers_full_ones_and_other_types(sparse_wins):
    model = sparse_(zoo.lenet5(), 0.2)
    with torch.no_grad():
        first, second = (m for m in model.modules() if isinstance(m, nn.Conv2d))
        first.weight.zero_()
        second.weight.fill_(0.01)
    made = sparse_runtime(model, torch.randn(1, 1, 28, 28))
    x = torch.randn(3, 1, 28, 28)
    with torch.inference_mode():
        same(made(x), model(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(made(x), model(x))  # the model's own way
    half = copy.deepcopy(model).bfloat16()
    assert all(row.runs == "torch" for row in sparse_runtime(half, x.bfloat16()).plan)


def test_weights_in_bfloat16(sparse_wins):
    model = sparse_(zoo.lenet5(), 0.2)
    x = torch.randn(3, 1, 28, 28)
    rounded = copy.deepcopy(model).bfloat16().float()
    with torch.inference_mode():
        found = sparse_runtime(model, x, bfloat16=True)(x)
        assert 1e-5 < error(found, model(x).double()) < 5e-2
        assert error(found, rounded(x).double()) < 1e-2


def test_a_measurement_is_done_once(tmp_path, monkeypatch):
    done = []
    real = choice._measured
    monkeypatch.setattr(choice, "_measured", lambda ways, seconds: done.append(1) or real(ways, 0.01))
    x, model = torch.randn(1, 1, 28, 28), sparse_(zoo.lenet5(), 0.2)
    plans = [sparse_runtime(model, x, seconds=0.01).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert len(done) <= 6
    count = len(done)
    (tmp_path / "cache" / "runtime.json").write_text('{"x": [[[[')
    sparse_runtime(model, x, seconds=0.01)
    assert len(done) == 2 * count


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda x: x.sort(1).values, "sort"),
        (lambda x: F.conv3d(x[None], torch.ones(1, x.shape[0], 1, 1, 1))[0], "."),
        (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), "ceil_mode"),
        (lambda x: x * x, "product of two activations"),
        (lambda x: x.mean(1), "mean"),
        (lambda x: torch.cat([x, x], 2), "concatenation"),
    ],
)
def test_what_the_graph_has_not_is_named(forward, said):
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    with pytest.raises(NotTraced, match=said):
        traced(Odd().eval(), torch.randn(2, 3, 8, 8))


def test_structure_is_checked_as_well_as_numbers():
    a = torch.ones(2, 3)
    assert visit._equal((a, [a]), (a, [a]))
    assert not visit._equal((a, [a]), (a, (a,)))
    assert not visit._equal(a, a + 1e-3)
    assert not visit._equal(a, a.T)
