"""Shared parts of all charts, heat maps, and small multiples."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sparsight.report.escape import columns, shorten

Rows = Sequence[Mapping[str, Any]]
WIDE = "container"
"""A width that the page sets."""


def spec(chart: Any, **rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The Vega-Lite spec of an altair chart with `named` data, without a config. Equal charts give equal specs.

    `rows` are these data; they bypass altair, which would copy them many times.
    """
    found = {key: value for key, value in chart.to_dict(validate=False).items() if key not in ("$schema", "config")}
    names: dict[str, str] = {}  # altair numbers views across charts
    text = re.sub(r'"view_\d+"', lambda at: names.setdefault(at[0], f'"view_{len(names)}"'), json.dumps(found))
    return {**json.loads(text), "datasets": {name: [*of] for name, of in rows.items()}}


def named(name: str) -> alt.Chart:
    """A chart of the rows that `spec` gets under this name."""
    return alt.Chart(alt.NamedData(name=name))


def tips(names: Mapping[str, str]) -> list[alt.Tooltip]:
    """The tooltip of a mark: fields and their titles."""
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in names.items()]


def span(values: Iterable[float], least: float, lo: float = -math.inf, hi: float = math.inf) -> tuple[float, float]:
    """The range of an axis: `values` with a margin, at least `least` wide, within [lo, hi]."""
    seen = [v for v in values if math.isfinite(v)] or [max(lo, 0.0)]
    low, high = min(seen), max(seen)
    air = max(0.07 * (high - low), (least - (high - low)) / 2)
    low, high = max(low - air, lo), min(high + air, hi)
    return (low, high) if high - low >= 0.5 * least else (max(high - least, lo), min(low + least, hi))


# -- maps --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    row: str
    column: str
    value: float | None
    shown: str
    text: str = ""  # inside the cell
    gone: bool = False


@dataclass(frozen=True)
class Ramp:
    """The range of values that a map's colours cover."""

    low: float
    high: float
    format: str
    log: bool = False

    def place(self, value: float | None) -> float:
        """The position of a value between the ends, 0 to 1; 0 for None."""
        if value is None or (self.log and value <= 0):
            return 0.0
        f = math.log if self.log else float
        return (f(value) - f(self.low)) / ((f(self.high) - f(self.low)) or 1.0)


def heat(cells: Sequence[Cell], names: tuple[str, str, str], ramp: Ramp, frame: str | None = None) -> dict[str, Any]:
    """A heat map with a row and a column for each name, in order of appearance; `frame` is a column to highlight.

    `names` are the titles of rows, columns and values.
    """
    rows, across = (list(dict.fromkeys(found)) for found in zip(*((x.row, x.column) for x in cells), strict=True))
    high = next(h for most, h in ((12, 28), (30, 20), (10**9, 15)) if len(rows) <= most)
    made = [{**vars(x), "high": ramp.place(x.value) > 0.5} for x in cells]
    plain = {"title": None, "domain": False, "ticks": False}
    y = (
        alt.Y("row:N")
        .scale(domain=rows)
        .axis(alt.Axis(**plain, labelLimit=330, labelFont="monospace", labelExpr=SHORT))
    )
    above = {**plain, "title": names[1], "orient": "top", "labelAngle": 0, "labelSeparation": 8}
    x = alt.X("column:N").scale(domain=across).axis(alt.Axis(**above, labelOverlap="greedy"))
    scale = alt.Scale(type="log" if ramp.log else "linear", domain=[ramp.low, ramp.high], range="ramp")
    legend = alt.Legend(format=ramp.format, title=names[2], orient="bottom", titleOrient="left", titlePadding=10)
    base = named("cells").encode(x=x, y=y)
    tip = tips({"row": names[0], "column": names[1], "shown": names[2]})
    full = base.transform_filter("!datum.gone").mark_rect(cornerRadius=2)
    layers = [
        full.encode(color=alt.Color("value:Q").scale(scale).legend(legend), tooltip=tip),
        base.transform_filter("datum.gone").mark_rect(style="gone", cornerRadius=2).encode(tooltip=tip),
        base.transform_filter("!datum.high").mark_text(style="on-low").encode(text="text:N"),
        base.transform_filter("datum.high").mark_text(style="on-high").encode(text="text:N"),
    ]
    if frame is not None:
        layers.append(named("frame").mark_rect(style="frame", filled=False).encode(x=x))
    drawn = alt.layer(*layers).properties(width=WIDE, height=alt.Step(high))
    return spec(drawn, cells=made, frame=[{"column": frame}])


def beside(names: Iterable[str]) -> int:
    """The width of a map's row names, in pixels."""
    return round(12 + 7.2 * max((columns(shorten(x, 42)) for x in names), default=0))


SHORT = "length(datum.label) > 42 ? slice(datum.label, 0, 20) + '…' + slice(datum.label, -21) : datum.label"
"""Shortens a name of more than 42 letters like `shorten`, as a Vega expression."""


# -- small multiples ---------------------------------------------------------------------------------------------

CELL = 178
"""The width of a small chart, in pixels."""


def small(
    rows: Rows,
    domain: tuple[float, float],
    tip: Mapping[str, str],
    *,
    share: bool = False,
    series: Sequence[str] = (),
    apart: bool = False,
) -> dict[str, Any]:
    """A small chart for each `of`, with a line of `y` by `x` for each `series`. Axes are shared; x not if `apart`."""
    label = "format(100 * datum.value, '~r') + ' %'" if share else "format(datum.value, ',.3~r')"
    legend = alt.Legend(symbolType="stroke") if len(series) > 1 else None
    x = alt.X("x:Q").axis(title=None, tickCount=3).scale(nice=False)
    y = alt.Y("y:Q").axis(title=None, tickCount=3, labelExpr=label)
    base = named("rows").encode(x=x, y=y.scale(domain=list(domain), zero=False, nice=False), tooltip=tips(tip))
    if series:
        base = base.encode(color=alt.Color("series:N").scale(domain=[*series]).legend(legend))
    pictures = alt.layer(base.mark_line(strokeWidth=1.8), base.mark_point(size=18)).properties(
        width=CELL - 62, height=76
    )
    order = [*dict.fromkeys(str(x["of"]) for x in rows)]
    drawn = pictures.facet(facet=alt.Facet("of:N").sort(order), columns=5, spacing=14)
    return spec(drawn.resolve_scale(x="independent") if apart else drawn, rows=rows)
