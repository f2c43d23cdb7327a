"""summary.md: the tables of the study as a page of Markdown. Numbers come from `tables`, words from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gather import PAIRS
from runs import BASELINES, DENSITIES, EPOCHS, METHODS, OVER, SPLITS, TOLERANCES, WITHIN, WORTH

Row = dict[str, Any]

CONTESTS = [(sap, other) for sap in METHODS[:2] for other in BASELINES]
INDEX = {name: f"({p:g}, {q:g})" for (p, q), name in PAIRS.items()}


def summary(finished: int, planned: int, tables: Mapping[str, Sequence[Row]]) -> str:
    """The page; `tables` are those of the csv files beside it."""
    parts = [
        "# The PQ-index study in tables",
        f"{finished} of {planned} trials have finished. Written by `studies/pq_index/results.py` from the csv files "
        "beside it. Accuracies are in per cent, differences in points, always validation / test; ± is the half-width "
        "of a 95 % Student-t interval over seeds (none with one seed). “–” where nothing is known: a density that a "
        "run did not reach, or too few seeds.",
        _shapes(tables["shapes"]),
        _losses(tables["losses"]),
        _equal_density(tables["equal_density"]),
        _equal_epochs(tables["equal_epochs"], tables["epochs_to"]),
        _robustness(tables["robustness"]),
        _checks(tables["checks"]),
        _ablations(tables["ablations"]),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing has finished yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plus(row: Row | None, digits: int = 2, sign: bool = False) -> str:
    """mean ± half-width; "–" without a value."""
    if row is None or row["mean"] is None:
        return "–"
    shown = f"{row['mean']:{'+' if sign else ''}.{digits}f}"
    return shown if row["half_width"] is None else f"{shown} ± {row['half_width']:.{digits}f}"


def _times(row: Row | None) -> str:
    """A ratio and the factor of its interval."""
    if row is None or row["mean"] is None:
        return "–"
    shown = f"{row['mean']:.2f}"
    return shown if row["half_width"] is None else f"{shown} ×/÷ {row['half_width']:.2f}"


def share(value: float | None) -> str:
    """A density in per cent, to two digits that say something."""
    if value is None:
        return "–"
    return f"{100 * value:.3g} %"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _both(rows: Mapping[str, Row], sign: bool = False) -> str:
    """validation / test."""
    shown = [plus(rows.get(split), sign=sign) for split in SPLITS]
    return "–" if shown == ["–", "–"] else " / ".join(shown)


def _shapes(rows: Sequence[Row]) -> str:
    head = ["network", "scope", "method", "index", "runs", "falls", "rises", "falls again", f"… at {TOLERANCES[1]:g}"]
    lines = []
    for row in (r for r in rows if r["tolerance"] == TOLERANCES[0]):
        same = ("network", "scope", "method", "index")
        finer = next(r for r in rows if r["tolerance"] == TOLERANCES[1] and all(r[n] == row[n] for n in same))
        fine = f"{finer['falls']}, {finer['rises']}, {finer['falls_again']}"
        tallies = [str(row[name]) for name in ("runs", "falls", "rises", "falls_again")]
        lines.append([row["network"], row["scope"], row["method"], INDEX[row["index"]], *tallies, fine])
    return (
        "## Does the PQ index fall, rise and fall?\n\n"
        f"Runs in which it does, by the rule of `turning_points` with a tolerance of {TOLERANCES[0]:g}; the last "
        f"column with {TOLERANCES[1]:g} (falls, rises, falls again).\n\n{_table(head, lines)}"
    )


def _losses(rows: Sequence[Row]) -> str:
    head = ["network", "scope", "method", "index", "at", "runs", "densities", "points lost", "still falling"]
    lines = []
    for row in rows:
        if not row["n"]:
            continue
        lost = {split: {n: row[f"{split}_{n}"] for n in ("mean", "half_width")} for split in SPLITS}
        least, most = share(row["density_least"]), share(row["density_most"])
        what = [row["network"], row["scope"], row["method"], INDEX[row["index"]], row["at"]]
        where = least if least == most else f"{least} to {most}"
        lines.append([*what, f"{row['n']} of {row['runs']}", where, _both(lost), str(row["still_falling"] or "")])
    return (
        "## What is lost at the minimum and at the peak\n\n"
        "Against the dense network of the same run (positive: worse than dense), at the lowest index of the run, at "
        f"the first level within {TOLERANCES[0]:g} of it, at minima that a later rise confirms, and at peaks that a "
        "later fall confirms. “Still falling”: runs whose lowest index is their last level, so that the end of the run "
        f"and not the index decided where it lies.\n\n{_table(head, lines)}"
    )


def _grouped(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _equal_density(rows: Sequence[Row]) -> str:
    text = "## Equal density\n\nBetween levels, linear in the logarithm of density; differences are paired by seed."
    for (network, scope), some in _grouped(rows, "network", "scope").items():
        lines, against = [], []
        for density in DENSITIES:
            by = _grouped([r for r in some if r["density"] == density], "what")
            at = {what[0]: {r["split"]: r for r in found} for what, found in by.items()}
            lines.append([share(density), *(_both(at.get(m, {})) for m in METHODS)])
            against.append([share(density), *(_both(at.get(f"{a} - {b}", {}), sign=True) for a, b in CONTESTS)])
        names = [f"{a} − {b}" for a, b in CONTESTS]
        text += f"\n\n### {network}, {scope}\n\n{_table(['density', *METHODS], lines)}"
        text += f"\n\n{_table(['density', *names], against)}"
    return text


def _equal_epochs(rows: Sequence[Row], needed: Sequence[Row]) -> str:
    text = (
        "## Equal training epochs\n\n"
        "First: density and accuracy at the last level that so many epochs in all pay for, one-shot counted as it "
        "was run, level after level. Second: the density of the sparsest level within "
        f"{WITHIN:g} point of dense (validation data) among levels that so many epochs pay for; one-shot needs the "
        "dense network and one training for any density. Geometric means; a ratio below 1 means that SAP got sparser. "
        "Third: epochs that a density takes."
    )
    for (network, scope), some in _grouped(rows, "network", "scope").items():
        reached, kept, against = [], [], []
        for budget in EPOCHS:
            by = _grouped([r for r in some if r["epochs"] == budget], "what", "quantity")
            get: Callable[[str, str], Row | None] = lambda what, q, by=by: by.get((what, q), [None])[0]  # noqa: E731
            cells = [(share((get(m, "density") or {}).get("mean")), _pair(get, m)) for m in METHODS]
            if all(density == "–" for density, _ in cells):
                continue
            reached.append([str(budget), *("–" if d == "–" else f"{d}: {accuracy}" for d, accuracy in cells)])
            sparsest = [get(m, "sparsest") or {"mean": None} for m in METHODS]
            kept.append([str(budget), *(share(x["mean"]) for x in sparsest)])
            against.append([str(budget), *(_times(get(f"{a} / {b}", "sparsest")) for a, b in CONTESTS)])
        names = [f"{a} / {b}" for a, b in CONTESTS]
        text += f"\n\n### {network}, {scope}: after so many epochs\n\n{_table(['epochs', *METHODS], reached)}"
        text += f"\n\nSparsest within {WITHIN:g} point:\n\n{_table(['epochs', *METHODS], kept)}"
        text += f"\n\n{_table(['epochs', *names], against)}"
        mine = [r for r in needed if (r["network"], r["scope"]) == (network, scope)]
        text += f"\n\nEpochs to a density:\n\n{_needed(mine)}"
    return text


def _pair(get: Callable[[str, str], Row | None], what: str) -> str:
    return _both({split: row for split in SPLITS if (row := get(what, split)) is not None})


def _needed(rows: Sequence[Row]) -> str:
    whats = [*METHODS, *(f"{a} - {b}" for a, b in CONTESTS[::2])]
    lines = []
    for density in DENSITIES:
        by = {r["what"]: r for r in rows if r["density"] == density}
        lines.append([share(density), *(plus(by.get(w), 1, sign=" - " in w) for w in whats)])
    return _table(["density", *(w.replace(" - ", " − ") for w in whats)], lines)


def _robustness(rows: Sequence[Row]) -> str:
    head = ["network", "scope", "method", "runs", "levels with an over-pruned layer", "in runs", "first at", "layers"]
    head += [
        "floor acted",
        "below 1 %: over-pruned, floor",
        "empty rows at 10 %, 2 %",
        "test s.d. at 10 %, 2 %",
        "s.d. of log density",
    ]
    lines = [
        [
            *(row[name] for name in ("network", "scope", "method")),
            str(row["runs"]),
            f"{row['over_levels']} of {row['levels']}",
            f"{row['over_runs']} of {row['runs']}",
            share(row["over_first_density"]),
            row["over_layers"] or "–",
            str(row["floor_levels"]),
            _below(row),
            f"{_number(row['empty_rows_at_0.1'])} %, {_number(row['empty_rows_at_0.02'])} %".replace("– %", "–"),
            f"{_number(row['test_deviation_at_0.1'], 2)}, {_number(row['test_deviation_at_0.02'], 2)}",
            _number(row["density_deviation_at_level_10"], 3),
        ]
        for row in rows
    ]
    return (
        "## Robustness\n\n"
        f"A layer is over-pruned at a level where its density is below {OVER:g} of the network's; counted over pruned "
        f"levels down to {100 * WORTH:g} % density. The floor (at least one weight in a layer; in neuron scope in a "
        "row) acts where the rule alone would have left none. Empty rows: output rows (neurons, filters) without a "
        "weight. Standard deviations are over seeds: of test accuracy at equal density, of the log of density at "
        f"level 10.\n\n{_table(head, lines)}"
    )


def _below(row: Row) -> str:
    levels = row["levels_all"] - row["levels"]
    if not levels:
        return "–"
    over, floor = (row[f"{name}_all"] - row[name] for name in ("over_levels", "floor_levels"))
    return f"{over}, {floor} of {levels}"


def _checks(rows: Sequence[Row]) -> str:
    names = ("groups", "equal", "unequal", "floor_bound", "undefined")
    head = ["scope", "method", "groups", "equal", "unequal", "changed by the floor", "undefined index"]
    lines = [[row["scope"], row["method"], *(str(row[name]) for name in names)] for row in rows]
    return (
        "## Prune counts against the formula\n\n"
        "Every recorded count (global and layer scope: all levels; neuron scope: the first) against "
        "floor(min(γ (d − r), β d)) at the recorded index, computed again in float64 from the formula.\n\n"
        + _table(head, lines)
    )


def _ablations(rows: Sequence[Row]) -> str:
    head = [
        "p, q",
        "η",
        "γ",
        "β",
        "dense index",
        "count by formula",
        "count recorded",
        "density after 1, 5, 10, 15 levels",
    ]
    head += ["accuracy at 20 %", "at 10 %", "at 5 %", "index (0.5, 1)"]
    lines = []
    for row in rows:
        values = [f"{row['p']:g}, {row['q']:g}", *(f"{row[name]:g}" for name in ("eta", "gamma", "beta"))]
        capped = " (β)" if row["capped"] else ""
        counts = [f"{row['dense_index']:.4f}", f"{row['predicted_c']:,}{capped}", f"{row['recorded_c']:,}"]
        densities = ", ".join(share(row[f"density_{at}"]) for at in (1, 5, 10, 15))
        at = [_split(row, density) for density in (0.2, 0.1, 0.05)]
        shaped = row["shape"] + (f", lowest at {share(row['minimum_density'])}" if row["minimum_density"] else "")
        lines.append([*values, *counts, densities, *at, shaped])
    return (
        "## Ablations\n\n"
        "MLP, global scope, seed 0; the dense network is the same in all rows. “(β)”: the count is the cap β d. "
        f"Accuracies are between levels, as above.\n\n{_table(head, lines)}"
    )


def _split(row: Row, density: float) -> str:
    values = [row[f"{split}_at_{density:g}"] for split in SPLITS]
    return "–" if None in values else " / ".join(f"{v:.2f}" for v in values)
