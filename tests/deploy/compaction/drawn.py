"""Networks drawn at random: sums, products, concatenations, groups, BatchNorm, paddings, pooling, linear layers."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8


class Drawn(nn.Module):
    """A few blocks drawn from a seed, then pixels flattened or averaged, then one or two linear layers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = draw = random.Random(seed)
        self.layers, self.plan = nn.ModuleList(), []
        widths = [draw.choice([2, 3])]
        self.inputs, sides = widths[0], SIDE
        for _ in range(draw.randint(2, 6)):
            kind = draw.choice(["conv", "conv", "conv", "sum", "grouped", "concat", "pool", "gate", "up"])
            width = widths[-1]
            if kind == "pool" and sides >= 4:
                self.plan.append(("pool", draw.choice(["max", "avg", "padded", "unpadded"])))
                sides = sides // 2 if self.plan[-1][1] in ("max", "avg") else (sides + 1) // 2
            elif kind == "up" and sides <= 8:
                sides *= 2
                self.plan.append(("up", ""))
            elif kind == "conv":
                width = draw.choice([2, 4, 6, 8])
                sides = self.conv(widths[-1], width, sides)
            elif kind == "grouped" and width > 1:
                groups = draw.choice([width, 2 if width % 2 == 0 else width])
                sides = self.conv(width, width * draw.choice([1, 2]), sides, groups)
                width = next(m for m in reversed(self.layers) if isinstance(m, nn.Conv2d)).out_channels
            elif kind in ("sum", "gate", "concat"):
                self.plan.append(("begin", ""))
                self.conv(width, width if kind != "concat" else draw.choice([2, 4]), sides, same=True)
                out = next(m for m in reversed(self.layers) if isinstance(m, nn.Conv2d)).out_channels
                self.plan.append((kind, ""))
                width += out if kind == "concat" else 0
            widths.append(width)
        self.flat = draw.choice([True, False])
        last = widths[-1] * (sides * sides if self.flat else 1)
        hidden = draw.choice([0, 5])
        self.hidden = nn.Linear(last, hidden, bias=draw.choice([True, False])) if hidden else None
        self.head = nn.Linear(hidden or last, 3)
        self.heads = draw.choice([True, False])  # whether features are an output too
        self.prune(seed)

    def conv(self, inputs: int, outputs: int, sides: int, groups: int = 1, same: bool = False) -> int:
        draw = self.draw
        kernel = draw.choice([1, 3]) if sides >= 3 else 1
        pad = kernel // 2 if same or sides < 5 else draw.choice([0, kernel // 2, 1])
        mode = draw.choice(["zeros", "zeros", "circular", "reflect"]) if pad < sides else "zeros"
        made = nn.Conv2d(
            inputs, outputs, kernel, 1, pad, groups=groups, bias=draw.choice([True, False]), padding_mode=mode
        )
        self.layers.append(made)
        self.plan.append(("layer", len(self.layers) - 1))
        if draw.random() < 0.5:
            self.layers.append(nn.BatchNorm2d(outputs))
            self.plan.append(("layer", len(self.layers) - 1))
        self.plan.append(("act", draw.choice(["relu", "relu_", "silu", "sigmoid", "hardtanh", "leaky_relu", "none"])))
        return sides + 2 * pad - kernel + 1

    def prune(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        density = self.draw.choice([0.02, 0.1, 0.2, 0.4])
        with torch.no_grad():
            for p in [*self.parameters(), *(b for b in self.buffers() if b.is_floating_point())]:
                if p.dim() > 1:
                    p.copy_(torch.randn(p.shape, generator=g) * (torch.rand(p.shape, generator=g) < density))
                else:
                    p.copy_(torch.rand(p.shape, generator=g) + 0.2)
            for name, p in self.named_parameters():
                if name.endswith("bias"):
                    p.copy_((torch.randn(p.shape, generator=g)) * (torch.rand(p.shape, generator=g) < 0.6))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        before = x
        for kind, what in self.plan:
            if kind == "layer":
                x = self.layers[what](x)
            elif kind == "act":
                x = x if what == "none" else F.relu(x, inplace=True) if what == "relu_" else getattr(F, what)(x)
            elif kind == "begin":
                before = x.clone()
            elif kind == "up":
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            elif kind == "pool":
                x = (
                    F.max_pool2d(x, 2) if what == "max" else F.avg_pool2d(x, 2) if what == "avg" else
                    F.avg_pool2d(x, 3, 2, 1, count_include_pad=what == "padded")
                )  # fmt: skip
            else:
                x = before + x if kind == "sum" else before * x if kind == "gate" else torch.cat([before, x], 1)
        features = x
        x = x.flatten(1) if self.flat else F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = self.head(x if self.hidden is None else F.relu(self.hidden(x)))
        return (x, features.mean((2, 3))) if self.heads else x
