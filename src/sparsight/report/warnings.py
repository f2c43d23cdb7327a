"""What a reader must know before trusting the numbers of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sparsight.model.left_out import counted, lines
from sparsight.records.record import LevelRecord
from sparsight.report import markup
from sparsight.report.escape import escape
from sparsight.report.run_view import Story, is_finite, name


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
    found += _losses(s)
    for x in s.records:
        if any(v is not None and not is_finite(v) for o in x.observations for v in (o.train_loss, o.validation_loss)):
            found.append(f"{name(x).capitalize()}: the loss was not a finite number.")
    if not found:
        return ""
    items = [f"<li>{escape(x)}</li>" for x in found]
    shown, rest = "".join(items[:6]), "".join(items[6:])
    more = markup.fold(f"{len(items) - 6} more", f"<ul>{rest}</ul>") if rest else ""
    return f'<aside class="warnings" aria-label="Warnings"><h2>Take note</h2><ul>{shown}</ul>{more}</aside>'


def _losses(s: Story) -> list[str]:
    """Where a tensor lost its last weight, and where a floor held one back."""
    found, before = [], frozenset[str]()
    for x in s.levels:
        new = [layer for layer in x.collapsed if layer not in before]
        before = frozenset(x.collapsed)
        if new:
            found.append(f"Level {x.level}: no weight is left in {_listed(new)}.")
        found += _cut_off(x)
        if x.floors:
            found.append(f"Level {x.level}: min_keep changed what was removed in {_listed(x.floors)}.")
    return found


def _cut_off(x: LevelRecord) -> list[str]:
    """What the masks of a level leave without use."""
    if x.collapse is None or x.kept == x.total:
        return []
    found = []
    if x.collapse.disconnected:
        found.append(f"Level {x.level}: no path is left from the input to the output.")
    elif idle := sum((x.collapse.cut_off or {}).values()):
        found.append(
            f"Level {x.level}: {idle:,} of {x.kept:,} kept weights lie on no path from the input to the output."
        )
    if x.collapse.nearly_empty:
        found.append(f"Level {x.level}: hardly a weight is left in {_listed(x.collapse.nearly_empty)}.")
    return found


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"'{x}'" for x in names[:most]) + more
