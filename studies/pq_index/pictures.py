"""The pictures of the study, from its rows: SVG files for the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from compare import at_density
from panels import chart, density, linear, lines, save
from runs import METHODS, Cells, Row, Run, cells, places

from sparsight.compare import mean

NAMES = {"mlp": "MLP", "lenet-300-100": "LeNet-300-100", "linear": "linear", "cnn": "CNN, quarter width"}
TURNS = {"minimum, then a rise": "triangle-down", "peak, then a fall": "diamond"}


def draw(runs: Sequence[Run], into: Path, published: Path) -> list[Path]:
    """Draw what the runs allow into the folder; the files."""
    grid = cells(runs)
    made = {
        "accuracy": _panels(grid, _accuracy, "test accuracy (%)", "density (%)", band=True, dots="datum.dot"),
        "pq-index": _panels(grid, _index("pq_05_1"), "PQ index (0.5, 1)", "density (%)", turns=True),
        "pq-index-1-2": _panels(grid, _index("pq_1_2"), "PQ index (1, 2)", "density (%)", turns=True),
        "epochs": _panels(grid, _epochs, "test accuracy (%)", "training epochs in all", band=True),
        "layers": _layers(grid, "mlp", "global"),
        "layers-cnn": _layers(grid, "cnn", "global"),
        "cifar10": _beside(grid, json.loads(published.read_text())["trajectories"]),
        "ablations": _ablations(runs),
    }
    return [save(picture, into / f"{name}.svg") for name, picture in made.items() if picture is not None]


def _panels(
    grid: Cells, rows_of: Callable[[Sequence[Run]], Iterator[Row]], y: str, x: str, turns: bool = False, **look: Any
) -> alt.ConcatChart | None:
    """One panel for each network and scope, all methods in each."""
    made, names = [], [m for m in METHODS if any(cell[2] == m for cell in grid)]
    for i, (network, scope) in enumerate(places(grid)):
        here = {m: grid[network, scope, m] for m in METHODS if (network, scope, m) in grid}
        rows = [{**row, "series": m} for m, runs in here.items() for row in rows_of(runs)]
        same = [run for cell, runs in grid.items() if cell[0] == network for run in runs]
        ends = _frame([row["y"] for row in rows if row["y"] is not None]) if "accuracy" in y else ()
        ys, seeds = linear(alt.Y, "" if i % 3 else y, ends), max(map(len, here.values()))
        xs = density(_least(same), x) if x.startswith("density") else linear(alt.X, x)
        title = f"{NAMES[network]}, {scope} ({seeds} seed{'s' if seeds > 1 else ''})"
        panel = lines(rows, xs, ys, names, title=title, **{"dots": "", **look} if turns else look)
        made.append(panel + _turned(rows, xs, ys, names) if turns else panel)
    return alt.concat(*made, columns=3) if made else None


def _turned(rows: Sequence[Row], x: alt.X, y: alt.Y, names: Sequence[str]) -> alt.Chart:
    shape = alt.Shape("turn:N").scale(domain=[*TURNS], range=[*TURNS.values()]).legend(symbolStrokeColor="#444")
    base = chart([row for row in rows if row["turn"]]).mark_point(filled=False, size=60, strokeWidth=1.6)
    hue = alt.Color("series:N").scale(domain=names).legend(symbolType="stroke")
    return base.encode(x=x, y=y, color=hue, shape=shape)


def _least(runs: Sequence[Run]) -> float:
    return min(level["density"] for run in runs for level in run.levels)


def _frame(seen: Sequence[float]) -> tuple[float, float]:
    """Accuracies down to 22 points below the best, whatever the intervals do."""
    return max(min(seen) - 1, max(seen) - 22), max(seen) + 0.7


def _seen(x: float, values: Sequence[float | None], scale: float) -> Row:
    """The mean of some seeds with its interval, of those that have a value."""
    found = mean(scale * value for value in values if value is not None)
    if found is None:
        return {"x": x, "y": None}
    half = found.half_width
    return {"x": x, "y": found.mean, **({} if half is None else {"low": found.mean - half, "high": found.mean + half})}


def _accuracy(runs: Sequence[Run]) -> Iterator[Row]:
    """Mean over seeds at densities that all runs have."""
    curves = [[(d, v) for d, v in run.curve("test_accuracy") if d > 0] for run in runs]
    curves = [curve for curve in curves if len(curve) > 1]
    if curves:
        low, high = max(min(d for d, _ in c) for c in curves), min(max(d for d, _ in c) for c in curves)
        inside = np.geomspace(high, low, 60)[1:-1].tolist() if low < high else []
        for i, d in enumerate([high, *inside, low]):  # the ends exactly: beyond them nothing is known
            yield {**_seen(100 * d, [at_density(c, d) for c in curves], 100), "dot": i % 9 == 4}


def _index(pair: str) -> Callable[[Sequence[Run]], Iterator[Row]]:
    """Every run as a line, with the turning points that are confirmed."""

    def rows_of(runs: Sequence[Run]) -> Iterator[Row]:
        for i, run in enumerate(runs):
            turns = run.shape(pair)
            at = dict(zip([turns.minimum if turns.rises else None, turns.peak], TURNS, strict=True))
            for level in run.levels:
                if level[pair] is not None:
                    yield {"x": 100 * level["density"], "y": level[pair], "run": i, "turn": at.get(level["level"])}

    return rows_of


def _epochs(runs: Sequence[Run]) -> Iterator[Row]:
    """Mean over seeds by level, as far as all runs have it; one-shot as it was run, level after level."""
    for i in range(min(len(run.levels) for run in runs)):
        yield _seen(runs[0].levels[i]["cumulative_epochs"], [run.levels[i]["test_accuracy"] for run in runs], 100)


# -- layers, published trajectories, ablations -----------------------------------------------------------------


def _layers(grid: Cells, network: str, scope: str) -> alt.ConcatChart | None:
    """Density and PQ index of every layer against the network's density, the lowest seed; a column for each method."""
    here = {m: grid[network, scope, m][0] for m in METHODS if (network, scope, m) in grid}
    if not here:
        return None
    least, upper, lower = _least([*here.values()]), [], []
    layers = [x for run in here.values() for level in run.layers.values() for x in level]
    low = min(10 * least, *(100 * x["density"] for x in layers if x["density"]))
    most = max(x["pq_05_1"] or 0 for x in layers)
    for i, (method, run) in enumerate(here.items()):
        rows = [
            {"x": 100 * level["density"], "y": 100 * x["density"], "pq": x["pq_05_1"],
             "series": x["layer"].removesuffix(".weight")}
            for level in run.levels for x in run.layers[level["level"]] if x["density"]
        ]  # fmt: skip
        names = list(dict.fromkeys(row["series"] for row in rows))
        beside = {"as the network": 100, "a tenth of it": 10}
        rows += [{"x": 100 * d, "y": share * d, "series": n} for n, share in beside.items() for d in (1, least)]
        log = linear(alt.Y, "" if i else "density of the layer (%)", (low, 125), (0.01, 0.1, 1, 10, 100), type="log")
        upper.append(lines(rows, density(least), log, [*names, *beside], dots="", title=method))
        known = [{**row, "y": row["pq"]} for row in rows if row.get("pq") is not None]
        index = linear(alt.Y, "" if i else "PQ index (0.5, 1) of the layer", (0, most))
        lower.append(lines(known, density(least, "density (%)"), index, [*names, *beside], dots=""))
    return alt.concat(*upper, *lower, columns=len(here))


