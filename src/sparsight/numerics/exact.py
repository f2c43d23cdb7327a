"""float64 numbers, also for devices without that type, such as Apple's GPUs."""

from __future__ import annotations

import torch
from torch import Tensor


def home(device: torch.device) -> torch.device:
    """The device for float64 numbers: `device` itself, or the CPU if it lacks float64."""
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except TypeError:  # the device lacks float64
        return torch.device("cpu")
    return device


def exact(x: Tensor) -> Tensor:
    """`x` in float64, on `home`; `x` itself if it already is."""
    return at_home(x).to(torch.float64)


def at_home(x: Tensor) -> Tensor:
    """`x` on `home`, for computations in float64."""
    return x.to(home(x.device))
