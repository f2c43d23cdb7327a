"""The report of a run, with the verdict on it."""

from __future__ import annotations

from pathlib import Path

from sparsight.compare.verdict.verdict import verdict
from sparsight.deploy.ledger.of_run import of_run
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.outputs import write_output
from sparsight.records.verdict import Verdict
from sparsight.report import page
from sparsight.report.findings import chosen_within

WITHIN = 0.5


def report(folder: RunFolder) -> Path:
    """Write the report of a run from its records and the chosen network, with the verdict if there is one."""
    path = folder.path / "report.html"
    found = of_run(folder) if folder.record.chosen is not None else None
    text = page(folder.record, folder.levels(), folder.times(), folder.evaluation(), found, of_folder(folder))
    write_output(path, [text.encode()])
    return path


def of_folder(folder: RunFolder) -> Verdict | None:
    """The verdict at 95 % confidence, within the margin of the run's `choose` (otherwise 0.5).

    None for an unfinished run, or one without a dense or pruned network.
    """
    points = chosen_within(folder.record.description.get("choose"))
    try:
        return verdict(folder.path, WITHIN if points is None or points < 0 else points)
    except DamagedFile:
        raise
    except ValueError:
        return None