def _beside(grid: Cells, published: Sequence[dict[str, Any]]) -> alt.ConcatChart:
    """The published trajectories on CIFAR-10 and ours, index and accuracy below dense, on one axis of density."""
    whose = dict(zip(("sap (0.5, 1)", "sap (1, 2)", "lottery ticket, rate 0.2", "one-shot, rate 0.2"), METHODS,
                     strict=True))  # fmt: skip
    columns: dict[str, list[Row]] = {}
    for each in published:
        title = f"CIFAR-10, {each['network']}\n(read off their figures)"
        columns.setdefault(title, []).extend(_points(each["levels"], "index", "accuracy", whose[each["method"]]))
    for network in ("mlp", "cnn"):
        for method in METHODS:
            for run in grid.get((network, "global", method), ())[:1]:
                points = _points(run.levels, "pq_05_1", "test_accuracy", method)
                columns.setdefault(f"Fashion-MNIST,\n{NAMES[network]}, seed 0", []).extend(points)
    made = []
    for value, title, ends in (("index", "PQ index (0.5, 1)", (0, 0.75)), ("worth", "points above dense", (-25, 3))):
        row = []
        for i, (name, points) in enumerate(columns.items()):
            known = [{**point, "y": point[value]} for point in points if point[value] is not None]
            y = linear(alt.Y, "" if i else title, ends)
            x = density(0.0005, "density (%)" if value == "worth" else "")
            row.append(lines(known, x, y, METHODS, title="" if value == "worth" else name))
        made += row
    return alt.concat(*made, columns=len(columns))


