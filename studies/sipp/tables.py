"""The arithmetic of the study: means over seeds, differences paired by seed, prune potential; and its Markdown.

Accuracies are in per cent, differences in points. Intervals are 95 % Student-t intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsight.compare import Mean, mean, paired

Row = dict[str, Any]

WHEN = ("pruned", "retrained", "fresh")
SPLITS = ("test", "validation", "noisy")
METHODS = ("SiPP det", "SiPP det max", "SiPP rand", "SiPP hybrid", "magnitude", "SNIP", "random", "dense")
PLACE = ("data", "network", "start", "order")
POINTS = 0.5
"""How much worse than the unpruned network the potential allows, in points."""


def told(found: Mean | None) -> Row:
    """n, mean and half-width as columns."""
    if found is None:
        return {"n": 0, "mean": None, "half_width": None}
    return {"n": found.n, "mean": found.mean, "half_width": found.half_width}


def accuracy(rows: Sequence[Row]) -> list[Row]:
    """Accuracy of every method at every density, and its difference from magnitude at the same, paired by seed."""
    found = []
    for place, density in dict.fromkeys((_place(row), row["density"]) for row in rows):
        here = [row for row in rows if (_place(row), row["density"]) == (place, density)]
        for when in WHEN:
            for split in SPLITS:
                by = {m: _by_seed(here, m, f"{when}_{split}", 100.0) for m in METHODS}
                base = {**dict(zip(PLACE, place, strict=True)), "density": density, "when": when, "split": split}
                for method, values in by.items():
                    if values:
                        got = told(mean(row["kept"] / row["total"] for row in here if row["method"] == method))["mean"]
                        found.append({**base, "what": method, "kept": got, **told(mean(values.values()))})
                    if values and method not in ("magnitude", "dense") and by["magnitude"]:
                        difference = told(paired(values, by["magnitude"]))
                        found.append({**base, "what": f"{method} - magnitude", "kept": None, **difference})
    return found


def potential(rows: Sequence[Row], points: float = POINTS) -> list[Row]:
    """Prune potential: 1 - the smallest keep ratio whose test accuracy is within `points` of the unpruned network's.

    Unpruned is, for a trained network pruned with or without retraining, that network, as in the paper; for an
    untrained one, and for a fresh initialisation, the unpruned network trained as long. `flops` is the share of
    multiplications that is saved at that density. Both in per cent, 0 where no density is good enough.
    """
    found = []
    for place in dict.fromkeys(_place(row) for row in rows):
        here, whole = [row for row in rows if _place(row) == place], _dense(rows, place)
        for when in WHEN[place[2] == "random" :]:  # what was never trained is not judged by what was
            of: dict[str, dict[str, dict[int, float]]] = {}
            for method in METHODS[:-1]:
                best = {s: _best(here, method, when, whole[s], place[2], points) for s in whole}
                known = {s: row for s, row in best.items() if row is not None}
                of[method] = {
                    "size": {s: 100 * (1 - row["keep_ratio"]) for s, row in known.items()},
                    "flops": {s: 100 * (1 - row["flops"]) for s, row in known.items()},
                }
            base = {**dict(zip(PLACE, place, strict=True)), "when": when}
            for method, parts in of.items():
                for quantity, values in parts.items():
                    if values:
                        found.append({**base, "quantity": quantity, "what": method, **told(mean(values.values()))})
                    if values and method != "magnitude" and of["magnitude"][quantity]:
                        difference = told(paired(values, of["magnitude"][quantity]))
                        found.append({**base, "quantity": quantity, "what": f"{method} - magnitude", **difference})
    return found


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in PLACE)


def _by_seed(rows: Sequence[Row], method: str, column: str, factor: float) -> dict[int, float]:
    return {
        row["seed"]: factor * row[column] for row in rows if row["method"] == method and row.get(column) is not None
    }


def _dense(rows: Sequence[Row], place: tuple[str, ...]) -> dict[int, Row]:
    """The unpruned network's row of every seed; a cascade shares those of one-shot."""
    data, network, start, _ = place
    wanted = (data, network, start, "one-shot", "dense")
    return {row["seed"]: row for row in rows if (*_place(row), row["method"]) == wanted}


def _best(rows: Sequence[Row], method: str, when: str, whole: Row, start: str, points: float) -> Row | None:
    """The sparsest row of that seed that is good enough; the unpruned one if none is; None without rows."""
    own = [r for r in rows if (r["method"], r["seed"]) == (method, whole["seed"]) and r.get(f"{when}_test") is not None]
    if not own:
        return None
    like = "pruned" if start == "trained" and when != "fresh" else "retrained" if when != "fresh" else "fresh"
    floor = whole[f"{like}_test"] - points / 100 - 1e-12
    good = [row for row in own if row[f"{when}_test"] >= floor]
    return min(good, key=lambda row: row["keep_ratio"], default={"keep_ratio": 1.0, "flops": 1.0})


# -- Markdown --------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Row], accuracy: Sequence[Row], potential: Sequence[Row]) -> str:
    seeds = len({row["seed"] for row in rows})
    parts = [
        f"# SiPP: {len(rows)} cells, {seeds} seeds",
        "Test accuracy in per cent, mean ± half-width of the 95 % interval over seeds. In brackets the difference from "
        "magnitude at the same density, paired by seed.",
    ]
    for place in dict.fromkeys(_place(row) for row in accuracy):
        for when in WHEN:
            here = [r for r in accuracy if (_place(r), r["when"], r["split"]) == (place, when, "test")]
            if here:
                parts += [f"## {_called(place)}, {when}", _densities(here)]
    parts += [f"## Prune potential at {POINTS:g} points", _potentials(potential)]
    return "\n\n".join(parts) + "\n"


def _called(place: Sequence[str]) -> str:
    data, network, start, order = place
    return f"{network} on {data}, {start} network, {order}"


def _densities(rows: Sequence[Row]) -> str:
    densities = sorted({row["density"] for row in rows}, reverse=True)
    by = {(row["what"], row["density"]): row for row in rows}
    lines = []
    for method in (method for method in METHODS if any(row["what"] == method for row in rows)):
        cells = []
        for density in densities:
            difference = by.get((f"{method} - magnitude", density))
            after = f" ({_shown(difference, '+')})" if difference else ""
            cells.append(f"{_shown(by.get((method, density)))}{after}")
        lines.append([method, *cells])
    return _table(["", *(f"{100 * density:g} %" for density in densities)], lines)


def _potentials(rows: Sequence[Row]) -> str:
    by = {(_place(r), r["when"], r["quantity"], r["what"]): r for r in rows}
    lines = []
    for place, when in dict.fromkeys((_place(r), r["when"]) for r in rows):
        for quantity in ("size", "flops"):
            values = [_shown(by.get((place, when, quantity, method))) for method in METHODS[:-1]]
            lines.append([_called(place), when, quantity, *values])
    return _table(["", "", "removed", *METHODS[:-1]], lines)


def _shown(row: Row | None, sign: str = "") -> str:
    if row is None or row["mean"] is None:
        return "–"
    half = "" if row["half_width"] is None else f" ± {row['half_width']:.2f}"
    return f"{row['mean']:{sign}.2f}{half}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))
