"""`sparsight verdict RUN...`: how far the network can be pruned, in a paragraph per setting."""

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
    """Find the sparsest network within a margin of dense, and list the evidence for it and against it.

    Prints a paragraph per setting; runs that differ only in their seed count as one setting. Reads the run folders:
    nothing is trained or measured, and the test split is not used for the decision.
    """

    runs: Annotated[conf.Positional[tuple[Path, ...]], Doc("Run folders, or folders of a study.")]
    within: Annotated[
        float,
        conf.arg(metavar="POINTS"),
        Doc("Margin in percentage points; for a metric that is not a share, percent of the dense network's value."),
    ] = 0.5
    confidence: Annotated[float, conf.arg(metavar="PERCENT"), Doc("Confidence of the bound, above 50.")] = 95.0
    json: Annotated[Switch, Doc("Print the records as one JSON document instead.")] = False


def main(argv: list[str]) -> int:
    asked = options(VerdictOptions, argv, "sparsight verdict")
    if not asked.within >= 0:
        raise Misuse(f"--within must be at least 0, got {asked.within}")
    if not 50 < asked.confidence < 100:
        raise Misuse(f"--confidence must be greater than 50 and less than 100, got {asked.confidence}")

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
