"""The runs of the study as they are read back from its rows, and what every table needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compare import Shape, at_density, shape

from sparsight.compare import Mean

Row = dict[str, Any]

NETWORKS = ("mlp", "lenet-300-100", "linear", "cnn")
SCOPES = ("global", "layer", "neuron")
METHODS = ("SAP (0.5, 1)", "SAP (1, 2)", "lottery ticket", "one-shot")
BASELINES = METHODS[2:]
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
EPOCHS = (12, 24, 32, 48, 63, 93)
SPLITS = ("validation", "test")
TOLERANCES = (0.01, 0.005)
WITHIN = 1.0  # points
OVER = 0.1  # a layer is over-pruned below this share of the network's density
WORTH = 0.01  # density down to which over-pruning is counted


@dataclass(frozen=True)
class Run:
    """One run: what it is, its levels (dense first) and their layers by level."""

    what: Row
    levels: tuple[Row, ...]
    layers: Mapping[int, tuple[Row, ...]]

    def curve(self, value: str) -> list[tuple[float, float]]:
        return [(x["density"], x[value]) for x in self.levels if x[value] is not None]

    def accuracy(self, split: str, density: float) -> float | None:
        found = at_density(self.curve(f"{split}_accuracy"), density)
        return None if found is None else 100 * found

    def shape(self, pair: str, tolerance: float = TOLERANCES[0]) -> Shape:
        return shape([x["density"] for x in self.levels], [x[pair] for x in self.levels], tolerance)

    def lost(self, split: str, level: int) -> float:
        """Points below the dense network of the same run."""
        name = f"{split}_accuracy"
        return 100 * (self.levels[0][name] - self.levels[level][name])


Cells = Mapping[tuple[str, str, str], Sequence[Run]]


def runs_of(runs: Iterable[Row], rows: Iterable[Row], layers: Iterable[Row]) -> list[Run]:
    levels: dict[str, list[Row]] = {}
    for row in rows:
        levels.setdefault(row["run"], []).append(row)
    parts: dict[str, dict[int, list[Row]]] = {}
    for row in layers:
        parts.setdefault(row["run"], {}).setdefault(row["level"], []).append(row)
    return [
        Run(
            what,
            tuple(sorted(levels[what["run"]], key=lambda row: row["level"])),
            {level: tuple(found) for level, found in parts[what["run"]].items()},
        )
        for what in runs
    ]


def cells(runs: Iterable[Run]) -> Cells:
    """The runs of the grid by network, scope and method, in the order of the names above; seeds in order."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.what["kind"] == "grid":
            found.setdefault((run.what["network"], run.what["scope"], run.what["method"]), []).append(run)
    order = sorted(found, key=lambda cell: tuple(map(_rank, (NETWORKS, SCOPES, METHODS), cell)))
    return {cell: sorted(found[cell], key=lambda run: run.what["seed"]) for cell in order}


def _rank(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def places(grid: Cells) -> list[tuple[str, str]]:
    """The pairs of network and scope that have runs."""
    return list(dict.fromkeys((network, scope) for network, scope, _ in grid))


def named(cell: tuple[str, str, str]) -> Row:
    return dict(zip(("network", "scope", "method"), cell, strict=True))


def told(found: Mean | None) -> Row:
    """n, mean and half-width as columns."""
    if found is None:
        return {"n": 0, "mean": None, "half_width": None}
    return {"n": found.n, "mean": found.mean, "half_width": found.half_width}
