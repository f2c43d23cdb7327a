"""Random networks through `sparse_runtime`'s way, many callers at once, and many calls."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from networks import error, exactly, sparse_
from torch import Tensor, nn

from sparsight.deploy.runtime.program import Runner
from sparsight.deploy.runtime.trace import traced
from sparsight.zoo import networks as zoo

ENOUGH = 1e-5


class Drawn(nn.Module):
    """A network of `depth` operations, each on values drawn from those before it."""

    def __init__(self, seed: int, depth: int = 9) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.layers, self.steps = nn.ModuleList(), []
        shapes = [(3, self.draw(9, 24), self.draw(9, 24))]
        for _ in range(depth):
            x = self.draw(max(0, len(shapes) - 3), len(shapes) - 1)
            kind = ("conv", "conv", "conv", "norm", "act", "pool", "add", "cat", "up", "split")[self.draw(0, 9)]
            step, shape = getattr(self, f"_{kind}")(shapes, x)
            self.steps.append(step)
            shapes.append(shape)
        self.head = nn.Linear(shapes[-1][0], 4)

    def draw(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def layer(self, module: nn.Module, x: int):
        self.layers.append(module)
        number = len(self.layers) - 1
        return lambda v: self.layers[number](v[x])

    def _conv(self, shapes, x):
        c, h, w = shapes[x]
        groups = c if self.draw(0, 4) == 0 else 1
        out = groups if groups > 1 else self.draw(1, 12)
        kernel = (1, 3, 3, 5, 2)[self.draw(0, 4)]
        stride, pad = self.draw(1, 2), self.draw(0, kernel // 2)
        if min(h, w) + 2 * pad < kernel:
            kernel, pad, stride = 1, 0, 1
        h, w = ((n + 2 * pad - kernel) // stride + 1 for n in (h, w))
        return self.layer(nn.Conv2d(c, out, kernel, stride, pad, groups=groups), x), (out, h, w)

    def _norm(self, shapes, x):
        return self.layer(nn.BatchNorm2d(shapes[x][0]), x), shapes[x]

    def _act(self, shapes, x):
        return self.layer((nn.ReLU(), nn.SiLU(), nn.GELU(), nn.ReLU6())[self.draw(0, 3)], x), shapes[x]

    def _pool(self, shapes, x):
        c, h, w = shapes[x]
        if min(h, w) < 4:
            return self._act(shapes, x)
        module = (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1, count_include_pad=False))[
            self.draw(0, 2)
        ]
        with torch.no_grad():
            return self.layer(module, x), tuple(module(torch.zeros(1, c, h, w)).shape[1:])

    def _add(self, shapes, x):
        same = [i for i, shape in enumerate(shapes) if shape == shapes[x]]
        other = same[self.draw(0, len(same) - 1)]
        return lambda v: v[x] + v[other], shapes[x]

    def _cat(self, shapes, x):
        same = [i for i, shape in enumerate(shapes) if shape[1:] == shapes[x][1:]]
        other = same[self.draw(0, len(same) - 1)]
        return lambda v: torch.cat([v[x], v[other]], 1), (shapes[x][0] + shapes[other][0], *shapes[x][1:])

    def _up(self, shapes, x):
        c, h, w = shapes[x]
        if h * w > 600:
            return self._act(shapes, x)
        return lambda v: F.interpolate(v[x], scale_factor=2.0), (c, 2 * h, 2 * w)

    def _split(self, shapes, x):
        c, h, w = shapes[x]
        if c < 2:
            return self._act(shapes, x)
        return lambda v: v[x].split([c // 2, c - c // 2], 1)[1], (c - c // 2, h, w)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [x]
        for step in self.steps:
            values.append(step(values))
        return values[-1], self.head(values[-1].mean((2, 3)))


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_random_networks_are_torchs(first):
    for seed in range(first, first + 6):
        check(seed)


def check(seed: int) -> None:
    torch.manual_seed(seed)
    model = sparse_(Drawn(seed), 0.4, seed)
    shape = tuple(int(n) for n in (3, *_size(seed)))
    runner = Runner(traced(model, torch.randn(1, *shape)), shape)
    for images in (1, 3, 16):
        x = torch.randn(images, *shape, generator=torch.Generator().manual_seed(seed))
        for got, wanted in zip(runner(x), exactly(model, x), strict=True):
            assert error(got, wanted) < ENOUGH, seed


def _size(seed: int) -> tuple[int, int]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(int(torch.randint(9, 25, (), generator=generator)) for _ in range(2))


def test_ten_threads_at_once_get_their_own_results():
    model = sparse_(zoo.lenet5(), 0.2)
    runner = Runner(traced(model, torch.randn(1, 1, 28, 28)), (1, 28, 28))
    inputs = [torch.randn(1 + 16 * (i % 12), 1, 28, 28) for i in range(60)]  # more sizes than programs are kept
    wanted = [runner(x) for x in inputs]
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(runner, inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_many_calls_take_no_more_memory():
    model = sparse_(zoo.lenet5(), 0.2)
    runner = Runner(traced(model, torch.randn(1, 1, 28, 28)), (1, 28, 28))
    x = torch.randn(1, 1, 28, 28)
    for _ in range(500):
        runner(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        runner(x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # kB
