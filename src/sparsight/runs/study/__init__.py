"""Many runs for one question: recipes, arguments and seeds, each in its own process, then tables."""

from sparsight.records.trials import Ended, Shared, Trial, read_study, verify_study
from sparsight.runs.study.local import run_study
from sparsight.runs.study.rows import Row, rows, summarise, write_csv, write_markdown

__all__ = [
    "Ended",
    "Row",
    "Shared",
    "Trial",
    "read_study",
    "rows",
    "run_study",
    "summarise",
    "verify_study",
    "write_csv",
    "write_markdown",
]
