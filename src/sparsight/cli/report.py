"""`sparsight report RUN`: rewrite the report of a run from its records."""

from __future__ import annotations

import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import printable
from sparsight.cli.options import options


@dataclass(frozen=True)
class ReportOptions:
    """Rewrite report.html of a run from its records, and print its path."""

    run: Annotated[conf.Positional[Path], Doc("The run folder, finished or not.")]
    open: Annotated[bool, Doc("Open the page in the browser.")] = False


def main(argv: list[str]) -> int:
    asked = options(ReportOptions, argv, "sparsight report")

    from sparsight.cli.show import opened
    from sparsight.compare.verdict import report

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
