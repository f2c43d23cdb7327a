"""The pictures of the study, from its rows: SVG files for the documentation. Needs matplotlib."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from drawing import LAYERS, NAMES, SETTINGS, STYLE, common, density_axis, legend, panes, percent, save
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from runs import METHODS, Cells, Run, cells, places

from sparsight.compare import mean


def draw(runs: Sequence[Run], into: Path, published: Path) -> list[Path]:
    """Draw what the runs allow into the folder; the files."""
    into.mkdir(parents=True, exist_ok=True)
    grid, made = cells(runs), []
    with plt.rc_context(SETTINGS):
        for name, picture in {
            "accuracy": lambda: _panels(grid, _accuracy, "test accuracy (%)", "density (%)"),
            "pq-index": lambda: _panels(grid, _index("pq_05_1"), "PQ index (0.5, 1)", "density (%)", turns=True),
            "pq-index-1-2": lambda: _panels(grid, _index("pq_1_2"), "PQ index (1, 2)", "density (%)", turns=True),
            "epochs": lambda: _panels(grid, _epochs, "test accuracy (%)", "training epochs in all"),
            "layers": lambda: _layers(grid, "mlp", "global"),
            "layers-cnn": lambda: _layers(grid, "cnn", "global"),
            "cifar10": lambda: _beside(grid, json.loads(published.read_text())["trajectories"]),
            "ablations": lambda: _ablations(runs),
        }.items():
            figure = picture()
            if figure is not None:
                made.append(into / f"{name}.svg")
                save(figure, made[-1])
                plt.close(figure)
    return made


Panel = Callable[[Axes, str, Sequence[Run]], None]


def _panels(grid: Cells, panel: Panel, y: str, x: str, turns: bool = False) -> Figure | None:
    """One panel for each network and scope, all methods in each."""
    at = places(grid)
    if not at:
        return None
    figure, flat = panes(len(at))
    for axes, (network, scope) in zip(flat, at, strict=True):
        here = [(m, grid[network, scope, m]) for m in METHODS if (network, scope, m) in grid]
        for method, runs in here:
            panel(axes, method, runs)
        if x.startswith("density"):
            same = [runs for cell, runs in grid.items() if cell[0] == network]
            density_axis(axes, min(level["density"] for runs in same for run in runs for level in run.levels))
        seeds = max(len(runs) for _, runs in here)
        axes.set_title(f"{NAMES[network]}, {scope} ({seeds} seed{'s' if seeds > 1 else ''})", loc="left")
    figure.supylabel(y, fontsize=10)
    figure.supxlabel(x, fontsize=10)
    legend(figure, [m for m in METHODS if any(cell[2] == m for cell in grid)], turns)
    return figure


def _band(axes: Axes, method: str, runs: Sequence[Run], value: str, factor: float) -> None:
    at, middle, low, high = common(runs, value)
    if not len(at):
        return
    style = STYLE[method]
    axes.plot(100 * at, factor * middle, linewidth=1.6, markersize=4, markevery=(4, 9), **style)
    if not np.isnan(low).any():
        axes.fill_between(100 * at, factor * low, factor * high, color=style["color"], alpha=0.16, linewidth=0)


def _accuracy(axes: Axes, method: str, runs: Sequence[Run]) -> None:
    """Mean over seeds with its interval."""
    _band(axes, method, runs, "test_accuracy", 100)
    seen = [100 * level["test_accuracy"] for run in runs for level in run.levels]
    _frame(axes, min(seen), max(seen))


def _frame(axes: Axes, worst: float, best: float) -> None:
    """Accuracies down to 22 points below the best, whatever the intervals do; wider for each method that is added."""
    low, high = max(worst - 1, best - 22), best + 0.7
    if len(axes.lines) > 1:
        low, high = min(low, axes.get_ylim()[0]), max(high, axes.get_ylim()[1])
    axes.set_ylim(low, high)


def _index(pair: str) -> Panel:
    """Every run as a line, with the turning points that are confirmed."""

    def panel(axes: Axes, method: str, runs: Sequence[Run]) -> None:
        style = STYLE[method]
        mark = {"markerfacecolor": "white", "markeredgecolor": style["color"], "markeredgewidth": 1.4, "zorder": 4}
        for run in runs:
            curve = run.curve(pair)
            x, y = [100 * d for d, _ in curve], [v for _, v in curve]
            axes.plot(x, y, color=style["color"], linestyle=style["linestyle"], linewidth=1.1, alpha=0.85)
            turns = run.shape(pair)
            for marker, size, level in (("v", 7, turns.minimum if turns.rises else None), ("*", 10, turns.peak)):
                if level is not None:
                    at = run.levels[level]
                    axes.plot(100 * at["density"], at[pair], marker, markersize=size, **mark)

    return panel


def _epochs(axes: Axes, method: str, runs: Sequence[Run]) -> None:
    """Mean over seeds by level, where all runs have it; one-shot as it was run, level after level."""
    style, most = STYLE[method], min(len(run.levels) for run in runs)
    x = [runs[0].levels[i]["cumulative_epochs"] for i in range(most)]
    seen = [mean([100 * run.levels[i]["test_accuracy"] for run in runs]) for i in range(most)]
    y = np.array([m.mean for m in seen if m])
    axes.plot(x, y, linewidth=1.5, markersize=3, **style)
    half = np.array([m.half_width if m and m.half_width is not None else math.nan for m in seen])
    if not np.isnan(half).any():
        axes.fill_between(x, y - half, y + half, color=style["color"], alpha=0.16, linewidth=0)
    _frame(axes, float(y.min()), float(y.max()))


# -- layers, published trajectories, ablations -----------------------------------------------------------------


def _layers(grid: Cells, network: str, scope: str) -> Figure | None:
    """Density and PQ index of every layer against the network's density, the lowest seed; a column for each method."""
    here = [(m, grid[network, scope, m][0]) for m in METHODS if (network, scope, m) in grid]
    if not here:
        return None
    figure, axes = plt.subplots(
        2, len(here), figsize=(max(3.1 * len(here), 5), 5.6), layout="constrained", squeeze=False, sharey="row"
    )
    least = min(level["density"] for _, run in here for level in run.levels)
    for column, (method, run) in enumerate(here):
        upper, lower = axes[0, column], axes[1, column]
        for i, name in enumerate(x["layer"] for x in run.layers[0]):
            color = LAYERS[i % len(LAYERS)]
            seen = [(level["density"], run.layers[level["level"]][i]) for level in run.levels]
            label = name.removesuffix(".weight")
            upper.plot([100 * d for d, _ in seen], [100 * x["density"] for _, x in seen], color=color, label=label)
            known = [(d, x["pq_05_1"]) for d, x in seen if x["pq_05_1"] is not None]
            lower.plot([100 * d for d, _ in known], [v for _, v in known], color=color)
        upper.set_yscale("log")
        upper.yaxis.set_major_formatter(FuncFormatter(percent))
        ends = [100, 100 * least]
        upper.plot(ends, ends, color="#999999", linewidth=0.9, linestyle=":", label="as the network")
        upper.plot(ends, [v / 10 for v in ends], color="#999999", linewidth=0.9, linestyle="--", label="a tenth of it")
        upper.set_title(method, loc="left")
        for at in (upper, lower):
            density_axis(at, least)
    axes[0, 0].set_ylabel("density of the layer (%)")
    axes[1, 0].set_ylabel("PQ index (0.5, 1) of the layer")
    figure.supxlabel(f"density of the network (%): {NAMES[network]}, {scope} scope, one seed", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 7))
    return figure


