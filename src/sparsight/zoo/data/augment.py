"""Random changes of training images, as tensor code over a whole batch.

Each is a frozen dataclass called as `augment(x, generator)`, which is what `Split.augment` wants. Numbers are
drawn on the generator's device and then moved, so that one seed gives the same images on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Generator, Tensor
from torch.nn import functional as F

from sparsight.numerics.checks import check_fraction, check_whole

Images = Shaped[Tensor, "n channels height width"]


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, each image with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(probability=self.probability)

    def __call__(self, x: Images, generator: Generator) -> Images:
        chance = torch.rand(len(x), generator=generator, device=generator.device)
        flip = (chance < self.probability).to(x.device)
        return torch.where(flip[:, None, None, None], x.flip(-1), x)


@dataclass(frozen=True)
class Crop:
    """Pad every side by `padding`, then cut out a window of the old size, anywhere, for each image alone.

    "reflect" (the paper's) mirrors the image at its border, "replicate" repeats the border, "constant" fills
    with 0, which is the mean where images are normalised. Reflection needs sides of more than `padding`.
    """

    padding: int = 4
    mode: Literal["reflect", "replicate", "constant"] = "reflect"

    def __post_init__(self) -> None:
        check_whole(0, padding=self.padding)

    def __call__(self, x: Images, generator: Generator) -> Images:
        n, _, height, width = x.shape
        if self.mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(f"cannot reflect {self.padding} pixels of {height}x{width} images: expected fewer")
        offsets = torch.randint(2 * self.padding + 1, (2, n), generator=generator, device=generator.device).to(x.device)
        padded = F.pad(x, (self.padding,) * 4, mode=self.mode)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: n, channels, top, left, height, width
        return windows[torch.arange(n, device=x.device), :, offsets[0], offsets[1]]


@dataclass(frozen=True)
class Chain:
    """One after the other, drawing from the same generator."""

    steps: tuple[Callable[[Tensor, Generator], Tensor], ...]

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x
