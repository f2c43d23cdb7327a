"""Exact selection by SiPP's keys: ties in the sensitivity are ranked by its mean, then by |w|."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sparsight.numerics.exact import exact
from sparsight.numerics.select import keep_largest
from sparsight.types import Masks, Scored, Scores


def ranking_keys(scores: Scores) -> Sequence[Scores]:
    """The keys of the ranking: sensitivity, mean sensitivity, |w|; only the scores for another scorer."""
    facts = scores.facts if isinstance(scores, Scored) else {}
    if not facts:
        return (scores,)
    return scores, {name: known.mean for name, known in facts.items()}, {n: known.size for n, known in facts.items()}


def keep_ranked(scores: Scores, masks: Masks, count: int, *, min_keep: int = 0) -> dict[str, Tensor]:
    """Keep the `count` alive weights that come first by `ranking_keys`, over all tensors: higher first, key by key.

    Weights that are equal in every key are ordered as in `keep_largest`: the lower index is pruned first. The first
    `min_keep` weights of every tensor are always kept. Raises: as `keep_largest`.
    """
    keys = ranking_keys(scores)
    if min_keep == 0:
        return _by_keys(keys, masks, count)
    aside = {}
    for name, mask in masks.items():
        alone, own = [{name: key[name]} for key in keys], {name: mask}
        aside |= _by_keys(alone, own, min(min_keep, int(mask.sum())))
    rest = count - sum(int(mask.sum()) for mask in aside.values())
    if rest < 0:
        keep_largest(scores, masks, count, min_keep=min_keep)  # raises
    others = _by_keys(keys, {name: masks[name] & ~aside[name] for name in masks}, rest)
    return {name: aside[name] | others[name] for name in masks}


def _by_keys(keys: Sequence[Scores], masks: Masks, count: int) -> dict[str, Tensor]:
    first, *rest = keys
    kept, _ = keep_largest(first, masks, count)
    least = [exact(first[name][mask].min()) for name, mask in kept.items() if bool(mask.any())]
    if not rest or not least:
        return kept
    edge = float(torch.stack([value.cpu() for value in least]).min())
    tied = {name: masks[name] & (first[name] == edge) for name in masks}
    if all(bool((kept[name] | ~tied[name]).all()) for name in masks):
        return kept
    sure = {name: kept[name] & ~tied[name] for name in masks}
    missing = count - sum(int(mask.sum()) for mask in sure.values())
    chosen = _by_keys(rest, tied, missing)
    return {name: sure[name] | chosen[name] for name in masks}


def keep_ranked_rows(scores: Scores, masks: Masks, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same inside each output row: `counts` are int64 tensors with a count for each row (dimension 0)."""
    return _by_keys_in_rows(ranking_keys(scores), masks, counts)


def _by_keys_in_rows(keys: Sequence[Scores], masks: Masks, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first, *rest = keys
    kept, _ = keep_largest(first, masks, dict(counts), scope="neuron")
    if not rest:
        return kept
    tied, sure, missing = {}, {}, {}
    for name, mask in masks.items():
        score = first[name].reshape(len(mask), -1)
        inside = kept[name].reshape(len(mask), -1)
        edge = torch.where(inside, score, torch.inf).amin(1, keepdim=True)
        tied[name] = mask & (score == edge).reshape(mask.shape)
        sure[name] = kept[name] & ~tied[name]
        missing[name] = (kept[name] & tied[name]).reshape(len(mask), -1).sum(1)
    if all(bool((kept[name] | ~tied[name]).all()) for name in masks):
        return kept
    chosen = _by_keys_in_rows(rest, tied, missing)
    return {name: sure[name] | chosen[name] for name in masks}
