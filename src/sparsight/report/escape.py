"""Names made harmless: they may hold markup, terminal codes or marks that turn the direction of writing."""

from __future__ import annotations

import html
import unicodedata

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of the text after them, beyond the name that holds them."""


def plain(text: str) -> str:
    r"""The same with control characters, direction marks and lone surrogates spelled out, as in "\u202e".

    Line breaks and tabs stay. What comes out can be encoded, and neither moves a cursor nor turns a line.
    """
    return "".join(_spelled(c) if _steers(c) else c for c in text)


def escape(text: str) -> str:
    """`plain` text as markup, for content and for attributes in quotes."""
    return html.escape(plain(text))


def _steers(c: str) -> bool:
    return c in BIDI or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs"))


def _spelled(c: str) -> str:
    return f"\\u{ord(c):04x}"
