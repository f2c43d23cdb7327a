"""How far can I prune? A verdict from the records of runs."""

from sparsight.compare.verdict.reports import of_folder, report
from sparsight.compare.verdict.verdict import verdict, verdicts

__all__ = ["of_folder", "report", "verdict", "verdicts"]
