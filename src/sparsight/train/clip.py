"""Clipping of gradients by their norm, without torch's bookkeeping where there is nothing to keep books on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_


def clip_(parameters: Sequence[nn.Parameter], limit: float, norm: float | None = None) -> None:
    """Scale all gradients by min(1, limit / (norm + 1e-6)), with norm that of all of them as one vector.

    With a `norm` that is known already, only the scaling is done, and nothing where nothing is to be scaled; without
    one, it is `torch.nn.utils.clip_grad_norm_`. Parameters without a gradient are passed over; a NaN makes all
    gradients NaN.
    """
    if norm is None:
        clip_grad_norm_(parameters, limit)
        return
    factor = limit / (norm + 1e-6)
    if not factor >= 1:  # NaN goes on
        with torch.no_grad():
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
