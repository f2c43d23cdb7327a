"""The findings about a run, on its page."""

from __future__ import annotations

from sparsight.model.left_out import counted, lines
from sparsight.report import markup
from sparsight.report.escape import escape
from sparsight.report.findings import findings
from sparsight.report.run_view import Story


def warnings(s: Story) -> str:
    """What a reader must know before trusting the numbers. Nothing where there is nothing."""
    found = []
    if s.run.status != "finished":
        meaning = {
            "running": "The run had not ended when this page was made.",
            "interrupted": "The run was interrupted; it can be resumed.",
            "failed": "The run failed; the levels below were complete before.",
        }
        found.append(meaning[s.run.status])
    if s.run.chosen is not None and s.run.chosen.missed:
        found.append(f"Not what was asked for: {s.run.chosen.missed}.")
    if s.run.left_out:
        found.append(f"Not prunable: {counted(s.run.left_out)}: {', '.join(lines(s.run.left_out))}.")
    found += [f"{x}." for x in findings(s)]
    if not found:
        return ""
    items = [f"<li>{escape(x)}</li>" for x in found]
    shown, rest = "".join(items[:6]), "".join(items[6:])
    more = markup.fold(f"{len(items) - 6} more", f"<ul>{rest}</ul>") if rest else ""
    return f'<aside class="warnings" aria-label="Warnings"><h2>Take note</h2><ul>{shown}</ul>{more}</aside>'
