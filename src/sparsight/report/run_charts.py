"""The charts of a run's page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import altair as alt

from sparsight.numerics import format as words
from sparsight.records.record import PARTS, LevelRecord
from sparsight.report.charts import CELL, WIDE, Cell, Ramp, beside, heat, named, small, span, spec, tips
from sparsight.report.density import Line, Panel, over_density
from sparsight.report.pages import Chart, Section
from sparsight.report.run_tables import curve_table, effort_table, frontier_table, layer_table
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
    """Validation, test, and dense and control for reference."""

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
    """A map of the layers' densities, or PQ indices at the first (p, q), level by level. None if none is known."""
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
    """Epochs of each level, and its seconds, split into what they were spent on."""
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
    """Validation by epoch, a small picture for each level and the control."""
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
