"""Turns counts per group into masks: the floor, the exact selection, and their records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sparsight.numerics.select import prune_smallest
from sparsight.pruning.allocate.counts import at_most, for_selection, room, share, with_floor
from sparsight.types import Allocation, GroupRecord, Masks, Scope, Scores


def toward(
    groups: Mapping[str, GroupRecord],
    masks: Masks,
    scope: Scope,
    min_keep: int,
    target_density: float | None,
    exact: bool,
) -> dict[str, GroupRecord]:
    """The groups with counts that respect `target_density` (of all prunable weights, rounded half up) and the floor.

    Counts that exceed either are scaled down in proportion. With `exact`, counts that miss the target are raised to
    meet it, by scaling down the kept weights of every group in proportion.
    """
    counts = {name: group.c for name, group in groups.items()}
    if target_density is not None:
        keep = share(target_density, sum(mask.numel() for mask in masks.values()))
        left = {name: group.d - group.c for name, group in groups.items()}
        if exact and sum(left.values()) > keep:
            counts = {name: groups[name].d - count for name, count in at_most(left, keep).items()}
        else:
            counts = at_most(counts, sum(group.d for group in groups.values()) - keep)
    limited = at_most(counts, room(masks, scope, min_keep))
    return {
        name: dataclasses.replace(group, c=limited[name], floor_bound=limited[name] != counts[name])
        for name, group in groups.items()
    }


def prune_exactly(
    scores: Scores, masks: Masks, groups: Mapping[str, GroupRecord], scope: Scope, min_keep: int
) -> Allocation:
    """Remove `groups[name].c` of the alive weights of every group, smallest scores first, above the floor.

    Raises: ValueError if too few weights are above the floor; `toward` adjusts counts to avoid that.
    """
    wanted = {name: group.c for name, group in groups.items()}
    floors: tuple[str, ...] = ()
    removed = wanted
    if scope != "global":
        removed = with_floor({name: group.d for name, group in groups.items()}, wanted, min_keep)
        floors = tuple(name for name, group in groups.items() if group.d - wanted[name] < min(min_keep, group.d))
    counts = for_selection(removed, masks, scope)
    after, bound = prune_smallest(scores, masks, counts, scope=scope, min_keep=min_keep if scope == "global" else 0)
    floors = floors or tuple(bound)
    recorded = tuple(
        dataclasses.replace(
            group, c=removed[name], floor_bound=group.floor_bound or removed[name] != wanted[name] or name in floors
        )
        for name, group in groups.items()
    )
    return Allocation(masks=after, groups=recorded, floors=floors)
