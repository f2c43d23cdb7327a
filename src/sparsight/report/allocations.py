"""What the allocator saw and decided at each level."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from sparsight.numerics import format as words
from sparsight.records.record import LevelRecord
from sparsight.report.pages import Fold, Part, Section, Table
from sparsight.report.run_view import Story
from sparsight.types import GroupRecord

ROW = re.compile(r"(?P<tensor>.+)\[\d+\]", re.DOTALL)
"""Name of a group that is one row of a tensor."""


def decisions(s: Story) -> Section | None:
    """Global scope: one table. Layer scope: a table for each level. Neuron scope: a summary for each tensor."""
    shown = [x for x in s.levels if x.groups]
    if not shown:
        return None
    lead = (
        "d: alive weights before the round. PQ index: of those weights. r: least count that the PQI bound lets us "
        "keep. c: weights removed."
    )
    parts: list[Part] = [_level(x) for x in shown]
    if all(len(x.groups) == 1 for x in shown):
        rows = [(str(x.level), *_one(x.groups[0])) for x in shown]
        marked = {i: "chosen" for i, x in enumerate(shown) if x is s.chosen}
        parts = [Table("What was decided at each level", ("level", *HEADINGS), rows, words=(1, 7), marked=marked)]
    return Section("decisions", "What the allocator decided", lead, parts)


HEADINGS = ("group", "d", "PQ index", "r", "c", "removed", "remarks")


def _one(g: GroupRecord) -> tuple[str, ...]:
    remarks = [] if g.defined else ["index undefined"]
    remarks += ["min_keep changed the selection"] if g.floor_bound else []
    index = words.index(g.index) if g.defined else words.NONE
    removed = words.percent(g.c / g.d) if g.d else words.NONE
    return g.name, f"{g.d:,}", index, words.count(g.r), f"{g.c:,}", removed, ", ".join(remarks)


def tensor_of(name: str, layers: Sequence[str]) -> str | None:
    """The tensor whose row the group is; None where the group is a whole tensor or all of them."""
    found = None if name in layers else ROW.fullmatch(name)
    return found["tensor"] if found else None


def _level(x: LevelRecord) -> Fold:
    names = [layer.name for layer in x.layers]
    by_tensor: dict[str, list[GroupRecord]] = {}
    whole: list[GroupRecord] = []
    for g in x.groups:
        tensor = tensor_of(g.name, names)
        (whole if tensor is None else by_tensor.setdefault(tensor, [])).append(g)
    removed = sum(g.c for g in x.groups)
    title = f"Level {x.level}: {removed:,} weights removed in {words.plural(len(x.groups), 'group')}"
    content = []
    if whole:
        content += [Table(f"Level {x.level}, by group", HEADINGS, [*map(_one, whole)], words=(0, 6))]
    if by_tensor:
        heads = ("tensor", "rows", "d", *(_of("PQ index")), "c", *_of("c per row"), "remarks")
        rows = [_rows(tensor, groups) for tensor, groups in by_tensor.items()]
        content += [Table(f"Level {x.level}, rows of each tensor", heads, rows, words=(0, 10))]
    return Fold(title, content)


def _of(what: str) -> tuple[str, str, str]:
    return f"{what}: least", "median", "greatest"


def _rows(tensor: str, groups: Sequence[GroupRecord]) -> tuple[str, ...]:
    known = [g.index for g in groups if g.index is not None and g.defined]
    undefined, bound = sum(not g.defined for g in groups), sum(g.floor_bound for g in groups)
    remarks = [f"index undefined in {words.plural(undefined, 'row')}"] if undefined else []
    remarks += [f"min_keep changed {words.plural(bound, 'row')}"] if bound else []
    indices = tuple(words.index(f(known) if known else None) for f in (min, median, max))
    removed = tuple(words.count(f(g.c for g in groups)) for f in (min, median, max))
    d, c = sum(g.d for g in groups), sum(g.c for g in groups)
    return tensor, f"{len(groups):,}", f"{d:,}", *indices, f"{c:,}", *removed, ", ".join(remarks)
