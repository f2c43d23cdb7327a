"""Arithmetic on counts for allocators: rounding, floors, proportional division."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal

import torch
from torch import Tensor

from sparsight.numerics.checks import check_fraction
from sparsight.types import Masks, Scope


def check_target(target_density: float | None, exact: bool) -> None:
    """Raise ValueError for a target outside [0, 1], or `exact` without one."""
    if target_density is not None:
        check_fraction(target_density=target_density)
    elif exact:
        raise ValueError("exact needs a target_density")


def share(density: float, total: int) -> int:
    """density x total, rounded half up in decimal arithmetic: 0.145 of 100 is 15."""
    return int((Decimal(repr(float(density))) * total).to_integral_value(ROUND_HALF_UP))


def alive(masks: Masks, scope: Scope) -> dict[str, int]:
    """Alive weights of every group of the scope, by group name, in order."""
    if scope == "global":
        return {"global": sum(int(mask.sum()) for mask in masks.values())}
    if scope == "layer":
        return {name: int(mask.sum()) for name, mask in masks.items()}
    return {
        f"{name}[{row}]": count
        for name, mask in masks.items()
        for row, count in enumerate(mask.reshape(len(mask), math.prod(mask.shape[1:])).sum(1).tolist())
    }


def with_floor(alive: Mapping[str, int], removed: Mapping[str, int], min_keep: int) -> dict[str, int]:
    """The counts to remove, adjusted to keep at least min(min_keep, alive) in every group; the total stays exact.

    Weights that the floor keeps are taken from the groups that keep most, one at a time (the first group among equals).
    Raises: ValueError if the groups have too few weights above the floor.
    """
    removable = {name: max(0, count - min_keep) for name, count in alive.items()}
    after = {name: min(removed[name], removable[name]) for name in alive}
    missing = sum(removed.values()) - sum(after.values())
    if not missing:
        return after
    if sum(removable.values()) < sum(removed.values()):
        raise ValueError(
            f"cannot remove {sum(removed.values()):,} of {sum(alive.values()):,} alive weights and keep at least "
            f"{min_keep:,} in each of {len(alive):,} groups, which allow at most {sum(removable.values()):,}: lower "
            "min_keep or raise the density"
        )
    left = {name: alive[name] - count for name, count in after.items()}

    def above(level: int) -> int:
        return sum(max(0, count - level) for count in left.values())

    levels = range(min_keep, max(left.values()) + 1)
    level = levels[bisect_left(levels, -missing, key=lambda level: -above(level))]
    last = {*[name for name, count in left.items() if count >= level][: missing - above(level)]}
    return {name: alive[name] - min(count, level) + (name in last) for name, count in left.items()}


def room(masks: Masks, scope: Scope, min_keep: int) -> int:
    """Alive weights above the floor of min(min_keep, alive) in every tensor, or row in neuron scope."""
    counts = alive(masks, "neuron" if scope == "neuron" else "layer").values()
    return sum(count - min(min_keep, count) for count in counts)


def at_most(removed: Mapping[str, int], limit: int) -> dict[str, int]:
    """Scale counts down in proportion to a total of `limit`, by largest remainder (the first group among equals)."""
    total = sum(removed.values())
    if total <= limit:
        return dict(removed)
    limit = max(limit, 0)
    after = {name: count * limit // total for name, count in removed.items()}
    rest = sorted(removed, key=lambda name: -(removed[name] * limit % total))
    for name in rest[: limit - sum(after.values())]:
        after[name] += 1
    return after


def for_selection(removed: Mapping[str, int], masks: Masks, scope: Scope) -> int | dict[str, int] | dict[str, Tensor]:
    """Counts by group name in the form that `prune_smallest` expects for the scope."""
    if scope == "global":
        return removed["global"]
    if scope == "layer":
        return dict(removed)
    return {
        name: torch.tensor([removed[f"{name}[{row}]"] for row in range(mask.shape[0])], dtype=torch.int64)
        for name, mask in masks.items()
    }
