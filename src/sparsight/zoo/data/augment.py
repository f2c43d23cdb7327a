"""Random augmentation of training images, a batch at a time, for `Split.augment`.

Draws on the generator's device: a seed gives the same images on every device.
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
    """Mirror each image horizontally with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_fraction(probability=self.probability)

    def __call__(self, x: Images, generator: Generator) -> Images:
        chance = torch.rand(len(x), generator=generator, device=generator.device)
        flip = (chance < self.probability).to(x.device)
        return torch.where(flip[:, None, None, None], x.flip(-1), x)


@dataclass(frozen=True)
class Crop:
    """Pad every side by `padding`, then cut out a random window of the original size from each image.

    "reflect" (as in the paper) mirrors the image at its border, "replicate" repeats the border, "constant" fills with
    0, the mean of normalised images. Reflection needs sides longer than `padding`.
    """

    padding: int = 4
    mode: Literal["reflect", "replicate", "constant"] = "reflect"

    def __post_init__(self) -> None:
        check_whole(0, padding=self.padding)

    def __call__(self, x: Images, generator: Generator) -> Images:
        n, _, height, width = x.shape
        if self.mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(f"padding must be less than the sides of {height}×{width} images, got {self.padding}")
        offsets = torch.randint(2 * self.padding + 1, (2, n), generator=generator, device=generator.device).to(x.device)
        padded = F.pad(x, (self.padding,) * 4, mode=self.mode)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: n, channels, top, left, height, width
        return windows[torch.arange(n, device=x.device), :, offsets[0], offsets[1]]


@dataclass(frozen=True)
class Chain:
    """Apply steps in order, with the same generator."""

    steps: tuple[Callable[[Tensor, Generator], Tensor], ...]

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        for step in self.steps:
            x = step(x, generator)
        return x
