"""Running averages of a network's weights, recognised by their names and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sparsight.checkpoint.entry import Entry

_AVERAGE = re.compile(r"(^|_)(ema|swa|shadow|avg|averaged?|polyak)(?!_?pool)(_|\d|$)", re.I)
_MOST_GROUPS = 100  # averages that a file may hold: each is compared with all its networks
_DEEPEST = 3  # components of a name that may say so: what lies deeper, or below a number, is a layer of the network


def averages(entries: Sequence[Entry]) -> dict[str, str]:
    """The tensors of running averages by name, and the tensors that they average."""
    counted = {e.name.removesuffix(".n_averaged") for e in entries if e.name.endswith(".n_averaged")}
    groups: dict[str, list[Entry]] = defaultdict(list)
    networks = []
    for entry in entries:
        prefix = _prefix(entry.name, counted)
        (networks if prefix is None else groups[prefix]).append(entry)
    found: dict[str, str] = {}
    if not 0 < len(groups) <= _MOST_GROUPS:
        return found
    others = _others(networks)
    for prefix, group in groups.items():
        of = _averaged(prefix, group, others)
        if of is not None:
            found |= dict.fromkeys((e.name for e in group), of)
    return found


def _prefix(name: str, counted: set[str]) -> str | None:
    """The part of a name up to the first component that says "average"."""
    parts = name.split(".")
    for i in range(min(len(parts) - 1, _DEEPEST)):
        if parts[i].isdecimal():
            return None
        if _AVERAGE.search(parts[i]) or (counted and ".".join(parts[: i + 1]) in counted):
            return ".".join(parts[: i + 1])
    return None


class _Others(NamedTuple):
    """What groups are compared with: shapes by name, by name without dots, and in their order."""

    shapes: dict[str, tuple[int, ...]]
    dotted: list[str]  # the names, each after a dot
    squashed: dict[str, tuple[int, ...]]  # as buffers must be called, with the first component and without
    order: list[tuple[int, ...]]


def _others(networks: Sequence[Entry]) -> _Others:
    shapes = {name: e.shape for e in networks for name in (e.name, *e.aliases)}
    squashed = {}
    for entry in networks:
        parts = entry.name.split(".")
        squashed |= {"".join(parts[i:]): entry.shape for i in range(min(len(parts), 2))}
    return _Others(shapes, [f".{name}" for name in shapes], squashed, [e.shape for e in networks])


def _averaged(prefix: str, group: Sequence[Entry], others: _Others) -> str | None:
    """What the matrices of a group are averages of: those of the same names, of which the rest may be missing."""
    matrices = [(e.name[len(prefix) + 1 :].split("."), e.shape) for e in group if len(e.shape) > 1]
    if not matrices:
        return None
    for dropped in range(min(3, min(len(keys) for keys, _ in matrices))):
        wanted = [(".".join(keys[dropped:]), shape) for keys, shape in matrices]
        first = f".{wanted[0][0]}"
        starts = [name[1 : len(name) - len(first) + 1] for name in others.dotted if name.endswith(first)]
        for start in starts:
            if all(others.shapes.get(f"{start}{name}") == shape for name, shape in wanted):
                return start.removesuffix(".") or "the network"
        if all(name.isdecimal() for name, _ in wanted) and _is_within(group, others.order):
            return "the network"
    named = all(others.squashed.get("".join(keys)) == shape for keys, shape in matrices)
    return "the network" if named else None


def _is_within(group: Sequence[Entry], order: Sequence[tuple[int, ...]]) -> bool:
    """Whether the shapes of a list are among those of the network, in their order."""
    left = iter(order)
    return all(any(shape == other for other in left) for shape in (e.shape for e in group if len(e.shape) > 1))
