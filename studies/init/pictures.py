"""The pictures of both studies, as SVG. Needs matplotlib. Colours are those of Okabe and Ito."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from cells import Row
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from tables import NAMES, NETWORKS, REGIMES, VARIANTS, means, paired

from sparsight.records.files import write_atomically

ABLATED = ("snip", "grasp", "synflow", "magnitude")
STYLE: dict[str, dict[str, Any]] = {
    "snip": {"color": "#0072B2", "marker": "o"},
    "grasp": {"color": "#D55E00", "marker": "s"},
    "synflow": {"color": "#009E73", "marker": "D"},
    "magnitude": {"color": "#CC79A7", "marker": "^"},
    "random": {"color": "#777777", "marker": "x", "linestyle": ":"},
    "sbp": {"color": "#56B4E9", "marker": "v", "linestyle": "--"},
    "sbp-sr": {"color": "#222222", "marker": "P", "linestyle": "--"},
    "plain": {"color": "#D55E00", "marker": "s"},
    "stable": {"color": "#0072B2", "marker": "o"},
}
SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 9.5, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False, "svg.hashsalt": "init",
    "svg.fonttype": "path", "figure.facecolor": "white", "grid.color": "#e4e4e4", "grid.linewidth": 0.7,
}  # fmt: skip


def draw(name: str, rows: Sequence[Row], path: Path) -> Path:
    """Draw a study into a file; its lines to two decimals of a point, which is half of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(SETTINGS):
        figure = {"trainability": _trainability, "methods": _methods}[name](rows)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    long = re.compile(r"\d+\.\d{3,}")
    shorter = [re.compile(r' (d|x|y)="[^"]*"'), lambda part: long.sub(lambda n: f"{float(n[0]):.2f}", part[0])]
    write_atomically(path, [shorter[0].sub(shorter[1], text.getvalue()).encode()])
    return path


