"""How the pictures of the study look: colours, axes of density, curves on common densities, files. Needs matplotlib.

Colours are those of Okabe and Ito, which people with the common kinds of colour blindness tell apart; methods differ
in marker and line too. Densities are drawn from dense (left) to sparse (right), by logarithm.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compare import at_density
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from runs import Run

from sparsight.compare import mean
from sparsight.records.files import write_atomically

STYLE: dict[str, dict[str, Any]] = {
    "SAP (0.5, 1)": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "SAP (1, 2)": {"color": "#D55E00", "linestyle": "-", "marker": "s"},
    "lottery ticket": {"color": "#009E73", "linestyle": "--", "marker": "D"},
    "one-shot": {"color": "#7A5195", "linestyle": ":", "marker": "^"},
}
LAYERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#444444")
NAMES = {"mlp": "MLP", "lenet-300-100": "LeNet-300-100", "linear": "linear", "cnn": "CNN, quarter width"}
SETTINGS: dict[Any, Any] = {
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
    "svg.hashsalt": "pq-index",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}


def save(figure: Figure, path: Path) -> None:
    """As SVG, its lines to two decimals of a point: nothing to see is lost, and the file is half as large."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    long, short = re.compile(r"\d+\.\d{3,}"), lambda found: f"{float(found[0]):.2f}"
    drawn = re.sub(r' (d|x|y)="[^"]*"', lambda attribute: long.sub(short, attribute[0]), text.getvalue())
    write_atomically(path, [drawn.encode()])


def percent(value: float, _: object = None) -> str:
    return f"{value:g}"


def density_axis(axes: Axes, least: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(125, 100 * least * 0.8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if least > 0.004 else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(percent))


def common(runs: Sequence[Run], value: str, points: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Densities that all runs have, the mean of their curves there, and the interval's ends (NaN with one run)."""
    curves = [[(d, v) for d, v in run.curve(value) if d > 0] for run in runs]
    curves = [curve for curve in curves if len(curve) > 1]
    if not curves:
        empty = np.array([])
        return empty, empty, empty, empty
    low, high = max(min(d for d, _ in c) for c in curves), min(max(d for d, _ in c) for c in curves)
    inside = np.geomspace(high, low, points)[1:-1].tolist() if low < high else []
    at = [high, *inside, low]  # the ends exactly: beyond them nothing is known
    seen = [mean(at_density(c, d) for c in curves) for d in at]
    middle = np.array([m.mean if m else math.nan for m in seen])
    half = np.array([m.half_width if m and m.half_width is not None else math.nan for m in seen])
    return np.array(at), middle, middle - half, middle + half


def panes(count: int, width: float = 3.6, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(width * columns, 6), height * rows + 0.5), layout="constrained", squeeze=False
    )
    flat = list(axes.flat)
    for spare in flat[count:]:
        spare.set_visible(False)
    return figure, flat[:count]


def legend(figure: Figure, names: Sequence[str], turns: bool) -> None:
    style = {"linewidth": 1.8, "markersize": 5}
    lines = [plt.Line2D([], [], **STYLE[name], **style, label=name) for name in names]
    if turns:
        mark = {"color": "#222222", "linestyle": "", "markersize": 8, "markerfacecolor": "white"}
        lines.append(plt.Line2D([], [], marker="v", label="minimum (a later rise confirms it)", **mark))
        lines.append(
            plt.Line2D([], [], marker="*", label="peak (a later fall confirms it)", **{**mark, "markersize": 10})
        )
    figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), 4))
