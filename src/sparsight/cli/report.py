"""`sparsight report RUN`: rewrite the report of a run from its records."""

from __future__ import annotations

import sys
import webbrowser

from sparsight.cli.errors import printable
from sparsight.cli.record_options import ReportOptions
from sparsight.cli.show import opened
from sparsight.compare.verdict import report


def main(asked: ReportOptions) -> int:
    with opened(asked.run) as folder:
        before = folder.record.status, len(folder.levels())
        path = report(folder)
    with opened(asked.run) as now:
        if (now.record.status, len(now.levels())) != before:  # the run continued meanwhile
            report(now)
    sys.stdout.write(f"{printable(str(path))}\n")
    if asked.open:
        webbrowser.open(path.resolve().as_uri())
    return 0
