"""The picture of the study: test accuracy against density, a column for each network, a row for each kind. Matplotlib.

Colours are those of Okabe and Ito, which people with the common kinds of colour blindness tell apart; methods differ in
marker and line too. Densities are drawn from dense (left) to sparse (right), by logarithm.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from tables import METHODS, Row

from sparsight.records.files import write_atomically

STYLE: dict[str, dict[str, Any]] = {
    "SiPP det": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "SiPP det max": {"color": "#E69F00", "linestyle": ":", "marker": "o"},
    "SiPP rand": {"color": "#56B4E9", "linestyle": "-", "marker": "s"},
    "SiPP hybrid": {"color": "#7A5195", "linestyle": "-", "marker": "v"},
    "magnitude": {"color": "#D55E00", "linestyle": "--", "marker": "D"},
    "SNIP": {"color": "#009E73", "linestyle": "--", "marker": "^"},
    "random": {"color": "#777777", "linestyle": ":", "marker": "x"},
}
KINDS = (
    # start, order, when, what it is called
    ("trained", "one-shot", "pruned", "trained, not retrained"),
    ("trained", "one-shot", "retrained", "trained, retrained"),
    ("trained", "cascade", "retrained", "cascade"),
    ("trained", "one-shot", "fresh", "fresh initialisation"),
    ("random", "one-shot", "retrained", "pruned at initialisation"),
)
NAMES = {
    "lenet-300-100": "LeNet-300-100",
    "lenet5": "LeNet-5",
    "fashion-mnist": "Fashion-MNIST",
    "mnist": "MNIST",
}
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.hashsalt": "sipp",
    "svg.fonttype": "path",
}


def draw(accuracy: Sequence[Row], path: Path) -> None:
    """One panel for each network and kind, with 95 % intervals; the unpruned network is a thin line."""
    rows = [row for row in accuracy if row["split"] == "test"]
    networks = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    with plt.rc_context(SETTINGS):
        size = (3.1 * max(2, len(networks)), 2.1 * len(KINDS) + 0.6)
        figure, axes = plt.subplots(len(KINDS), len(networks), figsize=size, layout="constrained", squeeze=False)
        for across, (network, data) in enumerate(networks):
            for down, (start, order, when, called) in enumerate(KINDS):
                wanted = (network, data, start, order, when)
                here = [r for r in rows if tuple(r[n] for n in ("network", "data", "start", "order", "when")) == wanted]
                _panel(axes[down][across], here)
                axes[down][across].set_title(f"{NAMES[network]}, {NAMES[data]}\n{called}" if down == 0 else called)
        for pane in axes[-1]:
            pane.set_xlabel("density (%)")
        for line in axes:
            line[0].set_ylabel("test accuracy (%)")
        marks = [plt.Line2D([], [], **STYLE[name], markersize=4, label=name) for name in METHODS if name in STYLE]
        figure.legend(handles=marks, loc="outside upper center", ncols=3)
        _save(figure, path)
        plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for name, style in STYLE.items():
        own = sorted((row for row in rows if row["what"] == name), key=lambda row: -row["density"])
        if own:
            x, y = [100 * row["kept"] for row in own], [row["mean"] for row in own]
            half = [math.nan if row["half_width"] is None else row["half_width"] for row in own]
            axes.errorbar(x, y, yerr=half, **style, linewidth=1.3, markersize=3.5, elinewidth=0.7, capsize=1.5)
    means = [row["mean"] for row in rows if row["what"] in STYLE]
    if means:  # intervals of few seeds may reach beyond what an accuracy can be
        axes.set_ylim(max(0, 5 * (min(means) // 5 - 1)), min(100.5, max(means) + 5))
    for row in rows:
        if row["what"] == "dense":
            axes.axhline(row["mean"], color="#222222", linewidth=0.6)


def _save(figure: Any, path: Path) -> None:
    """As SVG, its lines to two decimals of a point."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    long = re.compile(r"\d+\.\d{3,}")
    shorter = re.sub(
        r' (d|x|y)="[^"]*"',
        lambda found: long.sub(lambda number: f"{float(number[0]):.2f}", found[0]),
        text.getvalue(),
    )
    write_atomically(path, [shorter.encode()])
