"""What SiPP measures: a sensitivity for every weight, and the facts that its bounds and ties need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from sparsight.types import Masks, Params

Reduction = Literal["max", "mean"]

Silent = Callable[[Masks, Params | None], Mapping[str, Tensor]]
"""Where the gradient of each parameter is exactly zero, given masks and multipliers (see `unreached`)."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one tensor besides its sensitivities."""

    positive: Bool[Tensor, ...]  # whether the weight is > 0: which of its row's two groups it is in
    mean: Float[Tensor, ...]  # sensitivity, averaged over points and patches: the first key among ties
    size: Float[Tensor, ...]  # |w|: the second key
    patches: int  # P: patches of one point (1 in a linear layer)
    kernel: int  # kappa: weights of a filter for each input channel (1 in a linear layer)


class Sensitivities(dict[str, Tensor]):
    """Scores in [0, 1] by parameter name: an ordinary dictionary that carries `facts` for each of its tensors.

    `points` inputs were seen of the `wanted` that the formula asks for. `silent`, where asked for, tells which
    parameters no gradient would reach. A copy or a filtered dictionary is a plain one, without them.
    """

    def __init__(
        self,
        scores: Mapping[str, Tensor],
        facts: Mapping[str, Facts],
        *,
        reduction: Reduction,
        points: int,
        wanted: int,
        silent: Silent | None = None,
    ) -> None:
        super().__init__(scores)
        self.facts = dict(facts)
        self.reduction: Reduction = reduction
        self.points, self.wanted, self.silent = points, wanted, silent

    def saturated(self) -> int:
        """How many sensitivities are exactly 1: some point had no other active edge of their sign.

        They are equals: which of them stay is decided by the secondary keys.
        """
        return sum(int((score == 1).sum()) for score in self.values())

    def keys_of_rank(self) -> Iterator[Mapping[str, Tensor]]:
        """What weights are ranked by, first to last: sensitivity, mean sensitivity, size of the weight."""
        yield self
        yield {name: self.facts[name].mean for name in self}
        yield {name: self.facts[name].size for name in self}


__all__ = ["Facts", "Reduction", "Sensitivities", "Silent"]
