"""Panels over one axis of density: accuracy, loss and PQ index as weights are pruned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from sparsight.report.charts import WIDE, named, span, spec, tips


@dataclass(frozen=True)
class Line:
    """`points` are (density, value), from dense to sparse; or `steady` is the value of a horizontal reference line."""

    name: str
    points: Sequence[tuple[float, float]] = ()
    steady: float | None = None
    marks: Mapping[float, str] = field(default_factory=dict)  # density -> label of its point


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]
    share: bool = False  # values are shares, shown in percent
    height: int = 180
    least: float = 0.02  # smallest range of the axis


_AXIS = (
    "datum.value < {least} ? '0 %' : [format(100 * datum.value, '~r') + ' %', format(1 / datum.value, ',.3~r') + '×']"
)


def over_density(
    panels: Sequence[Panel], seen: Sequence[tuple[float, Mapping[str, str]]], chosen: tuple[float, str] | None = None
) -> dict[str, Any]:
    """Panels over one logarithmic axis of density, dense on the left; density 0 is drawn at the right end.

    `seen` gives each density the values to show, by name, while the pointer is nearest to it; all have the same names.
    `chosen` is a density and its label. Panels without lines are left out.
    """
    panels = [panel for panel in panels if panel.lines]
    least = min(0.5, 0.9 * min((d for d, _ in seen if d > 0), default=1.0))
    end = least / 1.6 if any(d == 0 for d, _ in seen) else least
    ticks = [*_log_ticks(least, 12), *([end] if end < least else [])]
    names = list(seen[0][1]) if seen else []
    tip = tips({f"t{i}": n for i, n in enumerate(names)})
    hovers = [
        alt.selection_point(f"hover{i}", fields=["x"], on="pointerover", clear="pointerout", empty=False)
        for i in range(len(panels))
    ]
    at: Any = {"or": [{"param": hover.name, "empty": False} for hover in hovers]}
    colour, dash = _series([line for panel in panels for line in panel.lines])
    made = []
    for i, panel in enumerate(panels):
        last = i == len(panels) - 1
        axis = alt.Axis(
            values=ticks, labelExpr=_AXIS.format(least=least * 0.999), grid=True, labelOverlap="greedy",
            domain=last, labels=last, ticks=last, title="density, and compression below it" if last else None,
        )  # fmt: skip
        x = alt.X("x:Q").scale(type="log", domain=[1, end], nice=False, padding=14).axis(axis)
        rule = named("stops").mark_rule(style="hover").encode(x=x).transform_filter(at)
        band = named("stops").mark_rect(opacity=0, clip=True).encode(x=x.copy(), x2="end", tooltip=tip)
        band.encoding.x.shorthand = "begin:Q"
        layers = [
            *_chosen(chosen, x, end, words=not i),
            rule,
            *_lines(panel, i, x, colour, dash),
            band.add_params(hovers[i]),
        ]
        made.append(alt.layer(*layers).properties(width=WIDE, height=panel.height, title=panel.title))
    return spec(
        alt.vconcat(*made, spacing=16),
        stops=_stops([(d or end, told) for d, told in seen], names),
        chosen=[{"x": chosen[0] or end, "text": chosen[1]}] if chosen else [],
        lines=(
            {"panel": i, "x": d or end, "y": v, "series": line.name, "mark": line.marks.get(d), "alive": d > 0}
            for i, panel in enumerate(panels) for line in panel.lines for d, v in line.points
        ),
        steady=(
            {"panel": i, "y": line.steady, "series": line.name}
            for i, panel in enumerate(panels) for line in panel.lines if line.steady is not None
        ),
    )  # fmt: skip


def _stops(seen: Sequence[tuple[float, Mapping[str, str]]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """For each density, the values to show and the interval in which the pointer is nearest to it."""
    at = sorted({x for x, _ in seen}, reverse=True)
    edges = [2.0, *(math.sqrt(a * b) for a, b in itertools.pairwise(at)), 0.5 * at[-1]] if at else []
    for i, x in enumerate(at):
        here = [told for other, told in seen if other == x]
        said = {f"t{j}": " / ".join(dict.fromkeys(told.get(n, "") for told in here)) for j, n in enumerate(names)}
        yield {"x": x, "begin": edges[i], "end": edges[i + 1], **said}


def _series(lines: Sequence[Line]) -> tuple[alt.Color, alt.StrokeDash]:
    """Lines of one name look alike in all panels; reference lines are dashed."""
    names = {line.name: [3, 3] if line.steady is not None else [1, 0] for line in lines}
    colour = alt.Color("series:N").scale(domain=[*names]).legend(symbolType="stroke", columns=6)
    return colour, alt.StrokeDash("series:N").scale(domain=[*names], range=[*names.values()])


def _lines(panel: Panel, i: int, x: alt.X, colour: alt.Color, dash: alt.StrokeDash) -> list[alt.Chart]:
    y, here = _values(panel), f"datum.panel == {i}"
    base = named("lines").encode(x=x, y=y).transform_filter(here)
    marked = base.transform_filter("datum.mark")
    steady = named("steady").transform_filter(here).mark_rule(strokeWidth=1.6)
    return [
        steady.encode(y=y, color=colour, strokeDash=dash),
        base.transform_filter("datum.alive").mark_line().encode(color=colour, strokeDash=dash),
        base.mark_point().encode(color=colour),
        marked.mark_point(style="chosen", size=180, filled=False),
        marked.mark_text(style="chosen", dy=-16).encode(text="mark:N"),
    ]


def _chosen(chosen: tuple[float, str] | None, x: alt.X, end: float, words: bool) -> list[alt.Chart]:
    if chosen is None:
        return []
    side = -1 if (chosen[0] or end) < math.sqrt(end) else 1
    base = named("chosen").encode(x=x)
    label = base.mark_text(style="chosen", align="right" if side < 0 else "left", dx=6 * side, fontWeight=600)
    text = [label.encode(y=alt.value(-8), text="text:N")] if words else []
    return [base.mark_rule(style="chosen", opacity=0.7), *text]


def _values(panel: Panel) -> alt.Y:
    values = [v for x in panel.lines for _, v in x.points] + [x.steady for x in panel.lines if x.steady is not None]
    low, high = span(values, panel.least, 0.0, 1.0) if panel.share else span(values, panel.least)
    label = "format(100 * datum.value, '~r') + ' %'" if panel.share else "format(datum.value, ',~r')"
    axis = alt.Axis(labelExpr=label, title=None, tickCount=5, minExtent=50, maxExtent=50)
    return alt.Y("y:Q").scale(domain=[low, high], zero=False, nice=False).axis(axis)


def _log_ticks(lo: float, most: int) -> list[float]:
    """Ticks from `lo` to 1: 1, 2 and 5 times powers of ten, or only powers of ten."""
    for leading in ("125", "15", "1"):
        found = [float(f"{m}e{e}") for e in range(math.floor(math.log10(lo)), 1) for m in leading]
        found = [v for v in found if lo * 0.999 <= v <= 1]
        if len(found) <= most:
            break
    return found[:: math.ceil(len(found) / most)] if found else [1.0]
