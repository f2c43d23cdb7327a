"""The paper's picture: accuracy (or loss) and PQ index against density, one above the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sparsight.records.record import LevelRecord
from sparsight.report import format as words
from sparsight.report import svg
from sparsight.report.escape import escape
from sparsight.report.run_view import Story, is_finite, name, pq_of
from sparsight.train.metric import LOSS, Metric


@dataclass(frozen=True)
class Series:
    """One line: `points` are (density, value) of levels, in their order."""

    label: str
    kind: str  # CSS class: colour
    shape: str
    points: tuple[svg.Point, ...]
    steady: float | None = None  # height of a reference line instead of points


@dataclass(frozen=True)
class Frame:
    """Where a panel lies, and the x axis that all panels share."""

    x: svg.Scale
    zero: float | None  # where density 0 is drawn, which a logarithm cannot show
    left: float
    right: float
    top: float
    bottom: float

    def place(self, density: float) -> float:
        return self.x(density) if density > 0 else (self.zero or self.right)


def series(s: Story, metric: Metric) -> list[Series]:
    """The lines of the upper panel: validation, test, and dense and control for reference."""

    def value(record: LevelRecord) -> float | None:
        return record.observations[-1].value(metric) if record.observations else None

    lines = [_line(f"validation {metric.name}", "c1", "circle", [(x, value(x)) for x in s.levels])]
    lines.append(_line(f"test {metric.name}", "c2", "diamond", [(x, s.test_value(x, metric)) for x in s.levels]))
    for record, label, kind in ((s.dense, "dense", "dense"), (s.control, "dense control", "control")):
        height = value(record) if record else None
        if height is not None and is_finite(height):
            lines.append(Series(f"{label}, validation", kind, "", (), height))
    return [x for x in lines if x.points or x.steady is not None]


def pq_series(s: Story) -> list[Series]:
    """One line for each (p, q)."""
    pairs = dict.fromkeys(pair for x in s.levels for pair in x.pq_pairs)
    shapes = (("c3", "circle"), ("c4", "diamond"), ("c5", "square"))
    lines = [
        _line(f"PQ index ({p:g}, {q:g})", *shapes[i % 3], [(x, pq_of(x, (p, q))) for x in s.levels])
        for i, (p, q) in enumerate(pairs)
    ]
    return [x for x in lines if x.points]


def _line(label: str, kind: str, shape: str, values: Sequence[tuple[LevelRecord, float | None]]) -> Series:
    return Series(label, kind, shape, tuple((x.density, v) for x, v in values if v is not None and is_finite(v)))


def frontier(s: Story, metric: Metric, width: int, ident: str) -> str:
    """Both panels as one drawing, `width` wide."""
    upper, lower = series(s, metric), pq_series(s)
    small = width < 600
    densities = [x.density for x in s.levels if x.kept]
    room = 34 if any(x.kept == 0 for x in s.levels) else 0
    left, right, top = (44, width - 10, 34) if small else (58, width - 16, 34)
    heights = (190, 130) if small else (270, 170)
    scale = svg.Scale(1.0, min(0.5, min(densities, default=1.0) * 0.9), left + 16, right - 12 - room, log=True)
    zero = right - 16 if room else None
    high = Frame(scale, zero, left, right, top, top + heights[0])
    low = Frame(scale, zero, left, right, high.bottom + 38, high.bottom + 38 + heights[1])
    share, chosen = metric.share, s.chosen.density if s.chosen else None
    parts = [
        *_x_axis(high, low, small),
        *_panel(high, upper, f"{metric.name}{', %' if share else ''}", share, 0.01 if share else 0.05, chosen),
        *_panel(low, lower, "PQ index", False, 0.02, chosen),
        *_chosen(s, high),
        *_bands(s, metric, high, low),
    ]
    title = f"{metric.name.capitalize()} and PQ index against density"
    ends = f" from {words.percent(max(densities))} to {words.percent(min(densities))}" if densities else ""
    about = f"{words.plural(len(s.levels), 'level')}{ends} density, on a logarithmic axis from dense to sparse."
    return svg.drawing(ident, width, low.bottom + 58, title, about, parts)


def _x_axis(high: Frame, low: Frame, small: bool) -> list[str]:
    labelled, minor = svg.log_ticks(low.x.hi, low.x.lo, 6 if small else 12)
    parts = []
    for v in minor:
        parts += [svg.line((low.x(v), low.bottom), (low.x(v), low.bottom + 3), "axis")]
    for v in labelled:
        x = low.x(v)
        parts += [svg.line((x, f.top), (x, f.bottom), "grid") for f in (high, low)]
        parts += [svg.line((x, low.bottom), (x, low.bottom + 6), "axis")]
        parts += [svg.text(x, low.bottom + 20, f"{100 * v:.10g} %", "tick", "middle")]
        parts += [svg.text(x, low.bottom + 35, f"{1 / v:,.6g}×", "tick soft", "middle")]
    if low.zero is not None:
        parts += [svg.text(low.zero, low.bottom + 20, "0 %", "tick", "middle")]
    middle = (low.left + low.right) / 2
    parts += [svg.text(middle, low.bottom + 53, "density, and compression below it", "label", "middle")]
    return parts


def _panel(f: Frame, lines: Sequence[Series], label: str, share: bool, least: float, chosen: float | None) -> list[str]:
    values = [y for x in lines for _, y in x.points] + [x.steady for x in lines if x.steady is not None]
    lo, hi = svg.span(values, least, 0.0, 1.0 if share or label == "PQ index" else float("inf"))
    y = svg.Scale(lo, hi, f.bottom, f.top)
    parts = [svg.text(8, f.top - 12, label, "label")]
    at = svg.ticks(lo, hi, 5)
    for v, spelled in zip(at, svg.spelled(at, 100 if share else 1), strict=True):
        parts += [svg.line((f.left, y(v)), (f.right, y(v)), "grid")]
        parts += [svg.text(f.left - 7, y(v) + 4, spelled, "tick", "end")]
    parts += [svg.line((f.left, f.bottom), (f.right, f.bottom), "axis")]
    if not values:
        parts += [svg.text((f.left + f.right) / 2, (f.top + f.bottom) / 2, "not recorded", "label", "middle")]
    if chosen is not None:
        parts += [svg.line((f.place(chosen), f.top), (f.place(chosen), f.bottom), "chosen-line")]
    for x in lines:
        if x.steady is not None:
            parts += [svg.line((f.left, y(x.steady)), (f.right, y(x.steady)), f"reference {x.kind}")]
    for x in reversed(lines):
        alive = [(f.place(d), y(v)) for d, v in x.points if d > 0]
        parts += [svg.path(alive, f"curve {x.kind}")]
        parts += [svg.mark(x.shape, (f.place(d), y(v)), f"dot {x.kind}") for d, v in x.points]
        parts += [svg.mark("ring", (f.place(d), y(v)), "ring", 8) for d, v in x.points if d == chosen]
    return parts


def _chosen(s: Story, high: Frame) -> list[str]:
    if s.chosen is None:
        return []
    x = high.place(s.chosen.density)
    side = "end" if x > (high.left + high.right) / 2 else "start"
    words_ = f"chosen: level {s.chosen.level}, {words.percent(s.chosen.density)}"
    at = x + 6 if side == "end" else max(x - 6, 104)  # clear of the axis label
    return [svg.text(at, high.top - 12, words_, "chosen-text", side)]


def _bands(s: Story, metric: Metric, high: Frame, low: Frame) -> list[str]:
    """Invisible stripes that show a level's numbers where the pointer is nearest to it."""
    at: dict[float, list[LevelRecord]] = {}
    for record in s.levels:
        at.setdefault(round(high.place(record.density)), []).append(record)
    places = sorted(at)
    edges = [high.left, *((a + b) / 2 for a, b in itertools.pairwise(places)), high.right]
    parts = []
    for i, x in enumerate(places):
        tip = "\n\n".join(_tip(s, record, metric) for record in at[x])
        band = svg.rect(edges[i], high.top, edges[i + 1] - edges[i], low.bottom - high.top, "band", tip)
        parts.append(svg.element("g", svg.line((x, high.top), (x, low.bottom), "cross"), band, class_="hot"))
    return parts


