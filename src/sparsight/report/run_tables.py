"""The tables of a run's page: its levels, the allocator's decisions, and the numbers behind its charts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median

from sparsight.numerics import format as words
from sparsight.records.record import PARTS, LevelRecord
from sparsight.report.pages import Fold, Part, Section, Table
from sparsight.report.run_view import Story, key, pq_of
from sparsight.types import GroupRecord


def marks(s: Story) -> dict[int, str]:
    """The rows of `s.records` to highlight, with their CSS classes."""
    return {i: "chosen" if x is s.chosen else "control" for i, x in enumerate(s.records) if x in (s.chosen, s.control)}


def label(s: Story, x: LevelRecord) -> str:
    return "dense control" if x is s.control else f"{x.level}{' chosen' if x is s.chosen else ''}"


def level_table(s: Story) -> Table:
    """All levels and the control, with the facts about each level as a whole."""
    heads = ("level", "density", "kept", "compression", s.index_name, "epochs", "validation", "test", "why it ended")
    rows = []
    for x in s.records:
        size = (words.percent(x.density), f"{x.kept:,}", words.compression(x.kept, x.total))
        took = (words.index(pq_of(x, s.pair)), words.count(x.epochs))
        values = (s.metric.text(x.value), s.metric.text(s.test_value(x)))
        rows.append((label(s, x), *size, *took, *values, x.reason or words.NONE))
    return Table("All levels", heads, rows, words=(8,), marked=marks(s))


def frontier_table(s: Story) -> Table:
    """Accuracies, losses and every PQ index."""
    pairs = list(dict.fromkeys(pair for x in s.records for pair in x.pq_pairs))
    heads = ("level", "density", f"validation {s.metric.name}", f"test {s.metric.name}", "validation loss")
    heads += tuple(f"PQ index ({p:g}, {q:g})" for p, q in pairs)
    rows = []
    for x in s.records:
        values = (s.metric.text(x.value), s.metric.text(s.test_value(x)), words.index(x.validation_loss))
        rows.append((label(s, x), words.percent(x.density), *values, *(words.index(pq_of(x, pair)) for pair in pairs)))
    return Table(f"{s.metric.name.capitalize()}, loss and PQ index by level", heads, rows, marked=marks(s))


def layer_table(s: Story, what: str, names: Sequence[str], shown: Mapping[tuple[str, int], str]) -> Table:
    """A row for each layer, a column for each level."""
    rows = [(layer, *(shown.get((layer, x.level), words.NONE) for x in s.levels)) for layer in names]
    heads = ("layer", *(f"level {x.level}" for x in s.levels))
    return Table(f"{what} by layer and level", heads, rows, words=(0,))


def effort_table(s: Story) -> Table:
    """Epochs, steps and seconds of each level and the control, and the share of each part."""
    rows = []
    for x in s.records:
        times = s.times.get(key(x))
        parts = [words.duration(getattr(times, part)) if times else words.NONE for part in PARTS]
        whole = words.duration(times.total) if times else words.NONE
        rows.append((label(s, x), words.count(x.epochs), f"{x.steps:,}", *parts, whole))
    sums = {part: math.fsum(getattr(t, part) for t in s.times.values()) for part in PARTS}
    if whole := sum(sums.values()):
        rows.append(("share", "", "", *(words.percent(took / whole) for took in sums.values()), ""))
    return Table("Epochs and time by level", ("level", "epochs", "steps", *PARTS, "all"), rows, marked=marks(s))


def curve_table(s: Story) -> Table:
    """Every observation of every level and the control."""
    rows = []
    for x in s.records:
        for o in x.observations:
            rate = words.NONE if o.learning_rate is None else f"{o.learning_rate:.4g}"
            values = (words.index(o.train_loss), words.index(o.validation_loss), s.metric.text(o.value(s.metric)))
            saw = ", ".join(f"{k} {v:.4g}" for k, v in o.values.items()) or words.NONE
            rows.append((label(s, x), words.count(o.epoch), f"{o.step:,}", rate, *values, saw))
    heads = ("level", "epoch", "step", "learning rate", "train loss", "validation loss")
    heads += (f"validation {s.metric.name}", "stopping rule saw")
    return Table("Training by level and epoch", heads, rows, words=(7,))


def ids(s: Story) -> Table:
    rows = [(label(s, x), x.id, x.parent or words.NONE, str(len(x.files))) for x in s.records]
    return Table("Ids of the levels", ("level", "content id", "parent", "files"), rows, words=(1, 2))


ROW = re.compile(r"(?P<tensor>.+)\[\d+\]", re.DOTALL)
"""The name of a group that is one row of a tensor."""


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


def _level(x: LevelRecord) -> Fold:
    names = [layer.name for layer in x.layers]
    by_tensor: dict[str, list[GroupRecord]] = {}
    whole: list[GroupRecord] = []
    for g in x.groups:
        row = None if g.name in names else ROW.fullmatch(g.name)
        (by_tensor.setdefault(row["tensor"], []) if row else whole).append(g)
    removed = sum(g.c for g in x.groups)
    title = f"Level {x.level}: {removed:,} weights removed in {words.plural(len(x.groups), 'group')}"
    content = []
    if whole:
        content += [Table(f"Level {x.level}, by group", HEADINGS, [*map(_one, whole)], words=(0, 6))]
    if by_tensor:
        heads = ("tensor", "rows", "d", "PQ index: least", "median", "greatest", "c")
        heads += ("c per row: least", "median", "greatest", "remarks")
        rows = [_rows(tensor, groups) for tensor, groups in by_tensor.items()]
        content += [Table(f"Level {x.level}, rows of each tensor", heads, rows, words=(0, 10))]
    return Fold(title, content)


def _rows(tensor: str, groups: Sequence[GroupRecord]) -> tuple[str, ...]:
    known = [g.index for g in groups if g.index is not None and g.defined]
    undefined, bound = sum(not g.defined for g in groups), sum(g.floor_bound for g in groups)
    remarks = [f"index undefined in {words.plural(undefined, 'row')}"] if undefined else []
    remarks += [f"min_keep changed {words.plural(bound, 'row')}"] if bound else []
    indices = tuple(words.index(f(known) if known else None) for f in (min, median, max))
    removed = tuple(words.count(f(g.c for g in groups)) for f in (min, median, max))
    d, c = sum(g.d for g in groups), sum(g.c for g in groups)
    return tensor, f"{len(groups):,}", f"{d:,}", *indices, f"{c:,}", *removed, ", ".join(remarks)
