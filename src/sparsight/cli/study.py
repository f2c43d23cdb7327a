"""`sparsight study FILE`: many runs, then rows and intervals."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, near, printable, say
from sparsight.cli.options import options
from sparsight.cli.signals import unheard

if TYPE_CHECKING:
    from sparsight.runs.study import Ended, Row, Trial

ABOUT = """\
Run the trials that FILE lists, each in a process of its own, and write what came out.

FILE is a JSON list of objects: "recipe", and where they are not the default "arguments" (of the recipe, by
name), "model", "data", "label" (for tables), and "seed" or a list "seeds":

  [
    {"label": "SAP",     "recipe": "sap",     "arguments": {"p": 0.5, "q": 1.0}, "seeds": [0, 1, 2]},
    {"label": "lottery", "recipe": "lottery", "arguments": {"rate": 0.3, "control": false}, "seeds": [0, 1, 2],
     "model": "lenet-300-100", "data": "digits"}
  ]

Give the same command again after any end of it: finished trials are skipped, unfinished ones go on where they
were. A trial that fails does not stop the others; its log is named. Writes rows.csv and rows.md (one row a trial
and level) and summary.csv and summary.md (mean, standard deviation and half-width of the 95 % Student-t interval
over seeds), beside study.json, trials/ and logs/.

example: sparsight study trials.json --out studies/first --workers 2