def _tip(s: Story, x: LevelRecord, metric: Metric) -> str:
    lines = [f"{name(x)}{' (chosen)' if x is s.chosen else ''}"]
    lines += [f"density {words.percent(x.density)} ({words.compression(x.kept, x.total)})"]
    if metric == LOSS != s.metric:
        lines += [f"validation loss {words.index(x.validation_loss)}"]
    lines += [f"validation {s.metric.name} {words.worth(s.metric, x.value)}"]
    if s.test_value(x) is not None:
        lines += [f"test {s.metric.name} {words.worth(s.metric, s.test_value(x))}"]
    return "\n".join(
        [*lines, *(f"PQ index ({p:g}, {q:g}) {words.index(v)}" for (p, q), v in zip(x.pq_pairs, x.pq, strict=False))]
    )


def legend(lines: Sequence[Series], share: bool) -> str:
    """What the lines mean, as text that wraps."""
    items = []
    for x in lines:
        if x.steady is not None:
            swatch = svg.line((0, 7), (26, 7), f"reference {x.kind}")
            label = f"{x.label} {words.accuracy(x.steady) if share else words.index(x.steady)}"
        else:
            swatch = svg.line((0, 7), (26, 7), f"curve {x.kind}") + svg.mark(x.shape, (13, 7), f"dot {x.kind}")
            label = x.label
        drawn = svg.element("svg", swatch, viewBox="0 0 26 14", class_="swatch", aria_hidden="true")
        items.append(f"<li>{drawn}{escape(label)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
