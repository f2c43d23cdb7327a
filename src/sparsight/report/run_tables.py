"""The tables of a run's page: of each level, and of the numbers behind its charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sparsight.numerics import format as words
from sparsight.records.record import PARTS, LevelRecord
from sparsight.report.pages import Table
from sparsight.report.run_view import Story, key, pq_of, primary


def marks(s: Story) -> dict[int, str]:
    """The rows of `s.records` that are pointed out."""
    return {i: "chosen" if x is s.chosen else "control" for i, x in enumerate(s.records) if x in (s.chosen, s.control)}


def label(s: Story, x: LevelRecord) -> str:
    return "dense control" if x is s.control else f"{x.level}{' chosen' if x is s.chosen else ''}"


def level_table(s: Story) -> Table:
    """All levels and the control, with everything that is said of a level as a whole."""
    pair = primary(s.records)
    at = f" ({pair[0]:g}, {pair[1]:g})" if pair else ""
    heads = ("level", "density", "kept", "compression", f"PQ index{at}", "epochs", "validation", "test", "why it ended")
    rows = [
        (label(s, x), words.percent(x.density), f"{x.kept:,}", words.compression(x.kept, x.total),
         words.index(pq_of(x, pair)), words.count(x.epochs), s.metric.text(x.value),
         s.metric.text(s.test_value(x)), x.reason or words.NONE)
        for x in s.records
    ]  # fmt: skip
    return Table("All levels", heads, rows, words=(8,), marked=marks(s))


def frontier_table(s: Story) -> Table:
    """Accuracies, losses and every PQ index."""
    pairs = list(dict.fromkeys(pair for x in s.records for pair in x.pq_pairs))
    heads = ("level", "density", f"validation {s.metric.name}", f"test {s.metric.name}", "validation loss")
    heads += tuple(f"PQ index ({p:g}, {q:g})" for p, q in pairs)
    rows = [
        (label(s, x), words.percent(x.density), s.metric.text(x.value), s.metric.text(s.test_value(x)),
         words.index(x.validation_loss), *(words.index(pq_of(x, pair)) for pair in pairs))
        for x in s.records
    ]  # fmt: skip
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
    rows = [
        (label(s, x), words.count(o.epoch), f"{o.step:,}",
         words.NONE if o.learning_rate is None else f"{o.learning_rate:.4g}", words.index(o.train_loss),
         words.index(o.validation_loss), s.metric.text(o.value(s.metric)),
         ", ".join(f"{k} {v:.4g}" for k, v in o.values.items()) or words.NONE)
        for x in s.records for o in x.observations
    ]  # fmt: skip
    heads = ("level", "epoch", "step", "learning rate", "train loss", "validation loss")
    heads += (f"validation {s.metric.name}", "stopping rule saw")
    return Table("Training by level and epoch", heads, rows, words=(7,))


def ids(s: Story) -> Table:
    rows = [(label(s, x), x.id, x.parent or words.NONE, str(len(x.files))) for x in s.records]
    return Table("Ids of the levels", ("level", "content id", "parent", "files"), rows, words=(1, 2))
