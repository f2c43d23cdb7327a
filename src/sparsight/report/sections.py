"""Headline, tables and origins: the parts of the page that are words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sparsight.records.record import LevelRecord
from sparsight.report import charts, markup
from sparsight.report import format as words
from sparsight.report.escape import escape
from sparsight.report.run_view import PARTS, Story, key, layer_names, name, pq_of, primary, seconds


def headline(s: Story) -> str:
    """What was pruned, and how well it went, in words and in four numbers."""
    run = s.run
    eyebrow = " · ".join(
        filter(
            None,
            (str(run.data.get("name", "")), str(run.model.get("type", run.model.get("name", ""))), f"seed {run.seed}"),
        )
    )
    told = escape(words.unbroken(words.told(s)))
    why = f'<p class="why">Why this level: {escape(run.chosen.why.rstrip("."))}.</p>' if run.chosen and s.chosen else ""
    ended = f'<p class="why">Why the run ended: {escape(run.why_ended.rstrip("."))}.</p>' if run.why_ended else ""
    status = f'<span class="status {run.status}">{run.status}</span>'
    return (
        f'<header><p class="eyebrow">Sparsight · pruning report {status}</p><h1>{escape(run.recipe)}</h1>'
        f'<p class="what">{escape(eyebrow)}</p><p class="told">{told}</p>{_tiles(s)}{why}{ended}</header>'
    )


def _tiles(s: Story) -> str:
    subject = s.chosen or (s.levels[-1] if s.levels else None)
    if subject is None:
        return ""
    others = [(label, x) for label, x in (("dense", s.dense), ("control", s.control)) if x and x is not subject]
    kept = f"{subject.kept:,} of {subject.total:,} weights"
    tiles = [
        _tile("Density", words.percent(subject.density), [(kept, "")]),
        _tile("Compression", words.compression(subject.kept, subject.total), [("all weights / kept", "")]),
        _tile(
            f"Validation {s.metric.name}",
            words.worth(s.metric, subject.value),
            [(label, words.worth(s.metric, x.value)) for label, x in others],
        ),
    ]
    if s.test_value(subject) is not None:
        rows = [(label, words.worth(s.metric, s.test_value(x))) for label, x in others]
        tiles.append(_tile(f"Test {s.metric.name}", words.worth(s.metric, s.test_value(subject)), rows))
    return f'<ul class="tiles" aria-label="{escape(name(subject))}">{"".join(tiles)}</ul>'


def _tile(label: str, value: str, rows: Sequence[tuple[str, str]]) -> str:
    below = "".join(f"<small><span>{escape(a)}</span> <b>{escape(b)}</b></small>" for a, b in rows)
    return f"<li><span>{escape(label)}</span><strong>{escape(value)}</strong>{below}</li>"


# -- tables ---------------------------------------------------------------------------------------------------------


def _marks(s: Story) -> dict[int, str]:
    return {i: "chosen" if x is s.chosen else "control" for i, x in enumerate(s.records) if x in (s.chosen, s.control)}


def _label(s: Story, x: LevelRecord) -> str:
    return "dense control" if x is s.control else f"{x.level}{' chosen' if x is s.chosen else ''}"


def level_table(s: Story) -> str:
    """All levels and the control, with everything that is said of a level as a whole."""
    pair = primary(s.records)
    at = f" ({pair[0]:g}, {pair[1]:g})" if pair else ""
    heads = ("level", "density", "kept", "compression", f"PQ index{at}", "epochs", "validation", "test", "why it ended")
    rows = [
        (
            _label(s, x),
            words.percent(x.density),
            f"{x.kept:,}",
            words.compression(x.kept, x.total),
            words.index(pq_of(x, pair)),
            words.count(x.epochs),
            words.worth(s.metric, x.value),
            words.worth(s.metric, s.test_value(x)),
            x.reason or words.NONE,
        )
        for x in s.records
    ]
    grid = markup.table(heads, rows, "All levels", words=(8,), marked=_marks(s))
    return markup.section("levels", "All levels", "", grid)


def frontier_table(s: Story) -> str:
    """The numbers of the picture, losses and every PQ index included."""
    pairs = list(dict.fromkeys(pair for x in s.records for pair in x.pq_pairs))
    heads = (
        "level",
        "density",
        f"validation {s.metric.name}",
        f"test {s.metric.name}",
        "validation loss",
        *(f"PQ index ({p:g}, {q:g})" for p, q in pairs),
    )
    rows = [
        (
            _label(s, x),
            words.percent(x.density),
            words.worth(s.metric, x.value),
            words.worth(s.metric, s.test_value(x)),
            words.index(x.validation_loss),
            *(words.index(pq_of(x, pair)) for pair in pairs),
        )
        for x in s.records
    ]
    return markup.table(heads, rows, f"{s.metric.name.capitalize()}, loss and PQ index by level", marked=_marks(s))


def layer_table(s: Story, value: Literal["density", "pq"]) -> str:
    """The numbers of a heat map."""
    grid = charts.cells(s, value)
    show = words.percent if value == "density" else words.index
    rows = [(layer, *(show(grid.get((layer, x.level))) for x in s.levels)) for layer in layer_names(s.levels)]
    heads = ("layer", *(f"level {x.level}" for x in s.levels))
    return markup.table(
        heads, rows, f"{'Density' if value == 'density' else 'PQ index'} by layer and level", words=(0,)
    )


def effort_table(s: Story) -> str:
    """Epochs, steps and seconds of each level and the control."""
    rows = []
    for x in s.records:
        times = s.times.get(key(x))
        parts = [words.duration(getattr(times, part)) if times else words.NONE for part in PARTS]
        whole = words.duration(seconds(times)) if times else words.NONE
        rows.append((_label(s, x), words.count(x.epochs), f"{x.steps:,}", *parts, whole))
    return markup.table(("level", "epochs", "steps", *PARTS, "all"), rows, "Epochs and time by level", marked=_marks(s))


def whole_time(s: Story) -> float:
    """Seconds of all levels and the control."""
    return sum(seconds(t) for t in s.times.values())


def curve_table(s: Story) -> str:
    """Every observation of every level and the control."""
    rows = [
        (
            _label(s, x),
            words.count(o.epoch),
            f"{o.step:,}",
            words.NONE if o.learning_rate is None else f"{o.learning_rate:.4g}",
            words.index(o.train_loss),
            words.index(o.validation_loss),
            words.worth(s.metric, o.value(s.metric)),
            ", ".join(f"{k} {v:.4g}" for k, v in o.values.items()) or words.NONE,
        )
        for x in s.records
        for o in x.observations
    ]
    heads = (
        "level",
        "epoch",
        "step",
        "learning rate",
        "train loss",
        "validation loss",
        f"validation {s.metric.name}",
        "stopping rule saw",
    )
    return markup.table(heads, rows, "Training by level and epoch", words=(7,))


# -- where it comes from ------------------------------------------------------------------------------------------


def origin(s: Story) -> str:
    """Recipe, arguments, environment and ids: what is needed to do it again."""
    run = s.run
    command = f'<pre tabindex="0" aria-label="Command">{escape(run.command)}</pre>' if run.command else ""
    when = {"seed": run.seed, "status": run.status, "started": run.started, "ended": run.ended or words.NONE}
    when |= {"resumed": run.resumed, "keep": run.keep, "schema": run.schema}
    ids = [(_label(s, x), x.id, x.parent or words.NONE, str(len(x.files))) for x in s.records]
    made = {name(x): x.operation for x in s.records}
    parts = [
        markup.facts(when, "The run"),
        markup.facts(run.arguments, "Arguments"),
        markup.facts(run.data, "Data"),
        markup.facts(run.model, "Model"),
        markup.facts(run.environment, "Environment"),
    ]
    folds = [markup.fold("The recipe as built", markup.source(run.description, "The recipe as built"))]
    if s.records:
        grid = markup.table(("level", "content id", "parent", "files"), ids, "Ids of the levels", words=(1, 2))
        folds += [
            markup.fold("Content ids", grid),
            markup.fold("How each level was made", markup.source(made, "Operations")),
        ]
    cards = f'<div class="cards">{"".join(f"<div>{x}</div>" for x in parts if x)}</div>'
    return markup.section("origin", "How it was made", "", command, cards, *folds)
