"""HTML tables, lists and folds. Every string that comes in is escaped here, once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparsight.records.record import to_json
from sparsight.report.escape import escape
from sparsight.report.format import unbroken


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    *,
    words: Iterable[int] = (),
    marked: Mapping[int, str] | None = None,
) -> str:
    """A table in a box that scrolls sideways. The first column names its row; columns in `words` are prose.

    `marked` gives rows (by position) a CSS class.
    """
    prose, marked = set(words), marked or {}
    head = "".join(f'<th scope="col"{_kind(i, prose)}>{escape(h)}</th>' for i, h in enumerate(headings))
    body = []
    for n, row in enumerate(rows):
        cells = (
            f'<th scope="row"{_kind(i, prose)}>{escape(c)}</th>' if i == 0 else f"<td{_kind(i, prose)}>{escape(c)}</td>"
            for i, c in enumerate(row)
        )
        body.append(f"<tr{f' class={marked[n]}' if n in marked else ''}>{''.join(cells)}</tr>")
    inner = f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    label = escape(caption)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>{inner}</table></div>'


def _kind(column: int, prose: set[int]) -> str:
    return ' class="prose"' if column in prose else ""


def fold(title: str, *content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{''.join(content)}</details>"


def section(ident: str, title: str, lead: str, *content: str) -> str:
    """A titled part of the page; `lead` is plain text."""
    intro = f'<p class="lead">{escape(unbroken(lead))}</p>' if lead else ""
    return f'<section id="{ident}"><h2>{escape(title)}</h2>{intro}{"".join(content)}</section>'


def facts(values: Mapping[str, Any], caption: str) -> str:
    """A mapping as a two-column table; nested mappings get dotted names."""
    rows = [(key, _spell(value)) for key, value in _flat(to_json(values))]
    return table(("name", "value"), rows, caption, words=(0, 1)) if rows else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def source(value: Any, caption: str) -> str:
    """JSON values as indented text."""
    spelled = json.dumps(to_json(value), indent=2, ensure_ascii=False)
    return f'<pre tabindex="0" aria-label="{escape(caption)}">{escape(spelled)}</pre>'