exit codes: 0 done, 1 a trial failed, 2 wrong use, 130 interrupted."""


@dataclass(frozen=True)
class StudyOptions:
    """The trials of a file, and how they are run."""

    file: Annotated[conf.Positional[Path], Doc("The list of trials, as JSON.")]
    out: Annotated[Path, Doc("The folder of the study.")]
    workers: Annotated[int, Doc("Trials at the same time; each gets cores / workers threads.")] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Doc("Where to compute; auto takes an accelerator if there is one."),
    ] = "auto"
    precision: Annotated[Literal["no", "bf16", "fp16"], Doc("Mixed precision for training, or no.")] = "no"
    keep: Annotated[
        Literal["all", "packed", "chosen", "last"],
        Doc(
            "Which levels' weights to keep on disk once a run is finished, packed being all, in packed files; masks "
            "and records always stay."
        ),
    ] = "chosen"


def main(argv: list[str]) -> int:
    asked = options(StudyOptions, argv, "sparsight study", ABOUT)

    from sparsight.runs.study import run_study

    trials = read(asked.file)
    count, failed = 0, 0

    def tell(ended: Ended) -> None:
        nonlocal count, failed
        count, failed = count + 1, failed + (ended.status == "failed")
        why = f"; see {ended.log}: {ended.why}" if ended.status == "failed" else ""
        sys.stdout.write(printable(f"[{count}/{len(trials)}] {ended.trial.key}: {ended.status}{why}") + "\n")
        sys.stdout.flush()

    try:
        run_study(
            trials, asked.out, workers=asked.workers, device=asked.device, precision=asked.precision, keep=asked.keep,
            on_done=tell,
        )  # fmt: skip
    except KeyboardInterrupt:
        with unheard():
            say("interrupted; the same command goes on with the study", before="\n")
        return 130
    _write(asked.out)
    return 1 if failed else 0


def read(path: Path) -> list[Trial]:
    """The trials that a file lists. Misuse that names the entry, what it has and what is expected."""
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Misuse(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise Misuse(f"{path}: expected a list of at least one trial, got {type(entries).__name__}")
    return [trial for number, entry in enumerate(entries) for trial in _trials(entry, f"{path}, entry {number + 1}")]


def _trials(entry: Any, where: str) -> list[Trial]:
    """An entry, once for each of its seeds."""
    from sparsight.runs.study import Trial

    known = {"arguments": dict, "seed": int, "seeds": list, **dict.fromkeys(("recipe", "model", "data", "label"), str)}
    if not isinstance(entry, dict) or "recipe" not in entry:
        raise Misuse(f"{where}: expected an object that names a recipe, got {entry!r:.80}")
    for name, value in entry.items():
        if name not in known:
            raise Misuse(f"{where}: unknown field {name!r}{near(name, known) or f'; there are {sorted(known)}'}")
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise Misuse(f"{where}: {name} must be of type {known[name].__name__}, got {value!r:.80}")
    seeds = entry.get("seeds", [entry.get("seed", 0)])
    if ("seed" in entry and "seeds" in entry) or not seeds or any(type(seed) is not int for seed in seeds):
        raise Misuse(f"{where}: expected one seed, or a list of whole numbers as seeds")
    kept = {f.name: entry[f.name] for f in fields(Trial) if f.name in entry and f.name != "seed"}
    try:
        return [Trial(**kept, seed=seed) for seed in seeds]
    except ValueError as error:
        raise Misuse(f"{where}: {error}") from error


def _write(out: Path) -> None:
    from sparsight.runs.study import rows, write_csv, write_markdown

    found = rows(out)
    summary = summaries(found)
    for name, lines in (("rows", found), ("summary", summary)):
        write_csv(lines, out / f"{name}.csv")
        write_markdown(lines, out / f"{name}.md")
    if told := table(summary):
        sys.stdout.write(f"\nNetworks handed over, mean and 95 % interval over seeds:\n\n{told}\n")
    where = f"{out / 'rows.csv'} and rows.md, intervals in summary.csv and summary.md"
    sys.stdout.write(printable(f"{len(found)} rows in {where}") + "\n")


def summaries(found: list[Row]) -> list[Row]:
    """Mean and interval over seeds of what is measured: of each level, and of the chosen one ("chosen")."""
    from sparsight.runs.study import summarise

    done = [row for row in found if row["status"] == "finished"]
    ladder = [{**row, "which": "control" if row["role"] == "control" else f"level {row['level']}"} for row in done]
    chosen = [{**row, "which": "chosen"} for row in done if row["chosen"]]
    by = ("label", "recipe", "arguments", "model", "data", "which")
    measured = ("density", *_judged(done), "cumulative_epochs")
    return [line for part in (chosen, ladder) for value in measured for line in summarise(part, by, value)]


def _judged(found: list[Row]) -> list[str]:
    """The columns of metrics, on the validation and on the test split."""
    return [name for name in (found[0] if found else ()) if name.startswith(("validation_", "test_"))]


def table(summary: list[Row]) -> str:
    """The networks that were handed over, setting by setting; "" if there is none."""
    from sparsight.report.table import stacked

    chosen = [row for row in summary if row["which"] == "chosen"]
    values = list(dict.fromkeys(row["value"] for row in chosen if row["value"] != "cumulative_epochs"))
    settings: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in chosen:
        made = row["recipe"] if row["arguments"] == "{}" else f"{row['recipe']} {row['arguments']}"
        at = (row["label"] or made, row["arguments"], row["model"], row["data"])
        settings.setdefault(at, {})[row["value"]] = row
    heads = stacked(["seeds", *(printable(value).replace("_", " ", 1) for value in values)], 14)
    cells = [[str(of["density"]["n"]), *(_interval(of.get(value)) for value in values)] for of in settings.values()]
    widths = [max(map(len, column)) for column in zip(*zip(*heads, strict=True), *cells, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in (*zip(*heads, strict=True), *cells)]
    named = [*[""] * len(heads[0]), *(printable(at[0]) for at in settings)]
    return "\n".join(f"{line}  {name}".rstrip() for line, name in zip(lines, named, strict=True)) if cells else ""


def _interval(row: Row | None) -> str:
    """ "97.67 ± 0.41 %"; of a metric that is no share, four significant digits."""
    if row is None:
        return "–"
    share = row["value"] in ("density", "validation_accuracy", "test_accuracy")
    mean, half = row["mean"], row["half_width"]
    numbers = [x for x in (mean, half) if x is not None]
    return " ± ".join(f"{100 * x:.2f}" if share else f"{x:.4g}" for x in numbers) + (" %" if share else "")
