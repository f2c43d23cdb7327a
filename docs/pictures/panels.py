"""Pictures of studies: panels of lines with intervals beside each other, by Vega-Lite, as SVG.

A row has x, y and its series; with an interval low and high, and a run if a series has several lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from sparsight.records.files import write_atomically
from sparsight.report.pages import drawn

Rows = Sequence[Mapping[str, Any]]
SIZE = {"width": 230, "height": 190}
DASHES = [[1, 0], [7, 4], [1, 3.5], [9, 3, 1, 3]]


def chart(rows: Rows) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def density(least: float, title: str = "", at: Sequence[float] = ()) -> alt.X:
    """Densities in percent, by logarithm, from dense (left) to sparse (right)."""
    ends = [80 * least, 1.25 * max(at, default=100)]
    steps = at or [m * 10.0**e for e in range(-4, 3) for m in ((1, 2, 5) if least > 0.004 else (1,))]
    marks = [value for value in steps if ends[0] <= value <= ends[1]]
    axis = {"values": marks, "format": "~r", "grid": True, "title": title or None}
    return alt.X("x:Q").scale(type="log", domain=ends, reverse=True, nice=False).axis(**axis)


def linear(axis: type[Any], title: str = "", ends: Sequence[float] = (), at: Sequence[float] = (), **scale: Any) -> Any:
    """A channel x or y with its title; its ends are those of the rows if none are given."""
    ticks = {"values": [*at], "format": "~r"} if at else {"tickCount": 6}
    if ends:
        scale = {"domain": [*ends], "nice": False, **scale}
    channel = axis(f"{axis.__name__.lower()}:Q").scale(zero=False, **scale)
    return channel.axis(**ticks, grid=True, title=title or None)


def lines(
    rows: Rows, x: alt.X, y: alt.Y, names: Sequence[str], *, band: bool = False, dots: str = "true", title: str = ""
) -> alt.LayerChart:
    """Lines by series with their intervals, as bands or bars; points at the rows for which `dots` holds."""
    hue = alt.Color("series:N").scale(domain=names)
    hue = hue.legend(symbolOpacity=1, symbolStrokeWidth=0) if dots else hue.legend(symbolType="stroke")
    base = chart(rows).encode(x=x, y=y, color=hue, detail="run:N")
    sure = base.transform_filter("isValid(datum.low)").encode(y=alt.Y("low:Q"), y2="high:Q")
    layers = [sure.mark_area(opacity=0.15, clip=True) if band else sure.mark_rule(strokeWidth=1, clip=True)]
    dash = alt.StrokeDash("series:N").scale(domain=names, range=DASHES)
    layers.append(base.mark_line(strokeWidth=1.6, clip=True).encode(strokeDash=dash))
    if dots:
        shape = alt.Shape("series:N").scale(domain=names)
        layers.append(base.transform_filter(dots).mark_point(size=26, clip=True).encode(shape=shape))
    return alt.layer(*layers).properties(title=alt.Title(title.split("\n"), frame="group"), **SIZE)


def rules(rows: Rows) -> alt.Chart:
    """Level lines at the rows' y, in the colours of their series if they have one."""
    base = chart(rows).mark_rule(strokeDash=[2, 2], color="#444").encode(y="y:Q")
    return base.encode(color="series:N") if rows and "series" in rows[0] else base


def save(picture: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [drawn(picture.configure(aria=False).to_dict(validate=False)).encode()])
    return path
