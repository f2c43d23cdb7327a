"""`sparsight show`: the results of a run, or the tensors of a packed file. `sparsight verify`: their damaged files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsight.checkpoint import open_checkpoint
from sparsight.checkpoint.packed.head import FORMAT, dense_bytes
from sparsight.cli.errors import Misuse, print_lines, refusing
from sparsight.cli.output import check_outputs, give, quiet
from sparsight.cli.record_options import ShowOptions, VerifyOptions
from sparsight.deploy.ledger.of_run import of_run
from sparsight.model.left_out import counted, lines
from sparsight.numerics.format import bytes_of, smaller
from sparsight.records.files import there
from sparsight.records.folder import RunFolder
from sparsight.records.record import Evaluation, LevelRecord, RunRecord
from sparsight.records.verify import verify_run, whole
from sparsight.report import rich_table, summary, table
from sparsight.report.escape import plain, printable
from sparsight.report.ledger import sentence
from sparsight.report.run_view import story
from sparsight.report.sentences import findings
from sparsight.runs.study import verify_study


def show(asked: ShowOptions) -> int:
    check_outputs(asked)
    if os.path.isfile(asked.run):
        return _packed(asked)
    with opened(asked.run) as folder:
        parts = folder.record, folder.levels(), folder.evaluation()
    give(asked, None, lambda: document(asked.run, *parts), csv=lambda: table(*parts, format="csv"))
    if asked.json or quiet(asked):
        return 0
    left = parts[0].left_out
    if left:
        print_lines(f"Not prunable: {counted(left)}: {', '.join(lines(left))}.")
    tell(*parts, asked.run / "report.html")
    real = _real(asked.run, parts[0])
    if real is not None:
        print_lines(f"What is real: {real}")
    return 0


def _real(path: Path, run: RunRecord) -> str | None:
    """The ledger's sentence about the chosen network; None if no level is chosen yet."""
    if run.chosen is None:
        return None
    with RunFolder.open(path) as folder:
        return sentence(of_run(folder, count_macs=False))


def _packed(asked: ShowOptions) -> int:
    """The tensors of a packed file."""
    found = open_checkpoint(asked.run)
    if found.format != FORMAT:
        raise Misuse(f"{asked.run} is neither a run folder nor a packed file: try sparsight analyze")
    if asked.csv is not None or asked.json:
        raise Misuse("--csv and --json are for runs")
    lines, dense = [], 0
    for entry in found.entries:
        before = dense_bytes(entry.dtype, entry.shape)
        after = before if entry.packed is None else entry.packed.size
        dense += before
        shape = " × ".join(map(str, entry.shape)) or "scalar"
        names = ", ".join((entry.name, *entry.aliases))
        lines.append(f"{names}: {entry.dtype}, {shape}, {bytes_of(before)} in {bytes_of(after)}")
    size = asked.run.stat().st_size
    lines.append(f"{len(lines):,} tensors, {bytes_of(dense)} in {bytes_of(size)} ({smaller(size, dense)})")
    print_lines(*lines)
    return 0


def verify(asked: VerifyOptions) -> int:
    with refusing(FileNotFoundError, form="{}; expected a run folder or a study folder"):
        found = verify_study(asked.path) if there(asked.path / "study.json") else verify_run(asked.path)
    print_lines(*(map(str, found) if found else [f"{asked.path}: every file is intact"]))
    return 3 if found else 0


def opened(path: Path) -> RunFolder:
    """The run in `path`, for reading. Raises: Misuse if it is not a run; DamagedFile."""
    with refusing(FileNotFoundError):
        return whole(path)


def tell(run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None, report: Path) -> None:
    """Print the table, the summary, why the run ended, the path of its report, and any findings and missed target."""
    lines = ["", summary(run, levels, evaluation)]
    if run.why_ended:
        lines.append(f"Why the run ended: {run.why_ended.rstrip('.')}.")
    if report.exists():
        lines.append(f"Report: {report}")
    lines += [f"Note: {finding}." for finding in findings(story(run, levels, (), evaluation))]
    if run.chosen is not None and run.chosen.missed:
        lines.append(f"Not what was asked for: {run.chosen.missed}.")
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console()
        console.print(rich_table(run, levels, evaluation))
        for line in lines:
            console.print(Text(printable(line)), highlight=False, soft_wrap=line.startswith("Report: "))
    else:
        sys.stdout.write("\n" + plain(table(run, levels, evaluation)) + "\n")
        print_lines(*lines)


def document(
    path: Path, run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None
) -> dict[str, Any]:
    """The JSON document of a run: a row per level, the summary, and all else that is shown."""
    rows = json.loads(table(run, levels, evaluation, format="json"))
    report = path / "report.html"
    return {
        "path": str(path),
        "report": str(report) if report.exists() else None,
        **rows,
        "arguments": run.arguments,
        "seed": run.seed,
        "data": run.data.get("name"),
        "model": run.model.get("spec") or run.model.get("type"),
        "left_out": run.left_out,
        "chosen": run.chosen,
        "why_ended": run.why_ended,
        "summary": summary(run, levels, evaluation),
        "ledger": _real(path, run),
        "findings": findings(story(run, levels, (), evaluation)),
    }
