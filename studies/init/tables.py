"""The tables of both studies: means over seeds with 95 % Student-t intervals, differences paired by seed, orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cells import Row

from sparsight.runs.study import summarise

REGIMES = ("ordered", "edge", "edge, rescaled by neuron", "edge, rescaled by data")
METHODS = ("dense", "snip", "grasp", "synflow", "magnitude", "random", "sbp", "sbp-sr")
NETWORKS = ("lenet-300-100", "lenet5", "resnet8")
VARIANTS = ("as it is", "shuffled", "reinitialised")
NAMES = {"lenet-300-100": "LeNet-300-100", "lenet5": "LeNet-5", "resnet8": "ResNet-8"}
CHANCE = 0.1


def means(rows: Iterable[Row], by: Sequence[str], value: str, scale: float = 100.0) -> dict[tuple[Any, ...], Row]:
    """`summarise` by group: n, mean and half_width of `scale` times the value."""
    scaled = [{**row, value: None if row[value] is None else scale * row[value]} for row in rows]
    return {tuple(row[name] for name in by): row for row in summarise(scaled, by, value)}


def paired(rows: Sequence[Row], by: Sequence[str], column: str, a: str, b: str) -> dict[tuple[Any, ...], Row]:
    """Test accuracy at `column` = a less that at b, in points, over the seeds that have both."""
    other = {(*(row[n] for n in by), row["seed"]): row["test_accuracy"] for row in rows if row[column] == b}
    found = []
    for row in rows:
        key = (*(row[n] for n in by), row["seed"])
        if row[column] == a and key in other:
            found.append({**row, "difference": row["test_accuracy"] - other[key]})
    return means(found, by, "difference")


def order(rows: Sequence[Row], network: str, density: float) -> list[str]:
    """The methods, as they are, from best to worst by mean test accuracy."""
    here = [r for r in rows if (r["network"], r["density"], r["variant"]) == (network, density, VARIANTS[0])]
    found = means(here, ("method",), "test_accuracy")
    return sorted((method for (method,) in found), key=lambda m: -found[(m,)]["mean"])


def said(found: Row | None, digits: int = 1) -> str:
    """ "86.1 ± 0.3"; the mean alone of one seed."""
    if found is None:
        return "–"
    mean, half = f"{round(found['mean'], digits) + 0.0:.{digits}f}".replace("-", "−"), found["half_width"]
    return mean if half is None else f"{mean} ± {half:.{digits}f}"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def grid(
    down: Sequence[tuple[str, Any]],
    across: Sequence[tuple[str, Any]],
    at: Callable[[Any, Any], Row | None],
    corner: str = "",
    digits: int = 1,
) -> str:
    """A Markdown table of `at(row, column)`."""
    body = [[name, *(said(at(row, column), digits) for _, column in across)] for name, row in down]
    return markdown([corner, *(name for name, _ in across)], body)


def percents(rows: Iterable[Row]) -> list[tuple[str, float]]:
    """The densities of pruned networks, dense to sparse, with their names."""
    return [(f"{100 * d:g} %", d) for d in sorted({row["density"] for row in rows} - {1.0}, reverse=True)]


# -- trainability ----------------------------------------------------------------------------------------------


def trainability(rows: Sequence[Row]) -> str:
    """The page of tables of the trainability study."""
    parts = []
    deep, grown = [r for r in rows if r["block"] == "map"], [r for r in rows if r["block"] == "growth"]
    if deep:
        parts += ["## Depth and density\n\nTest accuracy (%), mean over seeds ± 95 % interval.\n", _deep(deep)]
    if grown:
        parts += ["## Growth along a ResNet\n\nlog₁₀, mean over seeds ± 95 % interval.\n", _growth(grown)]
    for block, name in (("stable", "with batch norm"), ("stable-plain", "without batch norm")):
        if here := [r for r in rows if r["block"] == block]:
            parts += [f"## ResNet-8 and Stable ResNet-8, {name}\n\nTest accuracy (%), SBP.\n", _stable(here)]
    return "\n".join(parts)


def _deep(rows: Sequence[Row]) -> str:
    depths = [(str(d), d) for d in sorted({row["depth"] for row in rows})]
    found = means(rows, ("regime", "density", "depth"), "test_accuracy")
    down = [(f"{regime}, {100 * density:g} %", (regime, density)) for regime in REGIMES
            for density in sorted({r["density"] for r in rows if r["regime"] == regime}, reverse=True)]  # fmt: skip
    counts = []
    for name, (regime, density) in down:
        cells = [
            [r for r in rows if (r["regime"], r["density"], r["depth"]) == (regime, density, d)] for _, d in depths
        ]
        told = [", ".join([f"{sum(r['test_accuracy'] > 2 * CHANCE for r in cell)}/{len(cell)}",
                           f"{sum(r['empty'] > 0 for r in cell)}",
                           f"{sum(r['diverged'] for r in cell)}"]) if cell else "–" for cell in cells]  # fmt: skip
        counts.append([name, *told])
    table = grid(down, depths, lambda row, d: found.get((*row, d)), "regime, density / layers")
    note = "\nSeeds that train (more than twice chance), seeds with an empty layer, seeds that diverged.\n\n"
    return table + note + markdown(["regime, density / layers", *(name for name, _ in depths)], counts)


def _growth(rows: Sequence[Row]) -> str:
    blocks = [(f"{b} blocks", b) for b in sorted({row["blocks"] for row in rows})]
    parts = []
    for value, name in (("activation_growth", "activations"), ("gradient_growth", "gradients"),
                        ("spread", "spread of m^l")):  # fmt: skip
        logs = [{**row, value: math.log10(row[value]) if row[value] else None} for row in rows]
        found = means(logs, ("network", "norm", "blocks"), value, 1.0)
        down = [(f"{network}{'' if norm else ', no norm'}", (network, norm))
                for norm in (True, False) for network in ("plain", "stable")]  # fmt: skip
        parts.append(grid(down, blocks, lambda row, b, found=found: found.get((*row, b)), name, 2))
    return "\n".join(parts)


def _stable(rows: Sequence[Row]) -> str:
    stable = [{**row, "part": "stable" if "stable" in row["model"] else "plain"} for row in rows]
    found = means(stable, ("part", "density"), "test_accuracy")
    columns = [("dense", 1.0), *percents(rows)]
    table = grid([(p, p) for p in ("plain", "stable")], columns, lambda part, d: found.get((part, d)), "network")
    less = paired(stable, ("density",), "part", "stable", "plain")
    return table + "\n" + grid([("stable less plain", 0)], columns, lambda _, d: less.get((d,)), "points")


# -- methods ---------------------------------------------------------------------------------------------------


def methods(rows: Sequence[Row]) -> str:
    """The page of tables of the method comparison."""
    parts = []
    for network in NETWORKS:
        here = [row for row in rows if row["network"] == network]
        if not here:
            continue
        found = means(here, ("method", "variant", "density"), "test_accuracy")
        columns = percents(here)
        top = said(found.get(("dense", VARIANTS[0], 1.0)))
        parts.append(f"## {NAMES[network]}\n\nTest accuracy (%), mean over seeds ± 95 % interval; dense {top}.\n")
        down = [(m, m) for m in METHODS[1:] if any(row["method"] == m for row in here)]
        parts.append(grid(down, columns, lambda m, d, f=found: f.get((m, VARIANTS[0], d)), "method"))
        orders = [[name, " > ".join(order(rows, network, d))] for name, d in columns]
        parts.append(markdown(["density", "order of the means"], orders))
        if any(row["variant"] != VARIANTS[0] for row in here):
            parts.append("### Ablations\n\nPoints gained, paired by seed: negative is lost.\n")
            parts.append(_ablations(here, columns))
    return "\n".join(parts)


def _ablations(rows: Sequence[Row], columns: Sequence[tuple[str, float]]) -> str:
    less = {v: paired(rows, ("method", "density"), "variant", v, VARIANTS[0]) for v in VARIANTS[1:]}
    down = [(f"{m}, {v}", (m, v)) for m in METHODS for v in VARIANTS[1:] if any(k[0] == m for k in less[v])]
    return grid(down, columns, lambda row, d: less[row[1]].get((row[0], d)), "method, ablation")
