"""What SiPP measures beside a sensitivity for every weight: the facts that its bounds and ties need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, overload

from jaxtyping import Bool, Float
from torch import Tensor

from sparsight.pruning.allocate.in_groups import Rows
from sparsight.types import Scored, Scores

Reduction = Literal["max", "mean"]


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of one tensor besides its sensitivities: an entry of `Scored.facts`."""

    positive: Bool[Tensor, ...]  # whether the weight is > 0: which of its row's two groups it is in
    mean: Float[Tensor, ...]  # sensitivity, averaged over points and patches: the first key among ties
    size: Float[Tensor, ...]  # |w|: the second key
    patches: int  # P: patches of one point (1 in a linear layer)
    kernel: int  # kappa: weights of a filter for each input channel (1 in a linear layer)


def facts_of(scores: Scores, name: str) -> Facts | None:
    """What SiPP's scorer knows of a tensor; None for the scores of any other scorer."""
    return scores.facts.get(name) if isinstance(scores, Scored) else None


@overload
def by_rows(scores: Scored, rows: Rows) -> Scored: ...
@overload
def by_rows(scores: Scores, rows: Rows) -> Scores: ...
def by_rows(scores: Scores, rows: Rows) -> Scores:
    """The scores, and what is known besides, with output units along dimension 0."""
    if not isinstance(scores, Scored):
        return rows.of(scores)
    facts = {}
    for name, known in scores.facts.items():
        own = {part: rows.of({name: getattr(known, part)})[name] for part in ("positive", "mean", "size")}
        facts[name] = replace(known, **own)
    return replace(scores, scores=rows.of(scores), facts=facts)


def saturated(scores: Scores) -> int:
    """How many sensitivities are exactly 1: some point had no other active edge of their sign.

    They are equals: which of them stay is decided by the secondary keys.
    """
    return sum(int((score == 1).sum()) for score in scores.values())


def ranking_keys(scores: Scores) -> Sequence[Scores]:
    """What weights are ranked by: sensitivity, mean sensitivity, size of the weight; or the scores alone."""
    facts = {name: known for name in scores if (known := facts_of(scores, name))}
    if not facts:
        return (scores,)
    return scores, {name: known.mean for name, known in facts.items()}, {n: known.size for n, known in facts.items()}