def _points(levels: Sequence[Row], index: str, accuracy: str, method: str) -> list[Row]:
    dense = levels[0].get(accuracy)
    return [
        {"x": 100 * x["density"], "index": x[index], "series": method,
         "worth": None if x.get(accuracy) is None else 100 * (x[accuracy] - dense)}
        for x in levels if x["density"] > 0
    ]  # fmt: skip


def _ablations(runs: Sequence[Run]) -> alt.VConcatChart | None:
    """Test accuracy and PQ index of the ablations, a column for each parameter."""
    own = [run for run in runs if run.what["kind"] == "ablation"]
    if not own:
        return None
    at = ("grid", "mlp", "global", 0)
    base = [run for run in runs if tuple(run.what[name] for name in ("kind", "network", "scope", "seed")) == at]
    best, columns = max(100 * level["test_accuracy"] for run in own for level in run.levels), []
    for i, (name, some) in enumerate(_varied([*base, *own]).items()):
        levels = [(label, level) for label, run in some for level in run.levels[:16]]
        least, names, both = max(min(level["density"] for _, level in levels), 1e-4), [label for label, _ in some], []
        for value, scale, y, ends in (
            ("test_accuracy", 100, "test accuracy (%)", (best - 8, best + 1)),  # a collapse would hide the rest
            ("pq_05_1", 1, "PQ index (0.5, 1)", (0, 0.45)),
        ):
            rows = [{"x": 100 * x["density"], "y": scale * x[value], "series": label} for label, x in levels
                    if x[value] is not None and x["density"] > 0]  # fmt: skip
            x = density(least, "" if scale > 1 else "density (%)")
            title = name if scale > 1 else ""
            both.append(lines(rows, x, linear(alt.Y, "" if i else y, ends), names, title=title))
        columns.append(alt.vconcat(*both))
    return alt.hconcat(*columns).resolve_scale(color="independent", shape="independent", strokeDash="independent")


def _varied(runs: Sequence[Run]) -> dict[str, list[tuple[str, Run]]]:
    """By parameter: its values with their runs, in order."""
    usual = {"eta": 0.0, "gamma": 1.0, "beta": 0.9}
    found: dict[str, list[tuple[float, Run]]] = {}
    for run in runs:
        what = run.what
        if what["p"] is None:
            continue
        changed = [name for name in usual if what[name] != usual[name]]
        p, q = what["p"], what["q"]
        if not changed and q == 1:
            found.setdefault("p (q = 1)", []).append((p, run))
        if not changed and p == 1:
            found.setdefault("q (p = 1)", []).append((q, run))
        for name, sign, start in (("eta", "η", (0.5, 1)), ("gamma", "γ", (0.5, 1)), ("beta", "β", (1, 2))):
            if (p, q) == start and changed in ([], [name]):
                found.setdefault(f"{sign} ({p:g}, {q:g})", []).append((what[name], run))
    ordered = {name: sorted(some, key=lambda x: x[0]) for name, some in found.items()}
    return {name: [(f"{value:g}", run) for value, run in some] for name, some in ordered.items() if len(some) > 1}