def _percent_axis(axes: Axes, densities: Sequence[float]) -> None:
    """Densities from dense to sparse, by logarithm, a tick at each."""
    axes.set_xscale("log")
    axes.set_xlim(130 * max(densities), 77 * min(densities))
    axes.xaxis.set_major_locator(FixedLocator([100 * d for d in densities]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("density (%)")
    axes.grid(True)


def _line(axes: Axes, points: dict[float, Row], style: dict[str, Any], label: str, scale: float = 1.0) -> None:
    at = sorted(points, reverse=True)
    if at:
        half = [points[x]["half_width"] or 0.0 for x in at]
        shared = {"linewidth": 1.4, "markersize": 4.5, "capsize": 2, "elinewidth": 0.8}
        axes.errorbar([scale * x for x in at], [points[x]["mean"] for x in at], half, label=label, **shared, **style)


# -- trainability ----------------------------------------------------------------------------------------------


def _trainability(rows: Sequence[Row]) -> Figure:
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
    deep = [row for row in rows if row["block"] == "map"]
    for i, regime in enumerate(REGIMES):
        _map(axes[0, i], regime, deep)
    axes[0, 0].set_ylabel("linear layers")
    grown = [row for row in rows if row["block"] == "growth"]
    for at, norm in ((axes[1, 0], True), (axes[1, 1], False)):
        _growth(at, [row for row in grown if row["norm"] == norm])
        at.set_title(f"growth, {'with' if norm else 'without'} batch norm", loc="left")
    axes[1, 0].set_ylabel("growth of mean squares, way through")
    axes[1, 1].legend(fontsize=8, loc="upper left")
    for at, block in ((axes[1, 2], "stable"), (axes[1, 3], "stable-plain")):
        _stable(at, [row for row in rows if row["block"] == block])
        at.set_title(f"ResNet-8, {'with' if block == 'stable' else 'without'} batch norm", loc="left")
    axes[1, 2].set_ylabel("test accuracy (%)")
    axes[1, 2].legend(fontsize=8)
    return figure


def _map(axes: Axes, regime: str, rows: Sequence[Row]) -> None:
    """Mean test accuracy by depth and density, as colours and numbers. Dense networks are never rescaled."""
    depths = sorted({row["depth"] for row in rows})
    densities = sorted({row["density"] for row in rows}, reverse=True)
    found = means(rows, ("regime", "density", "depth"), "test_accuracy")
    for x, density in enumerate(densities):
        for y, depth in enumerate(depths):
            own = regime if density < 1 or regime == "ordered" else "edge"
            seen = found.get((own, density, depth))
            if seen is None:
                continue
            share = min(max((seen["mean"] - 10) / 80, 0), 1)
            box = {"facecolor": plt.get_cmap("cividis")(share), "edgecolor": "white"}
            axes.add_patch(plt.Rectangle((x - 0.5, y - 0.5), 1, 1, **box))
            dark = share < 0.55
            axes.text(x, y, f"{seen['mean']:.0f}", ha="center", va="center", color="white" if dark else "black")
    axes.set(xlim=(-0.5, max(len(densities), 1) - 0.5), ylim=(-0.5, max(len(depths), 1) - 0.5))
    axes.set_xticks(range(len(densities)), [f"{100 * d:g}" for d in densities])
    axes.set_yticks(range(len(depths)), [str(d) for d in depths])
    axes.set_xlabel("density (%)")
    axes.set_title(regime, loc="left")


def _growth(axes: Axes, rows: Sequence[Row]) -> None:
    for network in ("plain", "stable"):
        here = [row for row in rows if row["network"] == network]
        for value, line in (("activation_growth", "-"), ("gradient_growth", ":")):
            found = means(here, ("blocks",), value, 1.0)
            at = sorted(blocks for (blocks,) in found)
            name = f"{network}, {value.partition('_')[0]}s"
            style = {**STYLE[network], "linestyle": line, "markersize": 4.5, "linewidth": 1.4}
            axes.plot(at, [found[(b,)]["mean"] for b in at], label=name, **style)
    axes.set_yscale("log")
    axes.set_xlabel("residual blocks")
    axes.grid(True)


def _stable(axes: Axes, rows: Sequence[Row]) -> None:
    for part in ("plain", "stable"):
        found = means(
            [r for r in rows if ("stable" in r["model"]) == (part == "stable")], ("density",), "test_accuracy"
        )
        _line(axes, {d: row for (d,), row in found.items() if d < 1}, STYLE[part], part, 100)
        if (1.0,) in found:
            axes.axhline(found[(1.0,)]["mean"], color=STYLE[part]["color"], linewidth=0.9, linestyle=":")
    if densities := sorted({row["density"] for row in rows} - {1.0}):
        _percent_axis(axes, densities)


# -- methods ---------------------------------------------------------------------------------------------------


def _methods(rows: Sequence[Row]) -> Figure:
    figure = plt.figure(figsize=(12, 7.6), layout="constrained")
    both: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    upper, lower = both
    axes = upper.subplots(1, 3)
    for at, network in zip(axes, NETWORKS, strict=True):
        _compared(at, [row for row in rows if row["network"] == network and row["variant"] == VARIANTS[0]])
        at.set_title(NAMES[network], loc="left")
    axes[0].set_ylabel("test accuracy (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside upper center", ncols=8)
    ablated = [row for row in rows if row["network"] == NETWORKS[0]]
    for i, (at, method) in enumerate(zip(lower.subplots(1, 4), ABLATED, strict=True)):
        _ablation(at, method, ablated, i == 0)
    return figure


def _compared(axes: Axes, rows: Sequence[Row]) -> None:
    """All methods on one network. The frame is that of the means: an interval of two seeds would dwarf them."""
    found = means(rows, ("method", "density"), "test_accuracy")
    for method in STYLE:
        _line(axes, {d: row for (m, d), row in found.items() if m == method}, STYLE[method], method, 100)
    if ("dense", 1.0) in found:
        axes.axhline(found["dense", 1.0]["mean"], color="#444444", linewidth=0.9, linestyle=":", label="dense")
    if densities := sorted({row["density"] for row in rows} - {1.0}):
        _percent_axis(axes, densities)
        middle = [row["mean"] for row in found.values()]
        axes.set_ylim(min(middle) - 4, max(middle) + 3)


def _ablation(axes: Axes, method: str, rows: Sequence[Row], first: bool) -> None:
    middle = [0.0]
    for variant, style in zip(VARIANTS[1:], ({"color": "#D55E00", "marker": "s"}, {"color": "#0072B2", "marker": "o"}),
                              strict=True):  # fmt: skip
        found = paired([r for r in rows if r["method"] == method], ("density",), "variant", variant, VARIANTS[0])
        _line(axes, {d: row for (d,), row in found.items()}, style, variant, 100)
        middle += [row["mean"] for row in found.values()]
    axes.axhline(0, color="#444444", linewidth=0.9)
    axes.set_ylim(min(middle) - 4, max(middle) + 4)
    if densities := sorted({row["density"] for row in rows} - {1.0}):
        _percent_axis(axes, densities)
    axes.set_title(f"LeNet-300-100, {method}", loc="left")
    if first:
        axes.set_ylabel("points gained by the ablation")
        axes.legend(fontsize=8)
