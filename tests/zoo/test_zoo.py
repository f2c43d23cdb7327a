"""Reference networks: sizes as published, seeding, and names on the command line."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsight.types import Data, Split
from sparsight.zoo import data as D
from sparsight.zoo import networks as zoo

FASHION, CIFAR, TINY = (1, 28, 28), (3, 32, 32), (3, 64, 64)

# Parameters, prunable weights and prunable tensors: the table of the PQ Index specification, and for the others
# the published sizes (LeNet-300-100: 266 200 weights; LeNet-5 20-50-500: 0.43 M; ResNet-20 on CIFAR-10: 0.27 M).
PUBLISHED = [
    ("linear", FASHION, 10, 7_850, 7_840, 1),
    ("linear", CIFAR, 100, 307_300, 307_200, 1),
    ("mlp", FASHION, 10, 136_074, 135_680, 3),
    ("mlp", CIFAR, 10, 428_938, 428_544, 3),
    ("mlp", TINY, 200, 1_657_416, 1_656_832, 3),
    ("lenet-300-100", FASHION, 10, 266_610, 266_200, 3),
    ("lenet5", FASHION, 10, 431_080, 430_500, 4),
    ("cnn", FASHION, 10, 1_556_874, 1_553_984, 5),
    ("cnn", CIFAR, 10, 1_558_026, 1_555_136, 5),
    ("cnn", TINY, 200, 1_655_496, 1_652_416, 5),
    ("resnet18", FASHION, 10, 11_171_018, 11_163_200, 21),
    ("resnet18", CIFAR, 100, 11_218_340, 11_210_432, 21),
    ("resnet20", CIFAR, 10, 269_722, 268_336, 20),
    ("resnet8", FASHION, 10, 75_002, 74_512, 8),
]


def prunable(model: nn.Module) -> list[torch.Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


@pytest.mark.parametrize(("name", "shape", "classes", "total", "weights", "tensors"), PUBLISHED)
def test_published_sizes(
    name: str, shape: tuple[int, ...], classes: int, total: int, weights: int, tensors: int
) -> None:
    model = zoo.KNOWN[name](shape, classes, seed=0)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(w.numel() for w in prunable(model)) == weights
    assert len(prunable(model)) == tensors


@pytest.mark.parametrize("name", zoo.KNOWN)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 20)])
def test_forward_backward(name: str, shape: tuple[int, ...]) -> None:
    model = zoo.KNOWN[name](shape, 7, seed=0)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    logits = model(x)
    assert logits.shape == (3, 7)
    F.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in prunable(model))  # every tensor takes part
    copy.deepcopy(model).load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
def test_export(name: str) -> None:
    """The forward pass has no Python that PyTorch's exporter cannot see through."""
    model = zoo.KNOWN[name]((1, 8, 8), 10, seed=0).eval()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("name", zoo.KNOWN)
