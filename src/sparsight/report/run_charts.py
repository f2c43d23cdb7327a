"""The charts of a run's page, including the measurements of its stopping rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import altair as alt

from sparsight.numerics import format as words
from sparsight.records.record import PARTS, LevelRecord
from sparsight.report.charts import CELL, WIDE, Cell, Ramp, beside, heat, named, small, span, spec, tips
from sparsight.report.density import Line, Panel, over_density
from sparsight.report.pages import Chart, Fold, Section, Table
from sparsight.report.run_tables import curve_table, effort_table, frontier_table, label, layer_table, marks
from sparsight.report.run_view import Story, is_finite, key, name, pq_of
from sparsight.train.metric import LOSS, Metric

# -- density ------------------------------------------------------------------------------------------------------


def frontier(s: Story) -> Section:
    """The paper's picture: accuracy, loss and PQ index against density."""
    metrics = [s.metric]
    if s.metric != LOSS and any(is_finite(x.validation_loss) for x in s.levels):
        metrics.append(LOSS)
    panels, index = [], []
    for height, m in zip((240, 130), metrics, strict=False):
        panels.append(Panel(m.name.capitalize(), list(_lines(s, m)), m.share, height, 0.01 if m.share else 0.05))
    for p, q in dict.fromkeys(pair for x in s.levels for pair in x.pq_pairs):
        points = [(x.density, v) for x in s.levels if is_finite(v := pq_of(x, (p, q)))]
        index.append(Line(f"PQ index ({p:g}, {q:g})", points))
    panels.append(Panel("PQ index", index, height=150))
    chosen = s.chosen and (s.chosen.density, f"chosen: level {s.chosen.level}, {words.percent(s.chosen.density)}")
    drawn = over_density(panels, [(x.density, _seen(s, x)) for x in s.levels], chosen)
    lead = (
        "Each point is one level: pruned, restarted and trained. Fewer weights are left from left to right. "
        "The PQ index says how unequal the remaining weights are: the higher it is, the more can still be pruned."
    )
    title = f"How {s.metric.name} and PQ index change as weights go"
    return Section("frontier", "How far it goes", lead, [Chart("frontier", title, drawn, frontier_table(s), side=64)])


def _lines(s: Story, metric: Metric) -> Iterator[Line]:
    """Lines for validation and test, with dense and control for reference."""

    def value(record: LevelRecord | None) -> float | None:
        return record.observations[-1].value(metric) if record and record.observations else None

    for split, of in (("validation", value), ("test", lambda x: s.test_value(x, metric))):
        points = [(x.density, v) for x in s.levels if is_finite(v := of(x))]
        if points:
            yield Line(split, points)
    for what, record in (("dense", s.dense), ("dense control", s.control)):
        if is_finite(height := value(record)):
            yield Line(f"{what}, validation", steady=height)


def _seen(s: Story, x: LevelRecord) -> dict[str, str]:
    told = {"level": f"{name(x)}{' (chosen)' if x is s.chosen else ''}"}
    told["density"] = f"{words.percent(x.density)} ({words.compression(x.kept, x.total)})"
    told[f"validation {s.metric.name}"] = s.metric.text(x.value)
    if s.tests:
        told[f"test {s.metric.name}"] = s.metric.text(s.test_value(x))
    if s.metric != LOSS:
        told["validation loss"] = words.index(x.validation_loss)
    return told | {f"PQ index ({p:g}, {q:g})": words.index(v) for (p, q), v in zip(x.pq_pairs, x.pq, strict=False)}


# -- layers -------------------------------------------------------------------------------------------------------


def layers(s: Story, what: Literal["density", "pq"]) -> Section | None:
    """A map of the layers' densities, or PQ indices at the first (p, q), level by level. None without any."""
    density = what == "density"
    known = {}
    for x in s.levels:
        for layer in x.layers:
            value = layer.density if density else layer.pq[0] if layer.pq and layer.kept else None
            known |= {(layer.name, x.level): value} if is_finite(value) else {}
    if not known:
        return None
    show = words.percent if density else words.index
    names = [*dict.fromkeys(layer.name for x in s.levels for layer in x.layers)]
    fits = len(s.levels) <= 16 and len(names) <= 30
    cells = []
    for layer in names:
        for x in s.levels:
            v = known.get((layer, x.level))
            text = "" if v is None or not fits else words.percent(v).removesuffix(" %") if density else f"{v:.3f}"[1:]
            cells.append(Cell(layer, str(x.level), v, show(v), text, density and v == 0))
    frame = str(s.chosen.level) if s.chosen else None
    values = [v for v in known.values() if v > 0 or not density]
    ramp = Ramp(min(0.5, *values), 1.0, "~%", log=True) if density else Ramp(*span(values, 1e-3), ".3~r")
    drawn = heat(cells, ("layer", "level", "density" if density else "PQ index"), ramp, frame)
    title = "Density per layer" if density else f"{s.index_name} per layer"
    lead = "Percent of each layer's weights that are kept" if density else "Of each layer's alive weights"
    lead += ", level by level." + (" The framed column is the chosen level." if s.chosen else "")
    table = layer_table(s, "Density" if density else "PQ index", names, {k: show(v) for k, v in known.items()})
    told = "Which layers give up their weights, level by level" if density else "Which layers are still uneven"
    return Section(f"layers-{what}", title, lead, [Chart(f"layers-{what}", told, drawn, table, side=beside(names))])


