"""Makes names harmless and short: they may hold markup, terminal codes, or marks that change the text direction."""

from __future__ import annotations

import unicodedata

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of text even after the name that contains them."""


def printable(text: str) -> str:
    r"""The text in one line, with control characters, line breaks, direction marks and lone surrogates as escapes.

    For example "\u001b", "\u000a", "\u202e". The result can be encoded; it moves no cursor and turns or ends no line.
    """
    if text.isprintable():
        return text
    return "".join(_spelled(c) if c in "\n\t" or _steers(c) else c for c in text)


def plain(text: str) -> str:
    """Like `printable`, but keeps line breaks and tabs."""
    return text if text.isprintable() else "".join(_spelled(c) if _steers(c) else c for c in text)


def cell(value: object) -> object:
    """A value for a CSV cell: text is `printable`, and no spreadsheet takes it for a formula."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else printable(value)


def columns(text: str) -> int:
    """The number of columns that a text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(name: str, most: int) -> str:
    """The name in at most `most` columns, with "…" in place of its middle."""
    wide = columns(name)
    if wide <= most:
        return name
    if wide > len(name):
        most //= 2
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def _steers(c: str) -> bool:
    return c in BIDI or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"))


def _spelled(c: str) -> str:
    return f"\\u{ord(c):04x}"
