"""summary.md: the tables of the study as a page of Markdown. Numbers come from `tables`, words from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]

BLOCKS = {
    "lenet-lottery": "LeNet-300-100, lottery ticket",
    "lenet-sap": "LeNet-300-100, SAP (1, 2)",
    "cnn-lottery": "CNN with batch norm, lottery ticket",
}
VERDICTS = {"above": "better", "below": "worse", "undecided": "not decided", None: "–", "": "–"}


def summary(finished: int, planned: int, tables: Mapping[str, Sequence[Row]]) -> str:
    """The page; `tables` are those of the csv files beside it."""
    rows = tables["table"]
    parts = [
        "# The stopping study in tables",
        f"{finished} of {planned} trials have finished. Written by `studies/stopping/results.py` from the csv files "
        "beside it. Accuracies are those of the last level, in per cent, differences in points, validation / test; ± "
        "is the half-width of a 95 % Student-t interval over seeds (none with one seed). Differences are paired by "
        "seed. “–” where nothing is known. Epochs are those of a middle level, in the mean, and of all levels "
        "together, the first and the last too, with their share of the full budget's. The verdict is that of the "
        "interval on test data: a rule is better or worse than the fixed budget of its own mean cost only where the "
        "interval leaves out 0; of so many intervals, one in twenty does so by chance.",
        _densities(tables["densities"]),
    ]
    parts += [
        f"## {title}\n\n{_block([row for row in rows if row['block'] == block])}" for block, title in BLOCKS.items()
    ]
    parts += [_candidates(tables["candidates"]), _confirmation(tables["confirmation"])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _densities(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        name = BLOCKS.get(row["block"], row["block"])
        said = f"all {row['runs']} runs end with {row['least_kept']} weights"
        if not row["equal"]:
            said = f"the {row['runs']} runs end with {row['least_kept']} to {row['most_kept']} weights: NOT alike"
        lines.append(f"- {name}: {said}.")
    return "## Density at the end\n\n" + ("\n".join(lines) or "Nothing has finished yet.")


def _block(rows: Sequence[Row]) -> str:
    head = ["rule", "setting", "seeds", "levels", "epochs a middle level", "epochs in all", "seconds: train + validate"]
    head[-1] += " + measure"
    head += ["final accuracy", "− full budget", "− matched control", "verdict"]
    lines = []
    for row in rows:
        spent = " + ".join(_number(row[f"seconds_{what}"], 1) for what in ("train", "validate", "measure"))
        share = "" if row["of_full_epochs"] is None else f" ({100 * row['of_full_epochs']:.0f} %)"
        lines.append(
            [
                row["rule"],
                row["setting"],
                str(row["seeds"]),
                _number(row["levels"], 1),
                _number(row["mean_middle_epochs"], 2),
                _number(row["epochs"], 1) + share,
                spent,
                _both(row, ""),
                _both(row, "_minus_full", sign=True),
                _both(row, "_minus_matched", sign=True),
                VERDICTS[row["test_verdict"]],
            ]
        )
    return _table(head, lines)


def _candidates(rows: Sequence[Row]) -> str:
    head = ["rule", "setting", "most of the full budget's epochs", "at most a third", "− full budget, validation"]
    lines = [
        [
            row["rule"],
            row["setting"],
            f"{100 * row['of_full_epochs_most']:.0f} %",
            "yes" if row["allowed"] else "no",
            f"{row['validation_minus_full']:+.2f}",
        ]
        for row in rows
    ]
    return (
        "## Which setting is confirmed\n\nThe settings that every block ran, by the mean over blocks of their "
        "difference with the full budget on validation data, those first that take at most a third of its epochs in "
        f"every block. The first one is confirmed.\n\n{_table(head, lines)}"
    )


def _confirmation(rows: Sequence[Row]) -> str:
    head = ["schedule", "rule", "setting", "seeds", "epochs in all", "− full budget", "− one epoch, test", "passes"]
    lines = [
        [
            BLOCKS.get(row["block"], row["block"]),
            row["rule"],
            row["setting"],
            str(row["seeds"]),
            f"{_number(row['epochs'], 1)} ({100 * row['of_full_epochs']:.0f} %)" if row["of_full_epochs"] else "–",
            _both(row, "_minus_full", sign=True),
            plus(row, "test_minus_one_epoch", sign=True),
            {True: "yes", False: "no", None: "–"}[row["passes"]],
        ]
        for row in rows
    ]
    return (
        "## Confirmation, on seeds that the search has not seen\n\nA setting passes where it takes at most a third of "
        "the full budget's epochs and the interval of the paired difference on test data lies above −0.3 points. "
        "Differences with the full budget are at 98.75 % for `carried-recovery`: with it there are four looks at a "
        "confirmation.\n\n" + _table(head, lines)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing has finished yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plus(row: Row, name: str, digits: int = 2, sign: bool = False) -> str:
    """mean ± half-width; "–" without a value."""
    if row[name] is None:
        return "–"
    shown = f"{row[name]:{'+' if sign else ''}.{digits}f}"
    half = row[f"{name}_half_width"]
    return shown if half is None else f"{shown} ± {half:.{digits}f}"


def _both(row: Row, what: str, sign: bool = False) -> str:
    """validation / test."""
    shown = [plus(row, f"{split}{what}", sign=sign) for split in ("validation", "test")]
    return "–" if shown == ["–", "–"] else " / ".join(shown)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