# -- epochs and seconds -------------------------------------------------------------------------------------------


def effort(s: Story) -> Section:
    """Epochs of each level, and its seconds, split by what they were spent on."""
    x = alt.X("level:O").sort(None).axis(alt.Axis(labelAngle=0, labelOverlap="greedy", title="level"))
    tip = tips({"level": "level", "tip": "took"})
    upper = named("epochs").mark_bar(style="hover").encode(x=x, y=_bars("epochs:Q"), tooltip=tip)
    epochs, spent = [], []
    for r in s.levels:
        took = f"{words.plural(r.epochs, 'epoch')}, {r.steps:,} steps"
        epochs.append({"level": str(r.level), "epochs": r.epochs, "tip": took})
        for i, part in enumerate(PARTS if (t := s.times.get(key(r))) else ()):
            of = {"level": str(r.level), "part": part, "order": i}
            spent.append(of | {"seconds": getattr(t, part), "tip": words.duration(getattr(t, part))})
    panels = [upper.properties(width=WIDE, height=80, title="Epochs")]
    if spent:
        tip = tips({"level": "level", "part": "spent on", "tip": "took"})
        colour = alt.Color("part:N").scale(domain=PARTS)
        lower = named("spent").mark_bar().encode(x=x, y=_bars("seconds:Q"), order="order:O", tooltip=tip, color=colour)
        panels.append(lower.properties(width=WIDE, height=150, title="Seconds"))
    lead = f"{words.plural(sum(x.epochs for x in s.levels), 'epoch')} over {words.plural(len(s.levels), 'level')}"
    lead += f", and {words.plural(s.control.epochs, 'epoch')} for the dense control (not drawn)." if s.control else "."
    took = words.duration(sum(t.total for t in s.times.values()))
    lead += f" All together {took}." if s.times else " No times were recorded."
    drawn = spec(alt.vconcat(*panels), epochs=epochs, spent=spent)
    chart = Chart("effort", "Which levels took the time, and for what", drawn, effort_table(s), side=64)
    return Section("effort", "What it took", lead, [chart])


def _bars(field: str) -> alt.Y:
    return alt.Y(field).axis(alt.Axis(title=None, tickCount=4, minExtent=50, maxExtent=50))


def curves(s: Story) -> Section:
    """Validation by epoch, in a small chart for each level and the control."""
    m = s.metric
    rows = []
    for x in s.records:
        of = f"{name(x)} · {words.percent(x.density)}{' · chosen' if x is s.chosen else ''}"
        seen = [(o.epoch, v) for o in x.observations if is_finite(v := o.value(m))]
        rows += [{"of": of, "x": e, "y": v, "shown": m.text(v)} for e, v in seen]
    unit = " in percent" if m.share else ""
    lead = f"Validation {m.name}{unit} by epoch of each level, all on one scale; beside each its density."
    domain = span([r["y"] for r in rows], 0.01, 0.0, 1.0) if m.share else span([r["y"] for r in rows], 1e-6)
    drawn = small(rows, domain, {"of": "level", "x": "epoch", "shown": m.name}, share=m.share, apart=True)
    chart = Chart("curves", f"How {m.name} grows during each level", drawn, curve_table(s), cell=CELL)
    return Section("curves", "Training curves", lead, [chart])


# -- stopping ------------------------------------------------------------------------------------------------------

MEMBER = re.compile(r"(?P<family>.*?\)), (?P<member>.+)", re.DOTALL)
"""The name of one value in a family: "gradient flow (norm), fc1.weight"."""

LINES = 5
"""Most members of a family in a chart; the others are only in the table."""


