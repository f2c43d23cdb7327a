"""`sparsight verdict RUN...`: how far the network can be pruned, in a paragraph per setting."""

from __future__ import annotations

import textwrap

from sparsight.cli.errors import Misuse
from sparsight.cli.evaluate import runs_of
from sparsight.cli.output import give
from sparsight.cli.record_options import VerdictOptions
from sparsight.compare import verdicts
from sparsight.report.escape import printable
from sparsight.report.verdict import document, paragraph

WIDTH = 80


def main(asked: VerdictOptions) -> int:
    if not asked.within >= 0:
        raise Misuse(f"--within must be at least 0, got {asked.within}")
    if not 50 < asked.confidence < 100:
        raise Misuse(f"--confidence must be greater than 50 and less than 100, got {asked.confidence}")
    found = verdicts(list(runs_of(asked.runs)), asked.within, asked.confidence / 100)
    told = (textwrap.fill(printable(paragraph(each)), WIDTH, break_on_hyphens=False) for each in found)
    return give(asked, lambda: "\n\n".join(told), lambda: document(found))
