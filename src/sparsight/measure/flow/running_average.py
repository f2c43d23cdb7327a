"""Gradient flow at no cost: an average of the gradients that training computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sparsight.numerics.exact import exact


@dataclass(frozen=True, eq=False)
class GradientAverage:
    """The exponential average of gradient norms over `steps` training steps, one number per tensor."""

    names: tuple[str, ...]
    total: Float64[Tensor, " tensors"]  # (1 - decay) sum_t decay^(T - t) norm_t, where the gradients are
    steps: int
    decay: float

    @property
    def values(self) -> Float64[Tensor, " tensors"]:
        """The average, total / (1 - decay^steps), on the CPU: its weights sum to 1 from the first step on."""
        return self.total.cpu() / (1.0 - self.decay**self.steps)

    @property
    def by_name(self) -> dict[str, float]:
        """The average of each tensor."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def state(self) -> dict[str, Tensor]:
        """The state to store for a resume: GradientAverage(names, state["total"], int(state["steps"]), decay)."""
        return {"total": self.total.clone(), "steps": torch.tensor(self.steps)}


def gf_ema(
    grads: Mapping[str, Tensor | None], previous: GradientAverage | None = None, *, decay: float = 0.98
) -> GradientAverage:
    """The average after another training step: total = decay total + (1 - decay) ||g||_F, for each tensor.

    `grads` are the gradients of the step by name, after masking and before clipping. None counts as 0. Nothing is read
    back from the device. Noisier and larger than `gradient_flow`: these are gradients of batches in train mode, while
    the weights change. Averages over about 1 / (1 - decay) steps.
    Raises: ValueError for decay outside [0, 1), for other names than before, or without gradients.
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    names = tuple(grads)
    given = {name: g.detach() for name, g in grads.items() if g is not None}
    if not given:
        raise ValueError(f"gf_ema needs at least one gradient, got none of {len(names)}")
    norms = torch._foreach_norm(list(given.values()))
    if len(given) < len(names):
        found = dict(zip(given, norms, strict=True))
        norms = [found.get(name, norms[0].new_zeros(())) for name in names]
    return averaged(names, exact(torch.stack(list(norms))), previous, decay)


def averaged(
    names: tuple[str, ...], norms: Float64[Tensor, " tensors"], previous: GradientAverage | None, decay: float = 0.98
) -> GradientAverage:
    """`gf_ema` for known norms."""
    if previous is None:
        return GradientAverage(names, norms * (1.0 - decay), 1, decay)
    if (previous.names, previous.decay) != (names, decay):
        raise ValueError(
            f"an average of {previous.names} with decay {previous.decay} cannot continue with {names} and {decay}"
        )
    return GradientAverage(names, previous.total.to(norms.device).lerp(norms, 1.0 - decay), previous.steps + 1, decay)
