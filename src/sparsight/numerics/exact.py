"""Numbers in float64, on devices that have no such type too: Apple's GPUs."""

from __future__ import annotations

import torch
from torch import Tensor


def home(device: torch.device) -> torch.device:
    """Where float64 numbers of a device live: there, or on the CPU if it has none."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except TypeError:  # what torch raises for a type that the device lacks
        return torch.device("cpu")
    return device


def exact(x: Tensor) -> Tensor:
    """`x` in float64, at `home`. As `x.to(torch.float64)`: `x` itself if it is that already."""
    return at_home(x).to(torch.float64)


def at_home(x: Tensor) -> Tensor:
    """`x` as it is, at `home`: for what computes in float64 along the way."""
    return x.to(home(x.device))