def _beside(grid: Cells, published: Sequence[dict[str, Any]]) -> Figure | None:
    """The published trajectories on CIFAR-10 and ours, index and accuracy below dense, on one axis of density."""
    whose = {"sap (0.5, 1)": METHODS[0], "sap (1, 2)": METHODS[1]}
    whose |= {"lottery ticket, rate 0.2": METHODS[2], "one-shot, rate 0.2": METHODS[3]}
    ours = [network for network in ("mlp", "cnn") if (network, "global", METHODS[0]) in grid]
    sources = [("published", "cnn"), ("published", "resnet18"), *(("ours", network) for network in ours)]
    figure, axes = plt.subplots(
        2, len(sources), figsize=(3.1 * len(sources), 5.6), layout="constrained", squeeze=False, sharey="row"
    )
    for column, (source, network) in enumerate(sources):
        for method in METHODS:
            if source == "ours":
                points = _own(grid.get((network, "global", method), ()))
            else:
                points = _theirs(next(t for t in published if t["network"] == network and whose[t["method"]] == method))
            for row in (0, 1):
                known = [(p[0], p[row + 1]) for p in points if p[row + 1] is not None]
                axes[row, column].plot(
                    [100 * d for d, _ in known], [v for _, v in known], linewidth=1.4, markersize=3, **STYLE[method]
                )
        name = f"CIFAR-10, {network}\n(read off their figures)" if source == "published" else NAMES[network]
        axes[0, column].set_title(name if source == "published" else f"Fashion-MNIST,\n{name}, seed 0", loc="left")
        for row in (0, 1):
            density_axis(axes[row, column], 0.0005)
        axes[1, column].set_ylim(-25, 3)
    axes[0, 0].set_ylabel("PQ index (0.5, 1)")
    axes[1, 0].set_ylabel("accuracy above dense (points)")
    figure.supxlabel("density (%)", fontsize=10)
    legend(figure, METHODS, turns=False)
    return figure


