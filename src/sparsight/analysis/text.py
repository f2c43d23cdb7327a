"""An analysis as a table for people, and as CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from sparsight.analysis.records import Analysis, Listed, Summary, Tensor
from sparsight.analysis.seen import MOST_ROWS
from sparsight.analysis.trajectory import Trajectory
from sparsight.model.left_out import counted
from sparsight.model.left_out import lines as told
from sparsight.numerics import format as words
from sparsight.report.escape import printable
from sparsight.report.table import as_csv as rows_as_csv
from sparsight.report.table import grid as aligned

WIDTH = 80
"""Characters in a line of text."""
Order = Literal["compressible", "index", "size", "zeros", "gini", "name", "file"]
"""Most compressible first, by the share that the bound lets you prune; "file" is the order of the checkpoint."""


def ordered(tensors: Sequence[Tensor], by: Order = "compressible") -> list[Tensor]:
    """The tensors, sorted; ties keep the order of the file, and an undefined index comes last."""
    keys: dict[str, Callable[[Tensor], Any]] = {
        "compressible": lambda t: (not t.summary.defined, t.summary.measures[0].keeps[0].share),
        "index": lambda t: (not t.summary.defined, -t.summary.measures[0].index),
        "size": lambda t: -t.summary.count,
        "zeros": lambda t: -t.summary.zeros / t.summary.count,
        "gini": lambda t: -(t.summary.gini or 0.0),
        "name": lambda t: t.name,
        "file": lambda t: 0,
    }
    return sorted(tensors, key=keys[by])


def headline(a: Analysis) -> str:
    """What was analysed, how much of it is zero, and for a module how much was left out."""
    zeros = f", {words.percent(a.zeros / a.count)} of them zero" if a.count else ""
    left = f", without {counted(a.left_out)}" if a.left_out else ""
    return f"{a.source} ({a.format}): {words.plural(len(a.tensors), 'tensor')}, {a.count:,} weights{zeros}{left}"


def headings(a: Analysis) -> list[str]:
    """The headings of the columns."""
    columns = ["tensor", "shape", "dtype", "weights", "zeros"]
    for p, q in a.pairs:
        columns.append(f"PQ index ({p:g}, {q:g})")
        for eta in a.etas:
            at = "" if len(a.etas) == 1 and eta == 0 else f" at eta {eta:g}"
            columns += [f"must keep{at}", f"SAP prunes{at}"]
            columns += [f"enough{at}"] if eta > 0 and a.sampled else []
    return [*columns, "Hoyer", "Gini"]


def cells(a: Analysis, name: str, shape: str, dtype: str, s: Summary) -> list[str]:
    row = [printable(name), shape, dtype, f"{s.count:,}", words.percent(s.zeros / s.count) if s.count else words.NONE]
    for m in s.measures:
        row.append(words.index(m.index) if s.defined else words.NONE)
        for k in m.keeps:
            row += [words.percent(k.share), f"{k.prune:,}"] if s.defined else [words.NONE, words.NONE]
            if k.eta > 0 and a.sampled:
                row.append(words.percent(k.exact) if s.defined else words.NONE)
    return [*row, words.index(s.hoyer, 3), words.NONE if s.gini is None else words.index(s.gini, 3)]


def grid(a: Analysis, order: Order = "compressible") -> list[list[str]]:
    """Rows of text: the tensors, and the whole last."""
    rows = [cells(a, t.name, "×".join(map(str, t.shape)), t.dtype, t.summary) for t in ordered(a.tensors, order)]
    if a.whole is not None:
        rows.append(cells(a, "all together", "", "", a.whole))
    return rows


def table(a: Analysis, order: Order = "compressible", most: int | None = None) -> str:
    """The table in lines of at most `WIDTH` characters, several per tensor. Longer words stay whole.

    Shows the first `most` tensors, and says how many follow.
    """
    rows = grid(a, order)
    left = 0 if most is None else max(len(a.tensors) - most, 0)
    shown = [*rows[: len(a.tensors) - left], *rows[len(a.tensors) :]]
    lines = _stacked([[_narrow(h) for h in headings(a)], *shown], 5, 3)
    if left:
        lines.append(f"… and {left} more tensors (--all shows them)")
    return "\n".join([*lines, "", *map(wrapped, (*left_aside(a), *meanings(a)))])


def wrapped(text: str) -> str:
    """Prose in lines of at most `WIDTH` characters; numbers stay with their units, and names break as in `_broken`."""
    lines = [""]
    for word in words.unbroken(text).split(" "):
        for i, part in enumerate(_broken(word, WIDTH - 2)):
            longer = lines[-1] + (" " if i == 0 and lines[-1] else "") + part
            if len(longer) <= WIDTH:
                lines[-1] = longer
            else:
                lines.append(f"  {part}")
    return "\n".join(lines).replace("\u00a0", " ")


def nothing(a: Analysis) -> str:
    """Why nothing was analysed."""
    reasons = ", ".join(printable(f"{x.name} ({x.why})") for x in a.listed[:3])
    more = f" and {words.plural(len(a.listed) - 3, 'more tensor')}" if len(a.listed) > 3 else ""
    return f"none of its tensors is a weight: {reasons}{more}; use include to analyse one anyway"


def left_aside(a: Analysis) -> list[str]:
    """What was not analysed, and why."""
    lines = []
    by_why: dict[str, list[str]] = {}
    left = {x.name for x in a.left_out}
    if left:
        lines.append(f"not analysed unless --include names it: {printable(', '.join(told(a.left_out)))}")
    for x in a.listed:
        if x.name not in left:
            by_why.setdefault(x.why, []).append(printable(x.name))
    for why, names in by_why.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"not analysed: {shown} ({printable(why)})")
    return lines


def meanings(a: Analysis) -> list[str]:
    """Notes on the numbers, and how exact they are."""
    lines = []
    many = [printable(t.name) for t in a.tensors if t.shape[0] > MOST_ROWS]
    if many:
        lines.append(f"without single neurons, because of more than {MOST_ROWS:,} rows: {', '.join(many)}")
    error = max((t.summary.gini_error or 0.0 for t in a.tensors), default=0.0)
    if error:
        drawn = [t.summary.draws for t in a.tensors if t.summary.draws]
        of = f"{max(drawn):,} weights each were drawn from {words.plural(len(drawn), 'tensor')}"
        sure = f"with probability {words.percent(1 - a.delta)} for each"
        lines.append(f"Gini within {error:.4f}, {sure}: {of}; --exact makes it exact")
    lines.append("must keep: at least this share, by the PQI bound; necessary, not sufficient")
    if a.zeros:
        lines.append("PQ index, must keep, SAP prunes, enough, Hoyer and Gini count nonzero weights only")
    return lines


def _narrow(heading: str) -> str:
    """A heading of several lines."""
    for before, after in ((" at eta ", "\neta "), (" (", "\n("), ("must ", "must\n"), ("SAP ", "SAP\n")):
        heading = heading.replace(before, after)
    return heading


def _stacked(rows: Sequence[Sequence[str]], about: int, left: int) -> list[str]:
    """Lines of text, several for each row; the first row holds the headings.

    The first `about` columns identify the row: they share its first line, or if they do not fit, the name takes a line
    before the others. The other columns follow, as many per line as fit. The first `left` columns are left-aligned.
    """
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]
    parts = [[*range(about)]] if sum(widths[:about]) + 2 * (about - 1) <= WIDTH else [[0], [*range(1, about)]]
    pairs = [i for i, heading in enumerate(rows[0]) if heading.startswith("PQ index")]
    parts += _packed(widths, about, dict(zip(pairs, [*pairs[1:], len(widths)], strict=True)))
    lines = []
    for row in rows:
        for part in parts:
            cells = [row[i].split("\n") for i in part]
            if part == [0]:
                cells = [_broken(row[0], WIDTH)]
            depth = max(map(len, cells))
            for line in zip(*([""] * (depth - len(parted)) + parted for parted in cells), strict=True):
                aligned = [
                    c.ljust(widths[i]) if i < left else c.rjust(widths[i]) for i, c in zip(part, line, strict=True)
                ]
                lines.append(("  " if part[0] else "") + "  ".join(aligned).rstrip())
        if row is rows[0]:
            lines.append("-" * min(max(map(len, lines)), WIDTH))
    return lines


def _packed(widths: Sequence[int], first: int, groups: Mapping[int, int]) -> list[list[int]]:
    """Columns from `first` on, as many per line as fit after an indent; groups are kept together if possible."""
    parts: list[list[int]] = []
    room = 0
    for i in range(first, len(widths)):
        apart = i in groups and sum(w + 2 for w in widths[i : groups[i]]) > room
        room -= widths[i] + 2
        if room < 0 or apart or not parts:
            parts, room = [*parts, []], WIDTH - 2 - widths[i]
        parts[-1].append(i)
    return parts


def _broken(name: str, width: int) -> list[str]:
    """A name or path in lines of limited length, broken only after dots and slashes."""
    lines = [""]
    for word in re.findall(r"[^./]*[./]|[^./]+$", name):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += word
    return lines


def neuron_table(t: Tensor, a: Analysis) -> str:
    """Every neuron of a tensor."""
    heads = ["neuron", "zeros", *(f"PQ index\n({p:g}, {q:g})" for p, q in a.pairs)]
    body = [
        [f"{printable(t.name)}[{i}]", f"{r.zeros:,}", *(words.index(v) if r.defined else words.NONE for v in r.index)]
        for i, r in enumerate(t.rows)
    ]
    return "\n".join(_stacked([heads, *body], 2, 1)) if body else ""


def path_rows(path: Trajectory) -> list[tuple[str, ...]]:
    """A row per level: number, density, PQ index, validation and test accuracy, and which turning point it is."""
    rows = []
    for i, s in enumerate(path.steps):
        accuracies = (words.accuracy(s.validation_accuracy), words.accuracy(s.test_accuracy))
        rows.append((str(s.level), words.percent(s.density), words.index(s.index), *accuracies, path.marks.get(i, "")))
    return rows


def path_table(path: Trajectory) -> str:
    """The levels of a path with its turning points, and what they mean."""
    heads = ("level", "density", f"PQ index ({path.p:g}, {path.q:g})", "validation", "test", "")
    return "\n".join([*aligned(heads, path_rows(path), width=WIDTH, ruled=False), "", wrapped(path.meaning)])


def as_csv(a: Analysis) -> str:
    """A line per tensor and one for all together ("*"); numbers unrounded, empty if unknown."""

    def line(x: Tensor | Listed, s: Summary | None, why: str = "") -> dict[str, object]:
        head = {"tensor": x.name, "kind": x.kind, "dtype": x.dtype, "shape": "x".join(map(str, x.shape))}
        return {**head, **_numbers(a, s), "why_not": why}

    lines = [*(line(t, t.summary) for t in a.tensors), *(line(x, None, x.why) for x in a.listed)]
    whole = [line(Listed("*", "", "", (), (), ""), a.whole)] if a.whole is not None else []
    return rows_as_csv([*lines, *whole])


def _numbers(a: Analysis, s: Summary | None) -> dict[str, object]:
    """The numbers of a summary by column; None without one."""
    found: dict[str, object] = {name: getattr(s, name, None) for name in ("count", "zeros", "smallest", "largest")}
    found["defined"] = s and int(s.defined)
    for i, (p, q) in enumerate(a.pairs):
        m = s and s.measures[i]
        found |= {f"pq_index_{p:g}_{q:g}": m and m.index, f"effective_{p:g}_{q:g}": m and m.effective}
        for j, eta in enumerate(a.etas):
            for name in ("bound", "share", "prune", "exact", "exact_low", "exact_high"):
                found[f"{name}_{p:g}_{q:g}_eta_{eta:g}"] = m and getattr(m.keeps[j], name)
    return found | {name: getattr(s, name, None) for name in ("hoyer", "gini", "gini_error")}
