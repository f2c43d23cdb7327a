"""The picture of the study: test accuracy against density, a column for each network, a row for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt
from panels import density, linear, lines, rules, save
from tables import METHODS, Row

SERIES = [name for name in METHODS if name != "dense"]
KINDS = (
    # start, order, when, what it is called
    ("trained", "one-shot", "pruned", "trained, not retrained"),
    ("trained", "one-shot", "retrained", "trained, retrained"),
    ("trained", "cascade", "retrained", "cascade"),
    ("trained", "one-shot", "fresh", "fresh initialisation"),
    ("random", "one-shot", "retrained", "pruned at initialisation"),
)
NAMES = {"lenet-300-100": "LeNet-300-100", "lenet5": "LeNet-5", "fashion-mnist": "Fashion-MNIST", "mnist": "MNIST"}


def draw(accuracy: Sequence[Row], path: Path) -> None:
    """One panel for each network and kind, with 95 % intervals; the unpruned network is a thin line."""
    rows = [row for row in accuracy if row["split"] == "test"]
    networks = list(dict.fromkeys((row["network"], row["data"]) for row in rows))
    made = []
    for start, order, when, called in KINDS:
        for network, data in networks:
            wanted = (network, data, start, order, when)
            here = [r for r in rows if tuple(r[n] for n in ("network", "data", "start", "order", "when")) == wanted]
            y = "test accuracy (%)" if (network, data) == networks[0] else ""
            made.append(_panel(here, f"{NAMES[network]}, {NAMES[data]}\n{called}", y))
    save(alt.concat(*made, columns=len(networks)), path)


def _panel(rows: Sequence[Row], title: str, y: str) -> alt.LayerChart:
    drawn = [
        {"x": 100 * row["kept"], "y": row["mean"], "series": row["what"],
         **({} if row["half_width"] is None else {"low": row["mean"] - row["half_width"],
                                                  "high": row["mean"] + row["half_width"]})}
        for row in rows if row["what"] in SERIES
    ]  # fmt: skip
    means = [row["y"] for row in drawn] or [0.0, 100.0]
    ends = (max(0, 5 * (min(means) // 5 - 1)), min(100.5, max(means) + 5))  # intervals of few seeds may reach beyond
    x = density(min((row["x"] for row in drawn), default=1) / 100, "density (%)", (100, 30, 10, 3, 1))
    dense = [{"y": row["mean"]} for row in rows if row["what"] == "dense"]
    return (lines(drawn, x, linear(alt.Y, y, ends), SERIES, title=title) + rules(dense)).properties(height=130)