def test_seed_decides_and_leaves_the_global_state(name: str) -> None:
    make = zoo.KNOWN[name]
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    one, two, other = make((1, 16, 16), seed=1), make((1, 16, 16), seed=1), make((1, 16, 16), seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(torch.equal(a, b) for a, b in zip(prunable(one), prunable(other), strict=True))
    unseeded = make((1, 16, 16))
    assert not torch.equal(state, torch.random.get_rng_state())  # PyTorch's own way: drawn from the global state
    torch.manual_seed(11)
    again = make((1, 16, 16))
    assert all(torch.equal(a, b) for a, b in zip(prunable(unseeded), prunable(again), strict=True))


def test_initial_state_is_the_papers() -> None:
    model = zoo.resnet18(seed=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            # standard deviation sqrt(2 / fan_out), here within 4 of its standard errors
            tolerance = 4 / (2 * module.weight.numel()) ** 0.5
            assert abs(module.weight.std().item() / (2 / fan_out) ** 0.5 - 1) < tolerance
    linear = zoo.mlp(seed=0).get_parameter("fc1.weight")
    assert linear.abs().max() <= 784**-0.5  # uniform, as nn.Linear draws it
    assert linear.std().item() == pytest.approx((784 * 3) ** -0.5, rel=0.02)
    assert all(bool((p == 0).all()) for n, p in zoo.cnn(seed=0).named_parameters() if "conv" in n and "bias" in n)


def test_preactivation_block_against_the_formula() -> None:
    model = zoo.resnet18((1, 8, 8), seed=0).eval()
    block = model.get_submodule("stages.1.0")
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    w = dict(block.named_parameters())
    assert {n for n in w if "weight" in n} == {
        "bn1.weight", "conv1.weight", "bn2.weight", "conv2.weight", "shortcut.weight",
    }  # fmt: skip
    with torch.no_grad():
        scale = (1 + 1e-5) ** -0.5  # a fresh batch norm in eval mode
        a = F.relu(x * scale)
        inner = F.relu(F.conv2d(a, w["conv1.weight"], stride=2, padding=1) * scale)
        expected = F.conv2d(inner, w["conv2.weight"], padding=1) + F.conv2d(a, w["shortcut.weight"], stride=2)
        torch.testing.assert_close(block(x), expected)


def test_small_resnet_shortcut_pads_with_zeros() -> None:
    block = zoo.resnet8((1, 8, 8), seed=0).eval().get_submodule("blocks.1")
    nn.init.zeros_(block.get_parameter("conv2.weight"))  # leaves relu(shortcut)
    x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() + out[:, 24:].abs().sum() == 0


def test_width_of_the_cnn() -> None:
    half = zoo.cnn(width=0.5, seed=0)
    assert [tuple(w.shape[:2]) for w in prunable(half)] == [(32, 1), (64, 32), (128, 64), (256, 128), (10, 256)]
    assert prunable(zoo.cnn(width=0.001, seed=0))[0].shape[0] == 1
    with pytest.raises(ValueError, match="width must be finite and greater than 0, got 0.0"):
        zoo.cnn(width=0.0)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("lenet5", (1, 8, 8), "lenet5 needs images of at least 16×16, got 8×8"),
        ("cnn", (1, 7, 28), "cnn needs images of at least 8×8, got 7×28"),
        ("resnet20", (64,), r"resnet20 needs images of shape .*, got \(64,\)"),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        zoo.KNOWN[name](shape, 10)


# -- names --------------------------------------------------------------------------------------------


def bare(**facts: object) -> Data:
    split = Split(torch.zeros(6, 2, 9, 9), torch.tensor([0, 1, 2, 3, 4, 2]))
    return Data(name="bare", train=split, validation=split, facts=facts)


def test_build_fits_the_data() -> None:
    digits = zoo.build("lenet_300_100", D.digits(), 0)
    assert digits.get_parameter("fc1.weight").shape == (300, 64)
    model = zoo.build("mlp", bare(), 0)
    assert model.get_parameter("fc1.weight").shape == (128, 162)
    assert model.get_parameter("fc3.weight").shape == (5, 256)
    assert zoo.build("mlp", bare(classes=12), 0).get_parameter("fc3.weight").shape == (12, 256)


def test_build_says_what_it_does_not_know() -> None:
    stream = Data(name="stream", train=[], validation=[], facts={"input_shape": [1, 28, 28]})
    with pytest.raises(ValueError, match="data 'stream', because classes is unknown"):
        zoo.build("mlp", stream, 0)
    with pytest.raises(ValueError, match="input_shape"):
        zoo.build("mlp", Data(name="stream", train=[], validation=[]), 0)


OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.fc = nn.Linear(4, width)
made = Net()
def build(): return Net(5)
def needy(width): ...
def wrong(): return "model"
number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "not here"))  # puts sys.path back afterwards
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


@pytest.mark.usefixtures("own")
def test_build_ones_own() -> None:
    torch.manual_seed(4)
    made = zoo.build("own_models:made", bare(), 0)
    state = torch.random.get_rng_state()
    one, two = (zoo.build("own_models:build", bare(), 3) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert one is not two
    assert torch.equal(one.get_parameter("fc.weight"), two.get_parameter("fc.weight"))
    assert zoo.build("own_models:Net", bare(), 0).get_parameter("fc.weight").shape == (3, 4)
    assert zoo.build("own_models:made", bare(), 1) is made  # a module is taken as it is
    assert zoo.build(made, bare(), 1) is made
    assert isinstance(zoo.build(type(made), bare(), 1), type(made))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("resnet5000", ValueError, "model must be one of linear, mlp"),
        ("nowhere:Net", ValueError, "no module 'nowhere'"),
        ("own_models:Nett", ValueError, "own_models has no 'Nett', only Net"),
        ("own_models:needy", TypeError, "but needs width"),
        ("own_models:wrong", TypeError, "must return a Module, got str"),
        ("own_models:number", TypeError, "must be a Module or .*, got int"),
    ],
)
def test_build_refuses(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        zoo.build(spec, bare(), 0)
