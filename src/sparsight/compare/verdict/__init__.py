"""How far can I prune? A verdict from the records of runs."""

from sparsight.compare.verdict.verdict import of_folder, report, verdict, verdicts

__all__ = ["of_folder", "report", "verdict", "verdicts"]
