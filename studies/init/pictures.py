"""The pictures of both studies, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
from cells import Row
from panels import SIZE, chart, density, linear, lines, rules, save
from tables import METHODS, NAMES, NETWORKS, REGIMES, VARIANTS, means, paired

ABLATED = ("snip", "grasp", "synflow", "magnitude")
PARTS = ("stable", "plain")


def draw(name: str, rows: Sequence[Row], path: Path) -> Path:
    return save({"trainability": _trainability, "methods": _methods}[name](rows), path)


def _points(found: Mapping[float, Row], series: str) -> list[Row]:
    """Means with their intervals at densities in percent."""
    return [
        {"x": 100 * d, "y": row["mean"], "series": series, "low": row["mean"] - (row["half_width"] or 0.0),
         "high": row["mean"] + (row["half_width"] or 0.0)}
        for d, row in sorted(found.items())
    ]  # fmt: skip


def _by_density(
    points: Sequence[Row], names: Sequence[str], y: str, level: Sequence[Row], title: str, air: float = 4
) -> alt.LayerChart:
    """The frame is that of the means: an interval of two seeds would dwarf them."""
    middle, at = [row["y"] for row in (*points, *level)], sorted({row["x"] for row in points})
    x, ends = density(at[0] / 100, "density (%)", at), (min(middle) - air, max(middle) + air)
    return lines(points, x, linear(alt.Y, y, ends), names, title=title) + rules(level)


def _apart(charts: Any) -> Any:
    """Charts side by side, each with a legend of its own."""
    return charts.resolve_scale(color="independent", shape="independent", strokeDash="independent")


# -- trainability ----------------------------------------------------------------------------------------------


def _trainability(rows: Sequence[Row]) -> alt.VConcatChart:
    deep = [row for row in rows if row["block"] == "map"]
    maps = [_map(regime, deep, "" if i else "linear layers") for i, regime in enumerate(REGIMES)]
    grown = [row for row in rows if row["block"] == "growth"]
    growth, stable = [], []
    for norm, y in ((True, "growth of mean squares, way through"), (False, "")):
        title = f"growth, {'with' if norm else 'without'} batch norm"
        growth.append(_growth([row for row in grown if row["norm"] == norm], title, y))
    for block, y in (("stable", "test accuracy (%)"), ("stable-plain", "")):
        title = f"ResNet-8, {'with' if block == 'stable' else 'without'} batch norm"
        stable.append(_stable([row for row in rows if row["block"] == block], title, y))
    return _apart(alt.vconcat(alt.hconcat(*maps), _apart(alt.hconcat(alt.hconcat(*growth), alt.hconcat(*stable)))))


def _map(regime: str, rows: Sequence[Row], title: str) -> alt.LayerChart:
    """Mean test accuracy by depth and density, as colours and numbers. Dense networks are never rescaled."""
    found = means(rows, ("regime", "density", "depth"), "test_accuracy")
    cells = [
        {"depth": depth, "density": 100 * at, "mean": row["mean"]}
        for (own, at, depth), row in found.items()
        if own == (regime if at < 1 or regime == "ordered" else "edge")
    ]
    base = chart(cells).encode(
        x=alt.X("density:O").sort("descending").axis(title="density (%)", labelAngle=0),
        y=alt.Y("depth:O").sort("descending").axis(title=title or None),
    )
    hue = alt.Color("mean:Q").scale(scheme="cividis", domain=[10, 90]).legend(None)
    number = alt.when("datum.mean < 54").then(alt.value("white")).otherwise(alt.value("black"))
    text = base.mark_text().encode(text=alt.Text("mean:Q").format(".0f"), color=number)
    drawn = base.mark_rect(stroke="white").encode(color=hue) + text
    return drawn.properties(title=alt.Title(regime, frame="group"), **SIZE)


def _growth(rows: Sequence[Row], title: str, y: str) -> alt.Chart:
    points = [
        {"blocks": blocks, "y": row["mean"], "network": network, "of": f"{value.partition('_')[0]}s"}
        for value in ("activation_growth", "gradient_growth")
        for (network, blocks), row in means(rows, ("network", "blocks"), value, 1.0).items()
    ]
    marks = [10.0**e for e in range(-3, 18) if max(p["y"] for p in points) < 1e5 or e % 3 == 0]
    power = "datum.value < 1e4 ? datum.label : '10^' + round(log(datum.value) / LN10)"
    axis = {"values": marks, "labelExpr": power}
    return chart(points).mark_line(point=True, strokeWidth=1.6).encode(
        x=alt.X("blocks:Q").title("residual blocks"),
        y=alt.Y("y:Q").scale(type="log").axis(title=y or None, format="~r", **axis),
        color=alt.Color("network:N").scale(domain=PARTS), strokeDash="of:N",
    ).properties(title=alt.Title(title, frame="group"), **SIZE)  # fmt: skip


def _stable(rows: Sequence[Row], title: str, y: str) -> alt.LayerChart:
    points, dense = [], []
    for part in PARTS:
        own = [row for row in rows if ("stable" in row["model"]) == (part == "stable")]
        found = {d: row for (d,), row in means(own, ("density",), "test_accuracy").items()}
        points += _points({d: row for d, row in found.items() if d < 1}, part)
        dense += [{"y": found[d]["mean"], "series": part} for d in found if d == 1]
    return _by_density(points, PARTS, y, dense, title, air=10)


# -- methods ---------------------------------------------------------------------------------------------------


def _methods(rows: Sequence[Row]) -> alt.VConcatChart:
    upper, lower = [], []
    for network in NETWORKS:
        here = [row for row in rows if row["network"] == network and row["variant"] == VARIANTS[0]]
        found = means(here, ("method", "density"), "test_accuracy")
        points = [p for m in METHODS[1:] for p in _points({d: row for (n, d), row in found.items() if n == m}, m)]
        y = "" if upper else "test accuracy (%)"
        dense = [{"y": row["mean"]} for (m, _), row in found.items() if m == "dense"]
        upper.append(_by_density(points, METHODS[1:], y, dense, f"{NAMES[network]} (dotted: dense)"))
    for method in ABLATED:
        own = [r for r in rows if r["network"] == NETWORKS[0] and r["method"] == method]
        gains = {v: paired(own, ("density",), "variant", v, VARIANTS[0]) for v in VARIANTS[1:]}
        points = [p for v, found in gains.items() for p in _points({d: row for (d,), row in found.items()}, v)]
        y = "" if lower else "points gained by the ablation"
        panel = _by_density(points, VARIANTS[1:], y, [{"y": 0}], f"LeNet-300-100, {method}")
        lower.append(panel.properties(width=170))
    return _apart(alt.vconcat(alt.hconcat(*upper), alt.hconcat(*lower)))
