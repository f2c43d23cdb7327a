"""What a run's records say: a summary in words, tables, and one self-contained HTML page.

Everything here is computed from records alone; nothing is measured, loaded or fetched.
"""

from __future__ import annotations

from sparsight.report.run_page import page
from sparsight.report.sentences import summary
from sparsight.report.table import rich_table, table

__all__ = ["page", "rich_table", "summary", "table"]
