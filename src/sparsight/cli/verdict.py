"""`sparsight verdict RUN...`: how far the network can be pruned, in one paragraph for each setting."""

from __future__ import annotations

import json as json_
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse
from sparsight.cli.options import Switch, options

WIDTH = 80


@dataclass(frozen=True)
class VerdictOptions:
    """Say how far one can go: the sparsest network within a margin of dense, what speaks for it and against it.

    One paragraph for each setting; runs that differ in their seed alone are one. Only what the run folders hold is
    read: nothing is trained or measured, and the test split decides nothing.
    """

    runs: Annotated[conf.Positional[tuple[Path, ...]], Doc("Run folders, or folders of a study.")]
    within: Annotated[
        float,
        conf.arg(metavar="POINTS"),
        Doc("Margin in percentage points; of a metric that is no share, in percent of the dense network's value."),
    ] = 0.5
    confidence: Annotated[float, conf.arg(metavar="PERCENT"), Doc("Confidence of the bound, above 50.")] = 95.0
    json: Annotated[Switch, Doc("Print the records as one JSON document instead.")] = False


def main(argv: list[str]) -> int:
    asked = options(VerdictOptions, argv, "sparsight verdict")
    if not asked.within >= 0:
        raise Misuse(f"--within must be a number of at least 0, got {asked.within}")
    if not 50 < asked.confidence < 100:
        raise Misuse(f"--confidence must lie between 50 and 100 %, both excluded, got {asked.confidence}")

    from sparsight.cli.evaluate import runs_of
    from sparsight.compare import verdicts
    from sparsight.report.escape import printable
    from sparsight.report.verdict import document, paragraph

    found = verdicts(list(runs_of(asked.runs)), asked.within, asked.confidence / 100)
    if asked.json:
        sys.stdout.write(json_.dumps(document(found), indent=1) + "\n")
        return 0
    paragraphs = [textwrap.fill(printable(paragraph(each)), WIDTH, break_on_hyphens=False) for each in found]
    sys.stdout.write("\n\n".join(paragraphs) + "\n")
    return 0
