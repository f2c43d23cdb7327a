"""Charts by layer, by level and by epoch."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Literal

from sparsight.records.record import Layer, LevelRecord
from sparsight.report import format as words
from sparsight.report import svg
from sparsight.report.escape import escape
from sparsight.report.run_view import PARTS, Story, is_finite, key, layer_names, seconds

STEPS = 10
"""Colours of the heat maps, from h0 to h9."""


def shorten(name: str, most: int) -> str:
    """At most `most` columns, with "…" for the middle."""
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in name)
    if wide <= most:
        return name
    if wide > len(name):
        most //= 2
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def thinned(count: int, room: float, need: float) -> int:
    """Every how many labels of `need` pixels fit, where one place has `room`: 1, 2, 5, 10, 20, …"""
    return next(m * 10**e for e in range(9) for m in (1, 2, 5) if m * 10**e * room >= need or m * 10**e >= count)


# -- one cell for each layer and level ---------------------------------------------------------------------------


def cells(s: Story, value: Literal["density", "pq"]) -> dict[tuple[str, int], float]:
    """Density, or PQ index at the first (p, q), by layer name and level. Missing ones are left out."""
    read: Callable[[Layer], float | None] = (
        (lambda x: x.density) if value == "density" else (lambda x: x.pq[0] if x.pq and x.kept else None)
    )
    found = ((layer.name, record.level, read(layer)) for record in s.levels for layer in record.layers)
    return {(layer, level): v for layer, level, v in found if v is not None and is_finite(v)}


def heat(s: Story, value: Literal["density", "pq"], ident: str, width: int = 960) -> str:
    """A map with a row for each layer and a column for each level; numbers in the cells where they fit."""
    names, grid = layer_names(s.levels), cells(s, value)
    many, n = len(names), max(len(s.levels), 1)
    row, font = next((r, f) for most, r, f in ((12, 28, 12), (30, 20, 11), (10**9, 15, 10)) if many <= most)
    short = [shorten(x, 40) for x in names]
    left = 16 + max((len(x) + sum(unicodedata.east_asian_width(c) in "WF" for c in x) for x in short), default=0) * (
        font * 0.61
    )
    cell = min(max((width - left - 8) / n, 7), 84)
    width = round(max(left + cell * n + 8, 330))
    top, ramp = 34, _ramp(grid, value)
    parts = [svg.text(left - 10, top - 10, "level", "tick soft", "end")]
    every = thinned(n, cell, 24)
    for j, record in enumerate(s.levels):
        if j % every == 0:
            kind = "tick chosen-text" if record is s.chosen else "tick"
            parts += [svg.text(left + cell * (j + 0.5), top - 10, str(record.level), kind, "middle")]
    for i, layer in enumerate(names):
        y = top + row * i
        label = svg.text(left - 10, y + row / 2 + font * 0.36, short[i], f"mono f{font}", "end", layer)
        parts += [svg.element("g", label, class_="hot")]
        for j, record in enumerate(s.levels):
            at = (left + cell * j, y, cell, row)
            parts += [_cell(grid.get((layer, record.level)), layer, record.level, value, at, ramp, font)]
    if s.chosen is not None:
        j = s.levels.index(s.chosen)
        parts += [svg.rect(left + cell * j, top - 1, cell, row * many + 1, "chosen-box")]
    what = "Density" if value == "density" else "PQ index"
    about = (
        f"{words.plural(many, 'layer')} by {words.plural(len(s.levels), 'level')}; the numbers are in the table below."
    )
    return svg.drawing(ident, width, top + row * many + 8, f"{what} per layer and level", about, parts, "wide-only")


def _ramp(grid: Mapping[tuple[str, int], float], value: str) -> svg.Scale:
    """From value to colour step; densities by logarithm."""
    seen = [v for v in grid.values() if v > 0 or value == "pq"]
    if value == "density":
        lo = min(seen, default=0.5)
        return svg.Scale(min(lo, 0.5), 1.0, 0, STEPS - 1e-6, log=True)
    lo, hi = svg.span(seen, 1e-3)
    return svg.Scale(
        min(seen, default=lo) if len(set(seen)) > 1 else lo,
        max(seen, default=hi) if len(set(seen)) > 1 else hi,
        0,
        STEPS - 1e-6,
    )


def _cell(
    v: float | None,
    layer: str,
    level: int,
    value: str,
    at: tuple[float, float, float, float],
    ramp: svg.Scale,
    font: int,
) -> str:
    x, y, width, height = at
    density = value == "density"
    shown = words.NONE if v is None else words.percent(v) if density else words.index(v)
    tip = f"{layer}\nlevel {level}: {'density' if density else 'PQ index'} {shown}"
    if v is None:
        kind = "none"
    elif density and v == 0:
        kind = "gone"
    else:
        kind = f"h{int(ramp(v))}"
    box = svg.rect(x, y, width - 1, height - 1, f"cell {kind}", tip)
    text = "" if v is None else shown.removesuffix(" %") if density else f"{v:.3f}".replace("0.", ".", 1)
    if v is None or height < 20 or len(text) * font * 0.58 > width - 4:
        return svg.element("g", box, class_="hot")
    label = svg.text(x + (width - 1) / 2, y + height / 2 + font * 0.34, text, f"in-cell {kind} f{font}", "middle")
    return svg.element("g", box, label, class_="hot")


def ramp_legend(s: Story, value: Literal["density", "pq"]) -> str:
    """The colours of a heat map, with the values at both ends."""
    grid = cells(s, value)
    ramp = _ramp(grid, value)
    show = words.percent if value == "density" else words.index
    boxes = "".join(svg.rect(14 * i, 0, 14, 12, f"cell h{i}") for i in range(STEPS))
    drawn = svg.element("svg", boxes, viewBox=f"0 0 {14 * STEPS} 12", class_="swatch ramp", aria_hidden="true")
    key = svg.element(
        "svg", svg.rect(0, 0, 14, 12, "cell gone"), viewBox="0 0 14 12", class_="swatch gone-key", aria_hidden="true"
    )
    gone = f"{key} no weight left" if 0.0 in grid.values() and value == "density" else ""
    if value == "pq" and len(grid) < len(layer_names(s.levels)) * len(s.levels):
        key = svg.element("svg", svg.rect(0, 0, 14, 12, "cell none"), viewBox="0 0 14 12", class_="swatch gone-key")
        gone = f"{key} no weight left, or not recorded"
    scale = ", logarithmic" if value == "density" else ""
    return f'<p class="legend">{escape(show(ramp.lo))} {drawn} {escape(show(ramp.hi))}{scale}{gone}</p>'


# -- epochs and seconds ---------------------------------------------------------------------------------------------


def effort(s: Story, ident: str, width: int) -> str:
    """Epochs of each level, and below them its seconds, split into what they were spent on."""
    left, right, n = 52, width - 10, max(len(s.levels), 1)
    slot = (right - left) / n
    bar = min(slot * 0.72, 46)
    spent = {x.level: s.times[key(x)] for x in s.levels if key(x) in s.times}
    upper, lower = (34, 104), (142, 292 if spent else 142)
    most = max((x.epochs for x in s.levels), default=1) or 1
    longest = max((seconds(t) for t in spent.values()), default=0) or 1
    epochs, time = svg.Scale(0, most, upper[1], upper[0]), svg.Scale(0, longest, lower[1], lower[0])
    parts = _bar_axis("epochs", epochs, 3, left, right)
    parts += _bar_axis("seconds", time, 5, left, right) if spent else []
    every = thinned(n, slot, 24)
    for j, record in enumerate(s.levels):
        x = left + slot * (j + 0.5)
        tip = f"level {record.level}\n{words.plural(record.epochs, 'epoch')}, {record.steps:,} steps"
        bars = [svg.rect(x - bar / 2, epochs(record.epochs), bar, upper[1] - epochs(record.epochs), "bar c1")]
        base = 0.0
        times = spent.get(record.level)
        for i, part in enumerate(PARTS if times else ()):
            took = getattr(times, part)
            tip += f"\n{part} {words.duration(took)}"
            bars += [svg.rect(x - bar / 2, time(base + took), bar, time(base) - time(base + took), f"bar t{i}")]
            base += took
        hit = svg.rect(x - slot / 2, upper[0], slot, lower[1] - upper[0], "band", tip)
        parts += [svg.element("g", *bars, hit, class_="hot")]
        if j % every == 0:
            kind = "tick chosen-text" if record is s.chosen else "tick"
            parts += [svg.text(x, lower[1] + 18 if spent else upper[1] + 18, str(record.level), kind, "middle")]
    end = lower[1] if spent else upper[1]
    parts += [svg.text((left + right) / 2, end + 36, "level", "label", "middle")]
    about = f"Bars for {words.plural(len(s.levels), 'level')}; the numbers are in the table below."
    return svg.drawing(ident, width, end + 42, "Epochs and seconds per level", about, parts)


def _bar_axis(label: str, y: svg.Scale, about: int, left: float, right: float) -> list[str]:
    parts = [svg.text(8, y.b - 12, label, "label")]
    at = svg.ticks(0, y.hi, about)
    whole = [v for v in at if v == int(v)]
    at = whole if label == "epochs" and len(whole) > 1 else at
    for v, spelled in zip(at, svg.spelled(at), strict=True):
        parts += [svg.line((left, y(v)), (right, y(v)), "axis" if v == 0 else "grid")]
        parts += [svg.text(left - 7, y(v) + 4, spelled, "tick", "end")]
    return parts


# -- training curves -------------------------------------------------------------------------------------------------


def curves(s: Story, ident: str) -> str:
    """A small picture for each level: the validation metric by epoch, all on the same two axes."""
    seen = [o.value(s.metric) for x in s.levels for o in x.observations]
    lo, hi = svg.span(
        [v for v in seen if v is not None and is_finite(v)], 0.01, 0.0, 1.0 if s.metric.share else math.inf
    )
    last = max((o.epoch for x in s.levels for o in x.observations), default=1.0)
    first = min((o.epoch for x in s.levels for o in x.observations), default=0.0)
    x = svg.Scale(first, last if last > first else first + 1, 36, 150)
    y = svg.Scale(lo, hi, 82, 24)
    return "".join(_curve(s, record, f"{ident}-{record.level}", x, y) for record in s.levels)


def _curve(s: Story, record: LevelRecord, ident: str, x: svg.Scale, y: svg.Scale) -> str:
    seen = [(o.epoch, o.value(s.metric)) for o in record.observations]
    points = [(x(e), y(v)) for e, v in seen if v is not None and is_finite(v)]
    chosen = record is s.chosen
    heading = f"level {record.level}"
    parts = [svg.text(36, 13, heading, "label chosen-text" if chosen else "label")]
    parts += [svg.text(150, 13, words.percent(record.density), "tick", "end")]
    parts += [svg.line((36, at), (150, at), "grid") for at in (y.b, y.a)]
    parts += [
        svg.text(31, at + 4, f"{100 * v:.1f}" if s.metric.share else f"{v:.3g}", "tick small", "end")
        for v, at in ((y.hi, y.b), (y.lo, y.a))
    ]
    ends = sorted({0, len(points) - 1}) if points else []
    parts += [svg.path(points, "curve c1"), *(svg.mark("circle", points[i], "dot c1", 2.5) for i in ends)]
    if not points:
        parts += [svg.text(93, 57, "not recorded", "tick", "middle")]
    parts += [svg.text(36, 97, f"{x.lo:g}", "tick small", "start"), svg.text(150, 97, f"{x.hi:g}", "tick small", "end")]
    rows = [f"epoch {e:g}: {words.worth(s.metric, v)}" for e, v in seen]
    tip = "\n".join([heading, *(rows if len(rows) <= 8 else [*rows[:3], "…", *rows[-4:]])])
    parts += [svg.element("g", svg.rect(0, 0, 160, 102, "band", tip), class_="hot")]
    about = f"{words.plural(len(seen), 'point')}, ending at {words.worth(s.metric, record.value)}."
    return svg.drawing(
        ident, 160, 102, f"Validation {s.metric.name} by epoch, level {record.level}", about, parts, "small"
    )


def share_of_time(s: Story) -> str:
    """Where the seconds went, over all levels and the control."""
    totals = {part: math.fsum(getattr(t, part) for t in s.times.values()) for part in PARTS}
    whole = sum(totals.values())
    items = []
    for i, (part, took) in enumerate(totals.items()):
        drawn = svg.element(
            "svg", svg.rect(0, 0, 14, 14, f"bar t{i}"), viewBox="0 0 14 14", class_="swatch", aria_hidden="true"
        )
        share = f", {words.percent(took / whole)}" if whole else ""
        items.append(f"<li>{drawn}{part} {words.duration(took)}{share}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
