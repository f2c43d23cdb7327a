"""The verdict on a run in its report."""

from __future__ import annotations

from pathlib import Path

from sparsight.compare.verdict.verdict import verdict
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.record import RunRecord
from sparsight.records.verdict import Verdict
from sparsight.runs.execute import write_report

WITHIN = 0.5


def report(folder: RunFolder) -> Path:
    """Write the page of a run with the verdict on it, if one can be given."""
    return write_report(folder, of_folder(folder))


def of_folder(folder: RunFolder) -> Verdict | None:
    """The verdict within the margin that the run's level was chosen by, or else 0.5, at 95 % confidence.

    None for a run that has not ended, or has nothing dense or nothing pruned to speak of.
    """
    try:
        return verdict(folder.path, _margin(folder.record))
    except DamagedFile:
        raise
    except ValueError:
        return None


def _margin(run: RunRecord) -> float:
    choose = run.description.get("choose")
    points = choose.get("points") if isinstance(choose, dict) and not choose.get("relative") else None
    return float(points) if isinstance(points, (int, float)) and points >= 0 else WITHIN
