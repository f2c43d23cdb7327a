"""Reports on a run: a summary in words, tables, and one self-contained HTML page.

Everything is computed from the run's records; nothing is measured, loaded or fetched.
"""

from __future__ import annotations

from sparsight.report.run_page import page
from sparsight.report.sentences import summary
from sparsight.report.table import rich_table, table

__all__ = ["page", "rich_table", "summary", "table"]
