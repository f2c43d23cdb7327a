"""The picture of the study: final accuracy against epochs in all, the fixed budgets as a curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
from panels import SIZE, chart, linear, save

Row = dict[str, Any]

COLOURS = {
    "accuracy-recovery": "#0072b2", "mask-stable": "#009e73", "pqi-stable": "#e69f00",
    "information-consistent": "#d55e00", "gradient-consistent": "#cc79a7", "both-consistent": "#7a5195",
    "short-levels": "#56b4e9", "carried": "#000000", "carried-recovery": "#8c4a2f",
}  # fmt: skip
SHAPES = {
    "default": "circle", "looser (or 0.95)": "triangle-up", "paper": "square", "1 epoch": "cross",
    "2 epochs": "triangle-right", "9 epochs": "diamond", "2 epochs, first level 1": "triangle-down",
    "at most 3 epochs": "triangle-left",
}  # fmt: skip
MEANINGS = {
    "loose": "looser (or 0.95)", "0.95": "looser (or 0.95)", "1": "1 epoch", "1-carried": "1 epoch", "2": "2 epochs",
    "2-carried": "2 epochs", "9": "9 epochs", "1-2": "2 epochs, first level 1", "3": "at most 3 epochs",
}  # fmt: skip
TITLES = {
    "lenet-lottery": "LeNet-300-100, lottery ticket",
    "lenet-sap": "LeNet-300-100, SAP (1, 2)",
    "cnn-lottery": "CNN with batch norm, lottery ticket",
}


def draw(rows: Sequence[Row], into: Path) -> Path | None:
    """Draw the table's rows into the folder; the file, or None if nothing has finished."""
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    made = [_panel(block, [row for row in rows if row["block"] == block], block == blocks[0]) for block in blocks]
    return save(alt.concat(*made, columns=3), into / "accuracy.svg") if made else None


def _panel(block: str, rows: Sequence[Row], first: bool) -> alt.LayerChart:
    least, most = (of(row["seeds"] for row in rows) for of in (min, max))
    seeds = str(most) if least == most else f"{least} to {most}"
    points = [
        {"x": row["epochs"], "y": row["test"], "low": row["test"] - (row["test_half_width"] or 0.0),
         "high": row["test"] + (row["test_half_width"] or 0.0), "rule": row["rule"], "number": row["setting"],
         "setting": MEANINGS.get(row["setting"], row["setting"]), "hollow": row["setting"].endswith("-carried")}
        for row in rows
    ]  # fmt: skip
    axes = {
        "x": linear(alt.X, "training epochs in all, first and last level too"),
        "y": linear(alt.Y, "final test accuracy (%)" if first else ""),
    }
    bars = {"x": axes["x"], "y": alt.Y("low:Q"), "y2": "high:Q"}
    fixed = chart([row for row in points if row["rule"] == "fixed"])
    hue = alt.Color("rule:N").scale(domain=[*COLOURS], range=[*COLOURS.values()]).legend(columns=1, orient="right")
    shape = alt.Shape("setting:N").scale(domain=[*SHAPES], range=[*SHAPES.values()])
    ruled = chart([row for row in points if row["rule"] in COLOURS])
    mark = ruled.encode(**axes, shape=shape.legend(columns=1, orient="right"))
    return alt.layer(
        fixed.mark_rule(color="#444").encode(**bars),
        fixed.mark_line(color="#444", strokeWidth=1.4).encode(**axes),
        fixed.mark_text(dx=8, dy=10).encode(**axes, text="number:N"),
        ruled.mark_rule().encode(**bars, color=hue),
        mark.transform_filter("!datum.hollow").mark_point(size=60).encode(color=hue),
        mark.transform_filter("datum.hollow").mark_point(size=60, filled=False).encode(color=hue),
    ).properties(
        title=alt.Title(f"{TITLES.get(block, block)} ({seeds} seed{'s' if most > 1 else ''})", frame="group"),
        **{**SIZE, "height": 260},
    )
