"""What SiPP records besides sensitivities, for its bounds and for ties."""

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
    """Facts about a tensor besides its sensitivities: an entry of `Scored.facts`."""

    positive: Bool[Tensor, ...]  # whether the weight is > 0: its group in the row
    mean: Float[Tensor, ...]  # mean sensitivity over points and patches: the first key for ties
    size: Float[Tensor, ...]  # |w|: the second key
    patches: int  # P: patches per point (1 in a linear layer)
    kernel: int  # kappa: weights per filter and input channel (1 in a linear layer)


def facts_of(scores: Scores, name: str) -> Facts | None:
    """The facts about a tensor; None for scores of another scorer."""
    return scores.facts.get(name) if isinstance(scores, Scored) else None


@overload
def by_rows(scores: Scored, rows: Rows) -> Scored: ...
@overload
def by_rows(scores: Scores, rows: Rows) -> Scores: ...
def by_rows(scores: Scores, rows: Rows) -> Scores:
    """The scores and facts with output units along dimension 0."""
    if not isinstance(scores, Scored):
        return rows.of(scores)
    facts = {}
    for name, known in scores.facts.items():
        own = {part: rows.of({name: getattr(known, part)})[name] for part in ("positive", "mean", "size")}
        facts[name] = replace(known, **own)
    return replace(scores, scores=rows.of(scores), facts=facts)


def saturated(scores: Scores) -> int:
    """The number of sensitivities that are exactly 1, because some point had no other active edge of their sign."""
    return sum(int((score == 1).sum()) for score in scores.values())


def ranking_keys(scores: Scores) -> Sequence[Scores]:
    """The keys of the ranking: sensitivity, mean sensitivity, |w|; only the scores for another scorer."""
    facts = {name: known for name in scores if (known := facts_of(scores, name))}
    if not facts:
        return (scores,)
    return scores, {name: known.mean for name, known in facts.items()}, {n: known.size for n, known in facts.items()}