def stopping(s: Story) -> Section | None:
    """The section about stopping rules. None if every level trained its whole budget and nothing was measured."""
    every = [*dict.fromkeys(one for x in s.levels for o in x.observations for one in o.values)]
    distances, values = ([x for x in every if x.startswith(kind)] for kind in ("distance:", "value:"))
    if not distances and not values and not any((_saved(x) or 0.0) > 0 for x in s.levels):
        return None
    figures = []
    for i, distance in enumerate(distances):
        of = distance.removeprefix("distance:")
        lines = {"distance": distance, "threshold, below which it counts": f"threshold:{of}"}
        figures.append(_figure(s, f"distance-{i}", f"{of}: distance", lines))
    families: dict[str, dict[str, str]] = {}
    for value in values:
        of = value.removeprefix("value:")
        found = MEMBER.fullmatch(of)
        family, member = (found["family"], found["member"]) if found else (of, of)
        families.setdefault(family, {})[member] = value
    for i, (family, members) in enumerate(families.items()):
        figures.append(_figure(s, f"values-{i}", family, dict([*members.items()][:LINES])))
    said = "What the stopping rules saw"
    seen = [Fold(said, [_seen_table(s, every, said)])] if any(figures) else []
    parts = [_level_table(s), *filter(None, figures), *seen]
    return Section("stopping", "When each level ended", _lead(s), parts)


def _cap(x: LevelRecord) -> float | None:
    """The most epochs that the level could take; None if not recorded."""
    cap = x.operation.get("epochs")
    return float(cap) if isinstance(cap, (int, float)) and not isinstance(cap, bool) and is_finite(cap) else None


def _saved(x: LevelRecord) -> float | None:
    cap = _cap(x)
    return None if cap is None else cap - x.epochs


def _lead(s: Story) -> str:
    known = [x for x in s.levels if _cap(x) is not None]
    spent, cap = sum(x.epochs for x in known), sum(_cap(x) or 0.0 for x in known)
    if not known or not cap:
        return "The budgets of the levels are not on record."
    told = f"The levels took {words.count(spent)} of at most {words.plural(cap, 'epoch')}: "
    told += f"{words.count(cap - spent)} saved ({words.percent((cap - spent) / cap)})."
    times = [t for x in s.levels if (t := s.times.get(key(x))) is not None]
    trained = sum(t.train for t in times)
    if not trained:
        return told
    measured, judged = (sum(getattr(t, part) for t in times) for part in ("measure", "validate"))
    told += f" Measuring took {words.duration(measured)}, {words.percent(measured / trained)} of the training's "
    return f"{told}{words.duration(trained)}; validating {words.duration(judged)}."


def _level_table(s: Story) -> Table:
    rows = []
    for x in s.levels:
        epochs = [words.count(v) for v in (x.epochs, _cap(x), _saved(x))]
        rows.append((label(s, x), words.percent(x.density), *epochs, str(len(x.observations)), x.reason or words.NONE))
    heads = ("level", "density", "epochs", "at most", "saved", "evaluations", "why it ended")
    return Table("Epochs spent and saved by level", heads, rows, words=(6,), marked=marks(s))


def _seen_table(s: Story, names: Sequence[str], caption: str) -> Table:
    """The numbers that rules measured, one row per evaluation."""
    seen = ((x, o) for x in s.levels for o in x.observations if any(name in o.values for name in names))
    rows = [
        (str(x.level), *(words.NONE if v is None else f"{v:.4g}" for v in (o.epoch, *map(o.values.get, names))))
        for x, o in seen
    ]
    return Table(caption, ("level", "epoch", *(name.replace(":", ": ", 1) for name in names)), rows)


def _figure(s: Story, ident: str, title: str, lines: Mapping[str, str]) -> Chart | None:
    """Measurements by epoch, in a small chart for each level. `lines` maps names of lines to recorded values."""
    rows = []
    for x in s.levels:
        of = f"level {x.level} · {words.percent(x.density)}"
        for o in x.observations:
            known = [(series, v) for series, line in lines.items() if is_finite(v := o.values.get(line))]
            rows += [{"of": of, "x": o.epoch, "y": v, "series": series, "shown": f"{v:.4g}"} for series, v in known]
    if not rows:
        return None
    domain = span([x["y"] for x in rows], 1e-6, min(0.0, *(x["y"] for x in rows)))
    drawn = small(rows, domain, {"of": "level", "series": "line", "x": "epoch", "shown": "value"}, series=[*lines])
    return Chart(ident, title, drawn, _seen_table(s, [*lines.values()], f"By level: {title}"), cell=CELL)
