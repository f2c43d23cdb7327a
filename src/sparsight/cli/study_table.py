"""The tables of a study: rows, means and intervals over seeds, and the chosen networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sparsight.cli.errors import printable
from sparsight.compare.statistics import ranking
from sparsight.numerics import format as words
from sparsight.records.outputs import write_output
from sparsight.records.record import to_json
from sparsight.report.table import stacked
from sparsight.runs.study import Row, read_study, rows, summarise, write_csv, write_markdown
from sparsight.runs.study.rows import COSTS
from sparsight.runs.study.trials import PAGE, stored


def write(out: Path) -> None:
    found = rows(out)
    summary = summaries(found)
    for name, lines in (("rows", found), ("summary", summary)):
        write_csv(lines, out / f"{name}.csv")
        write_markdown(lines, out / f"{name}.md")
    write_output(out / "rows.json", [json.dumps(to_json(found), indent=1).encode(), b"\n"])
    if told := table(summary):
        sys.stdout.write(f"\nChosen networks, mean and 95 % interval over seeds:\n\n{told}\n")
    for line in ranked(found):
        sys.stdout.write(printable(line) + "\n")
    _page(out)
    where = f"{out / 'rows.csv'}, rows.json and rows.md, intervals in summary.csv and summary.md"
    sys.stdout.write(printable(f"{len(found)} rows in {where}") + "\n")


def _page(out: Path) -> None:
    """Write the page that compares the networks of all finished trials."""
    from sparsight.compare.gather import gather
    from sparsight.compare.page import page

    finished = [out / "trials" / key for key in read_study(out)[0] if stored(out / "trials" / key).get("done")]
    if finished:
        write_output(out / PAGE, [page(gather(finished)).encode()])
        sys.stdout.write(printable(f"Page: {out / PAGE}") + "\n")


def summaries(found: list[Row]) -> list[Row]:
    """Mean and interval over seeds of what is measured: of each level, and of the chosen one ("chosen")."""
    done = [row for row in found if row["status"] == "finished"]
    ladder = [{**row, "which": "control" if row["role"] == "control" else f"level {row['level']}"} for row in done]
    chosen = [{**row, "which": "chosen"} for row in done if row["chosen"]]
    by = ("label", "recipe", "arguments", "options", "model", "data", "which")
    measured = ("density", *_judged(done), *COSTS)
    return [line for part in (chosen, ladder) for value in measured for line in summarise(part, by, value)]


def _judged(found: list[Row]) -> list[str]:
    """The columns of validation and test metrics."""
    return [name for name in (found[0] if found else ()) if name.startswith(("validation_", "test_"))]


def ranked(found: list[Row]) -> list[str]:
    """A line per density, model and data: the settings ranked by accuracy.

    Paired by seed, with Holm's correction over all pairs. Brackets hold settings that the seeds cannot tell apart.
    """
    chosen = [row for row in found if row["chosen"] and row["status"] == "finished"]
    value = "test_accuracy" if any(row["test_accuracy"] is not None for row in chosen) else "validation_accuracy"
    groups: dict[tuple[str, str, float], dict[str, dict[int, float | None]]] = {}
    for row in chosen:
        at = groups.setdefault((row["model"], row["data"], row["density"]), {})
        name = row["label"] or f"{row['recipe']} {row['arguments']}"
        at.setdefault(name, {})[row["seed"]] = row[value]
    lines = []
    for (model, data, density), of in sorted(groups.items(), key=lambda one: (one[0][:2], -one[0][2])):
        if len(of) < 2 or max(map(len, of.values())) < 2:
            continue
        tiers = (f"({', '.join(tier)})" if len(tier) > 1 else "".join(tier) for tier in ranking(of).tiers)
        by = value.replace("_", " ")
        lines.append(f"At {words.percent(density)}, {model} on {data}, by {by}: {' > '.join(tiers)}")
    note = "In brackets: settings that these seeds cannot tell apart, with 95 % confidence over all pairs."
    return [*lines, note] if any("(" in line.partition(": ")[2] for line in lines) else lines


SHOWN = {"cumulative_epochs": "epochs", "forward_equivalents": "forward passes", "seconds": "seconds"}
"""Costs in the console table, and their names there."""


def table(summary: list[Row]) -> str:
    """The chosen networks, a line per setting, sparser ones later; "" if there is none."""
    chosen = [row for row in summary if row["which"] == "chosen"]
    values = [v for v in dict.fromkeys(row["value"] for row in chosen) if v in SHOWN or v not in COSTS]
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in chosen:
        made = row["recipe"] if row["arguments"] == "{}" else f"{row['recipe']} {row['arguments']}"
        at = (row["label"] or made, row["arguments"], row["options"], row["model"], row["data"])
        settings.setdefault(at, {})[row["value"]] = row
    several = len({at[3:] for at in settings}) > 1
    ordered = sorted(settings.items(), key=lambda one: (one[0][3:], -round(one[1]["density"]["mean"], 4)))
    heads = stacked(["seeds", *(SHOWN.get(v, printable(v).replace("_", " ", 1)) for v in values)], 14)
    cells = [[str(of["density"]["n"]), *(_interval(of.get(value)) for value in values)] for _, of in ordered]
    widths = [max(map(len, column)) for column in zip(*zip(*heads, strict=True), *cells, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in (*zip(*heads, strict=True), *cells)]
    where = [f", {at[3]} on {at[4]}" if several else "" for at, _ in ordered]
    named = [*[""] * len(heads[0]), *(printable(at[0] + of) for (at, _), of in zip(ordered, where, strict=True))]
    return "\n".join(f"{line}  {name}".rstrip() for line, name in zip(lines, named, strict=True)) if cells else ""


def _interval(row: Row | None) -> str:
    """ "97.67 ± 0.41 %" for a share, four significant digits for another metric, the mean for a cost."""
    if row is None:
        return "–"
    if row["value"] in COSTS:
        mean = row["mean"]
        return f"{mean:.3g}" if mean >= 1e6 else words.count(round(mean)) if mean >= 10 else f"{mean:.2g}"
    share = row["value"] in ("density", "validation_accuracy", "test_accuracy")
    mean, half = row["mean"], row["half_width"]
    numbers = [x for x in (mean, half) if x is not None]
    return " ± ".join(f"{100 * x:.2f}" if share else f"{x:.4g}" for x in numbers) + (" %" if share else "")
