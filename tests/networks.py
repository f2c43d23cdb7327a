"""Networks of the shapes people have, and what they compute in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sparse_(model: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, weights drawn and pruned to about a density, with BatchNorm that does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < density)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def exactly(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Its outputs computed in float64."""
    with torch.no_grad():
        found = model.double()(*(x.double() for x in inputs))
        model.float()
    return list(found) if isinstance(found, tuple) else [found]


def error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest output."""
    if not wanted.numel():
        return 0.0
    return float((got.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


class Detector(nn.Module):
    """SiLU, sums after activations, max pooling without a stride, upsampling, concatenation, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.b, self.c = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.pool, self.d = nn.MaxPool2d(5, 1, 2), nn.Conv2d(48, 8, 1)
        self.e, self.before = nn.Conv2d(16, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = F.silu(self.norm(self.a(x)))
        b = a + F.silu(self.b(a))
        c = F.silu(self.c(b))
        up = F.interpolate(self.pool(c), scale_factor=2.0, mode="nearest")
        d = self.d(torch.cat([up, b, a], 1))
        return self.before(d) + F.avg_pool2d(self.e(b), 3, 1, 1, count_include_pad=False), F.relu6(c)


class Inverted(nn.Module):
    """MobileNet's block: widen, depthwise, narrow, with a sum."""

    def __init__(self, channels: int = 8, classes: int = 5) -> None:
        super().__init__()
        wide = 4 * channels
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.stem(x), 0.0, 6.0)
        return self.head(F.adaptive_avg_pool2d(x + self.body(x), 1).flatten(1))


class Bottlenecks(nn.Module):
    """ResNet-50's blocks: narrow, 3 x 3, widen, with a sum, the first with a convolution on the way around."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.around = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
        self.first, self.second, self.head = self._block(16, 2), self._block(32, 1), nn.Linear(32, 7)

    def _block(self, inputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.first(x) + self.around(x))
        return self.head(F.relu(self.second(x) + x).mean((2, 3)))


class Several(nn.Module):
    """Whole numbers and a second input in, an LSTM, a linear head, two outputs, one of them of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(20, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head(self.lstm(self.embedding(tokens))[0] * weight)
        return out, out.argmax(-1)
