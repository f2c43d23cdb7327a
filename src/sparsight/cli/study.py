"""`sparsight study FILE`: many runs, then rows, means and intervals over seeds, and the chosen networks."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from sparsight.cli.errors import Misuse, checked, print_lines, printable, refusing, say
from sparsight.cli.record_options import StudyOptions
from sparsight.cli.signals import unheard
from sparsight.cli.study_trials import forecast, planned
from sparsight.compare.gather import gather
from sparsight.compare.page import page
from sparsight.compare.statistics import ranking
from sparsight.numerics import format as words
from sparsight.numerics.checks import check_threads, check_whole
from sparsight.records.outputs import write_output
from sparsight.records.record import to_json
from sparsight.records.trials import PAGE, stored
from sparsight.report.pages import Section, Table
from sparsight.report.table import grid
from sparsight.runs import study
from sparsight.runs.study import Ended, Row, Shared, Trial, read_study, rows, summarise, write_csv, write_markdown
from sparsight.runs.study.local import available_cores
from sparsight.runs.study.rows import COSTS


def main(asked: StudyOptions) -> int:
    checked(check_whole, 1, workers=asked.workers)
    checked(check_threads, threads=asked.threads)
    if asked.engine == "local" and (asked.address or asked.print_slurm):
        raise Misuse(f"{'--address' if asked.address else '--print-slurm'} needs --engine ray")

    plans = planned(asked.file)
    out = asked.out or Path("runs") / asked.file.stem
    if asked.print_slurm:
        sys.stdout.write(_slurm(asked, out))
        return 0
    if asked.dry_run:
        threads = asked.threads or max(1, available_cores() // asked.workers)
        print_lines(*forecast(plans, out, asked.workers, threads))
        return 0
    return _run(asked, [plan.trial for plan in plans], out)


def _run(asked: StudyOptions, trials: list[Trial], out: Path) -> int:
    count, failed = 0, 0

    def tell(ended: Ended) -> None:
        nonlocal count, failed
        count, failed = count + 1, failed + (ended.status == "failed")
        why = f"; see {ended.log}: {ended.why}" if ended.status == "failed" else ""
        print_lines(f"[{count}/{len(trials)}] {ended.trial.key}: {ended.status}{why}")
        sys.stdout.flush()

    try:
        _on_engine(asked, trials, out, tell)
    except KeyboardInterrupt:
        with unheard():
            say("interrupted; run the same command again to resume", before="\n")
        return 130
    write_tables(out)
    return 1 if failed else 0


def _on_engine(asked: StudyOptions, trials: list[Trial], out: Path, tell: Callable[[Ended], None]) -> None:
    shared = Shared(asked.device, asked.precision, asked.keep)
    if asked.engine == "local":
        study.run_study(
            trials, out, workers=asked.workers, threads=asked.threads, on_done=tell, **dataclasses.asdict(shared)
        )
        return
    from sparsight.integrations.ray import RayEngine, run_study_on_ray

    engine = RayEngine(asked.address, asked.threads or 1)
    with refusing(ModuleNotFoundError):
        run_study_on_ray(trials, out, engine, shared, on_done=tell, say=say)


def _slurm(asked: StudyOptions, out: Path) -> str:
    """A Slurm job script, with the options of this command."""
    from sparsight.integrations.ray import slurm_command

    own = {"out": out.resolve(), "device": asked.device, "precision": asked.precision, "keep": asked.keep}
    own |= {} if asked.threads is None else {"threads": asked.threads}
    return slurm_command(["sparsight", "study", str(asked.file.resolve()), *(f"--{n}={v}" for n, v in own.items())])


# -- tables ------------------------------------------------------------------------------------------------------


def write_tables(out: Path) -> None:
    found = rows(out)
    summary = summaries(found)
    for name, lines in (("rows", found), ("summary", summary)):
        write_csv(lines, out / f"{name}.csv")
        write_markdown(lines, out / f"{name}.md")
    write_output(out / "rows.json", [json.dumps(to_json(found), indent=1).encode(), b"\n"])
    order = ranked(found)
    if told := table(summary):
        sys.stdout.write(f"\nChosen networks, mean and 95 % interval over seeds:\n\n{told}\n")
    print_lines(*order)
    _page(out, summary, order)
    where = f"{out / 'rows.csv'}, rows.json and rows.md, intervals in summary.csv and summary.md"
    print_lines(f"{len(found)} rows in {where}")


def _page(out: Path, summary: list[Row], order: list[str]) -> None:
    """The page of the study: what came out and what it cost, and the networks of all finished trials side by side."""
    keys = [*read_study(out)[0]]
    finished = [out / "trials" / key for key in keys if stored(out / "trials" / key).get("done")]
    if finished:
        lead = (
            "Chosen networks, mean and 95 % interval over seeds. Costs are counted alike for all methods, "
            "measuring and shared training included."
        )
        heads, lines = _lines(summary)
        cells = Table("Chosen networks", (heads[-1], *heads[:-1]), [(x[-1], *x[:-1]) for x in lines], words=(0,))
        told = f"{len(finished)} of {words.plural(len(keys), 'trial')} finished."
        section = Section("results", "What came out", lead, [cells, *order])
        write_output(out / PAGE, [page(gather(finished), out.resolve().name, told, [section]).encode()])
        print_lines(f"Page: {out / PAGE}")


def summaries(found: list[Row]) -> list[Row]:
    """Mean and interval over seeds of what is measured: of each level, and of the chosen one ("chosen")."""
    done = [row for row in found if row["status"] == "finished"]
    ladder = [{**row, "which": "control" if row["role"] == "control" else f"level {row['level']}"} for row in done]
    chosen = [{**row, "which": "chosen"} for row in done if row["chosen"]]
    by = ("label", "recipe", "arguments", "options", "model", "data", "which")
    judged = [name for name in (found[0] if found else ()) if name.startswith(("validation_", "test_"))]
    measured = ("density", *judged, *COSTS)
    return [line for part in (chosen, ladder) for value in measured for line in summarise(part, by, value)]


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


def _lines(summary: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line for each setting's chosen networks, sparser ones later; names come last."""
    chosen = [row for row in summary if row["which"] == "chosen"]
    values = [v for v in dict.fromkeys(row["value"] for row in chosen) if v in SHOWN or v not in COSTS]
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in chosen:
        made = row["recipe"] if row["arguments"] == "{}" else f"{row['recipe']} {row['arguments']}"
        at = (row["label"] or made, row["arguments"], row["options"], row["model"], row["data"])
        settings.setdefault(at, {})[row["value"]] = row
    several = [i for i in (3, 4) if len({at[i] for at in settings}) > 1]  # models, data
    ordered = sorted(settings.items(), key=lambda one: (one[0][3:], -round(one[1]["density"]["mean"], 4)))
    heads = ["seeds", *(SHOWN.get(v, v.replace("_", " ", 1)) for v in values), "setting"]
    names = [", ".join([at[0], *(at[i].rpartition(":")[2] for i in several)]) for at, _ in ordered]
    return heads, [
        [str(of["density"]["n"]), *(_interval(of.get(value)) for value in values), name]
        for (_, of), name in zip(ordered, names, strict=True)
    ]


def table(summary: list[Row]) -> str:
    """The chosen networks, as text; "" if there is none."""
    heads, cells = _lines(summary)
    rows = [[*line[:-1], printable(line[-1])] for line in cells]
    lines = grid([*map(printable, heads[:-1]), ""], rows, {len(heads) - 1}, 14, ruled=False)
    return "\n".join(lines) if cells else ""


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
