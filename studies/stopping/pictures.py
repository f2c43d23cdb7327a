"""The picture of the study: final accuracy against epochs in all, the fixed budgets as a curve. Needs matplotlib.

Colours are those of Okabe and Ito, which people with the common kinds of colour blindness tell apart; settings differ
in marker.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsight.records.files import write_atomically

Row = dict[str, Any]

COLOURS = {
    "accuracy-recovery": "#0072B2",
    "mask-stable": "#009E73",
    "pqi-stable": "#E69F00",
    "information-consistent": "#D55E00",
    "gradient-consistent": "#CC79A7",
    "both-consistent": "#7A5195",
    "short-levels": "#56B4E9",
    "carried": "#000000",
    "carried-recovery": "#8c4a2f",
}
MARKERS = {"default": "o", "loose": "^", "0.95": "^", "paper": "s"}
MARKERS |= {"1": "P", "2": "X", "1-carried": "P", "2-carried": "X", "9": "D", "1-2": "v", "3": "*"}
FILLS = {"1-carried": "none", "2-carried": "none"}
MEANINGS = {"o": "default", "^": "looser (or 0.95)", "s": "paper", "P": "1 epoch", "X": "2 epochs", "D": "9 epochs"}
MEANINGS |= {"v": "2 epochs, first level 1", "*": "at most 3 epochs"}
TITLES = {
    "lenet-lottery": "LeNet-300-100, lottery ticket",
    "lenet-sap": "LeNet-300-100, SAP (1, 2)",
    "cnn-lottery": "CNN with batch norm, lottery ticket",
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "stopping",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}


def draw(rows: Sequence[Row], into: Path) -> Path | None:
    """Draw the table's rows into the folder; the file, or None where nothing has finished."""
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    if not blocks:
        return None
    into.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure, flat = plt.subplots(
            1, len(blocks), figsize=(max(4.0 * len(blocks), 6), 4.6), layout="constrained", squeeze=False
        )
        for axes, block in zip(flat.flat, blocks, strict=True):
            _panel(axes, block, [row for row in rows if row["block"] == block])
        figure.supylabel("final test accuracy (%)", fontsize=10)
        figure.supxlabel("training epochs in all, first and last level too", fontsize=10)
        _legend(figure, rows)
        _save(figure, into / "accuracy.svg")
        plt.close(figure)
    return into / "accuracy.svg"


def _panel(axes: Axes, block: str, rows: Sequence[Row]) -> None:
    fixed = sorted((row for row in rows if row["rule"] == "fixed"), key=lambda row: row["epochs"])
    line = {"color": "#444444", "linewidth": 1.4, "marker": "|", "markersize": 7, "capsize": 2, "zorder": 2}
    if fixed:
        x, y = [row["epochs"] for row in fixed], [row["test"] for row in fixed]
        axes.errorbar(x, y, yerr=_halves(fixed), elinewidth=0.8, **line)
        for row in fixed:
            axes.annotate(
                row["setting"], (row["epochs"], row["test"]), (3, -11), textcoords="offset points", fontsize=8
            )
    for row in rows:
        if row["rule"] in COLOURS:
            look = {"color": COLOURS[row["rule"]], "marker": MARKERS[row["setting"]], "zorder": 3}
            look["markerfacecolor"] = FILLS.get(row["setting"], look["color"])
            axes.errorbar(
                [row["epochs"]], [row["test"]], yerr=_halves([row]), elinewidth=0.8, alpha=0.9, markersize=6, **look
            )
    least, most = (of(row["seeds"] for row in rows) for of in (min, max))
    seeds = str(most) if least == most else f"{least} to {most}"
    axes.set_title(f"{TITLES.get(block, block)} ({seeds} seed{'s' if most > 1 else ''})", loc="left")


def _halves(rows: Sequence[Row]) -> list[float]:
    return [row["test_half_width"] or 0.0 for row in rows]


def _legend(figure: Figure, rows: Sequence[Row]) -> None:
    seen = {row["rule"] for row in rows}
    lines = [plt.Line2D([], [], color="#444444", linewidth=1.4, marker="|", label="fixed epochs a level (number)")]
    for rule, colour in COLOURS.items():
        if rule in seen:
            lines.append(plt.Line2D([], [], color=colour, linestyle="", marker="o", label=rule))
    for marker, meaning in MEANINGS.items():
        lines.append(plt.Line2D([], [], color="#888888", linestyle="", marker=marker, label=meaning))
    figure.legend(handles=lines, loc="outside upper center", ncols=5)


def _save(figure: Figure, path: Path) -> None:
    """As SVG, its lines to two decimals of a point: nothing to see is lost, and the file is half as large."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    long = re.compile(r"\d+\.\d{3,}")
    drawn = re.sub(
        r' (d|x|y)="[^"]*"', lambda found: long.sub(lambda n: f"{float(n[0]):.2f}", found[0]), text.getvalue()
    )
    write_atomically(path, [drawn.encode()])
