"""Fourteen reproducible corruptions of images, at five severities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from sparsight.numerics.checks import check_known
from sparsight.numerics.seeds import derive

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 28
"""Lengths below are in pixels of an image with a shorter side of 28; they scale with the image."""

_BLOCK = 500  # images that share a generator

Change = Callable[[Tensor, float, Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A function of images in [0, 1], and its strength at each severity."""

    change: Change
    amounts: tuple[float, float, float, float, float]


def corrupt(images: Tensor, name: str, severity: int) -> Tensor:
    """The images [N, C, H, W], in [0, 1], with corruption `name` of `CORRUPTIONS` at severity 1 to 5.

    Equal calls give equal images on every device: random numbers are drawn on the CPU and depend only on the name, the
    severity and the position in the batch. Rotated and translated images have black borders. Raises: ValueError for an
    unknown name or severity, or for anything but a batch of images.
    Source: severities of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations", ICLR 2019, for small images (CIFAR-10-C), and of Mu and Gilmer, "MNIST-C", 2019, for speckle noise
    and geometry; defocus and motion blur are ours.
    """
    check_known(tuple(CORRUPTIONS), corruption=name)
    check_known(SEVERITIES, severity=severity)
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(f"corruptions need images [N, C, H, W] of floats, got {images.dtype} {tuple(images.shape)}")
    corruption = CORRUPTIONS[name]
    amount = corruption.amounts[severity - 1]
    parts = []
    for start in range(0, len(images), _BLOCK):
        generator = Generator().manual_seed(derive(0, name, severity, start))
        block = images[start : start + _BLOCK].detach().cpu().float()
        parts.append(corruption.change(block, amount, generator).clamp(0, 1))
    return torch.cat(parts).to(images) if parts else images.clone()


def _scale(x: Tensor) -> float:
    return min(x.shape[-2:]) / SIDE


def impulse_noise(x: Tensor, share: float, generator: Generator) -> Tensor:
    """A share of all values becomes 0 or 1, half of them each value."""
    drawn = torch.rand(x.shape, generator=generator)
    return torch.where(drawn < share / 2, 0.0, torch.where(drawn > 1 - share / 2, 1.0, x))


# -- blur ----------------------------------------------------------------------------------------------------------


def gaussian_blur(x: Tensor, deviation: float, generator: Generator) -> Tensor:
    """Convolution with a Gaussian, cut off at 4 deviations; edges are repeated."""
    deviation *= _scale(x)
    places = torch.arange(-(reach := max(1, math.ceil(4 * deviation))), reach + 1)
    weights = torch.exp(-places.double().square() / (2 * deviation**2)).float()
    weights /= weights.sum()
    return _filtered(_filtered(x, weights[None, :]), weights[:, None])


def defocus_blur(x: Tensor, radius: float, generator: Generator) -> Tensor:
    """Convolution with a disk; a pixel on its edge counts by the share inside, sampled at 9 by 9 points."""
    radius *= _scale(x)
    reach = math.ceil(radius + 0.5)
    points = (torch.arange((2 * reach + 1) * 9) + 0.5) / 9 - reach - 0.5
    inside = (points[:, None].square() + points[None, :].square() <= radius**2).float()
    disk = inside.reshape(2 * reach + 1, 9, 2 * reach + 1, 9).sum((1, 3))
    return _filtered(x, disk / disk.sum())


def motion_blur(x: Tensor, length: float, generator: Generator) -> Tensor:
    """The mean along a line through each pixel, at a random angle of up to 45 degrees per image."""
    n, length = len(x), length * _scale(x)
    angles = (torch.rand(n, generator=generator) - 0.5) * math.pi / 2
    moved = torch.zeros_like(x)
    steps = 2 * math.ceil(length) + 1
    for step in range(steps):
        along = length * (step / (steps - 1) - 0.5)
        moved += _warped(x, _still(n), torch.stack([along * angles.cos(), along * angles.sin()], 1), edge="border")
    return moved / steps


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    high, wide = (size // 2 for size in kernel.shape)
    padded = functional.pad(x, (wide, wide, high, high), mode="replicate")
    flat = padded.reshape(-1, 1, *padded.shape[-2:])
    return functional.conv2d(flat, kernel[None, None]).reshape(x.shape)


def pixelate(x: Tensor, factor: float, generator: Generator) -> Tensor:
    """Averages over larger pixels, `factor` times as many along each side."""
    high, wide = (max(1, round(factor * side)) for side in x.shape[-2:])
    return functional.interpolate(functional.adaptive_avg_pool2d(x, (high, wide)), x.shape[-2:], mode="nearest-exact")


# -- geometry ------------------------------------------------------------------------------------------------------


def rotation(x: Tensor, angle: float, generator: Generator) -> Tensor:
    """Rotated about the centre by `angle` radians, in a random direction per image."""
    angles = angle * _signs(len(x), generator)
    turned = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], 1).reshape(-1, 2, 2)
    return _warped(x, turned, torch.zeros(len(x), 2))


def scaling(x: Tensor, factor: float, generator: Generator) -> Tensor:
    """Shrunk by `factor` about the centre."""
    return _warped(x, _still(len(x)) / factor, torch.zeros(len(x), 2))


def translation(x: Tensor, pixels: float, generator: Generator) -> Tensor:
    """Moved by this many pixels along both sides, in random directions per image."""
    signs = torch.stack([_signs(len(x), generator), _signs(len(x), generator)], 1)
    return _warped(x, _still(len(x)), pixels * _scale(x) * signs)


def _signs(n: int, generator: Generator) -> Tensor:
    return 2.0 * (torch.rand(n, generator=generator) < 0.5) - 1


def _still(n: int) -> Tensor:
    return torch.eye(2).repeat(n, 1, 1)


def _warped(x: Tensor, matrix: Tensor, shift: Tensor, edge: str = "zeros") -> Tensor:
    """Images with the value of x at (matrix v - shift), for v = (column, row) in pixels from the centre; bilinear."""
    high, wide = x.shape[-2:]
    half = torch.tensor([wide, high]) / 2
    theta = torch.cat([matrix * half[None, None, :] / half[None, :, None], -(shift / half)[:, :, None]], 2)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode=edge, align_corners=False)


CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(
        lambda x, deviation, generator: x + deviation * torch.randn(x.shape, generator=generator),
        (0.04, 0.06, 0.08, 0.09, 0.10),
    ),
    "shot_noise": Corruption(
        lambda x, photons, generator: torch.poisson(x * photons, generator=generator) / photons, (500, 250, 100, 75, 50)
    ),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": Corruption(
        lambda x, deviation, generator: x * (1 + deviation * torch.randn(x.shape, generator=generator)),
        (0.15, 0.2, 0.35, 0.45, 0.6),
    ),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": Corruption(defocus_blur, (0.75, 1.0, 1.25, 1.5, 2.0)),
    "motion_blur": Corruption(motion_blur, (3, 5, 7, 9, 11)),
    "contrast": Corruption(
        lambda x, factor, _: factor * x + (1 - factor) * x.mean((2, 3), keepdim=True), (0.75, 0.5, 0.4, 0.3, 0.15)
    ),
    "brightness": Corruption(lambda x, more, _: x + more, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "quantize": Corruption(lambda x, bits, _: (x * (2**bits - 1)).round() / (2**bits - 1), (5, 4, 3, 2, 1)),
    "rotation": Corruption(rotation, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "scaling": Corruption(scaling, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "translation": Corruption(translation, (1, 2, 3, 4, 5)),
}