def _own(runs: Sequence[Run]) -> list[tuple[float, float | None, float]]:
    if not runs:
        return []
    levels = runs[0].levels
    return [(x["density"], x["pq_05_1"], 100 * (x["test_accuracy"] - levels[0]["test_accuracy"])) for x in levels]


def _theirs(trajectory: dict[str, Any]) -> list[tuple[float, float | None, float | None]]:
    levels = trajectory["levels"]
    dense = levels[0].get("accuracy")
    found = []
    for x in levels:
        accuracy = x.get("accuracy")
        if x["density"] > 0:
            found.append((x["density"], x["index"], None if accuracy is None else 100 * (accuracy - dense)))
    return found


def _ablations(runs: Sequence[Run]) -> Figure | None:
    """Test accuracy and PQ index of the ablations, a column for each parameter."""
    own = [run for run in runs if run.what["kind"] == "ablation"]
    if not own:
        return None
    base = {
        run.what["method"]: run
        for run in runs
        if run.what["kind"] == "grid"
        and (run.what["network"], run.what["scope"], run.what["seed"]) == ("mlp", "global", 0)
    }
    columns = _varied(own, base)
    figure, axes = plt.subplots(
        2, len(columns), figsize=(max(2.9 * len(columns), 5), 5.6), layout="constrained", squeeze=False, sharey="row"
    )
    for column, (name, some) in enumerate(columns.items()):
        shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(some)))
        for color, (label, run) in zip(shades, some, strict=True):
            kept = run.levels[:16]
            x = [100 * level["density"] for level in kept]
            axes[0, column].plot(
                x, [100 * level["test_accuracy"] for level in kept], "o-", color=color, ms=2.5, lw=1.2, label=label
            )
            known = [(100 * level["density"], level["pq_05_1"]) for level in kept if level["pq_05_1"] is not None]
            axes[1, column].plot([d for d, _ in known], [v for _, v in known], "o-", color=color, ms=2.5, lw=1.2)
        least = max(min(level["density"] for _, run in some for level in run.levels[:16]), 1e-4)
        for row in (0, 1):
            density_axis(axes[row, column], least)
        axes[0, column].set_title(name, loc="left")
        axes[0, column].legend(fontsize=8, loc="lower left")
    best = max(100 * level["test_accuracy"] for run in own for level in run.levels)
    axes[0, 0].set_ylim(best - 8, best + 1)  # a network that has collapsed would hide the rest
    axes[0, 0].set_ylabel("test accuracy (%)")
    axes[1, 0].set_ylabel("PQ index (0.5, 1)")
    figure.supxlabel("density (%): MLP, global scope, seed 0, at most 15 levels", fontsize=10)
    return figure


def _varied(own: Sequence[Run], base: dict[str, Run]) -> dict[str, list[tuple[str, Run]]]:
    """By parameter: its values with their runs, those of the grid among them, in order."""
    usual = {"eta": 0.0, "gamma": 1.0, "beta": 0.9}
    found: dict[str, list[tuple[float, str, Run]]] = {}
    for run in [*base.values(), *own]:
        what = run.what
        if what["p"] is None:
            continue
        changed = [name for name in usual if what[name] != usual[name]]
        p, q = what["p"], what["q"]
        if not changed and q == 1:
            found.setdefault("p (q = 1)", []).append((p, f"{p:g}", run))
        if not changed and p == 1:
            found.setdefault("q (p = 1)", []).append((q, f"{q:g}", run))
        for name, start in (("eta", (0.5, 1)), ("gamma", (0.5, 1)), ("beta", (1, 2))):
            if (p, q) == start and changed in ([], [name]):
                title = {"eta": "η", "gamma": "γ", "beta": "β"}[name] + f" ({p:g}, {q:g})"
                found.setdefault(title, []).append((what[name], f"{what[name]:g}", run))
    ordered = {name: sorted(some, key=lambda x: x[0]) for name, some in found.items()}
    return {name: [(label, run) for _, label, run in some] for name, some in ordered.items() if len(some) > 1}
