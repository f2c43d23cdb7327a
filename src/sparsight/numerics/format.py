"""Numbers as text, the same everywhere."""

from __future__ import annotations

import math
import re

NONE = "–"
"""Stands for a value that is not recorded."""


def percent(share: float | None) -> str:
    """A share in percent: one decimal, and below 1 % two significant digits.

    A half is rounded up: 6.25 % reads "6.3 %". Only 0 reads "0 %" and only 1 reads "100 %": values in
    between never round to either.
    """
    if share is None:
        return NONE
    if not math.isfinite(share):
        return repr(share)
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    value = 100.0 * share
    if value > 99.9:
        missing = 100.0 - value
        return f"{value:.{_decimals(missing, 1)}f} %" if missing > 1e-6 else "> 99.99999 %"
    return f"{value + 1e-9:.1f} %" if value >= 1.0 else f"{value:.{_decimals(value, 2)}f} %"


def _decimals(value: float, significant: int) -> int:
    return min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), 12) if value else significant


def accuracy(value: float | None, digits: int = 2) -> str:
    """An accuracy in percent with `digits` decimals."""
    if value is None:
        return NONE
    return f"{100.0 * value:.{digits}f} %" if math.isfinite(value) else repr(value)


def exactly(share: float) -> str:
    """A share in percent with up to four significant digits: "12.34 %", and "10 %" rather than "10.0 %"."""
    return f"{100 * share:.4g} %"


def points(change: float, digits: int = 2) -> str:
    """A difference of shares in percentage points, with its sign: "+0.50 points"."""
    return f"{100 * change:+.{digits}f} points"


def margin(value: float, relative: bool) -> str:
    """A margin as the user gave it: "1 point", "0.5 points", or "2 %" if it is relative."""
    return f"{value:g} {'%' if relative else 'point' if value == 1 else 'points'}"


def apart(mine: float, other: float, named: str, digits: int) -> str:
    """Two shares compared, rounded: "0.2 points below dense"; "as dense" if they are equal after rounding."""
    gap = round(100.0 * (mine - other), digits)
    return f"{abs(gap):.{digits}f} points {'above' if gap > 0 else 'below'} {named}" if gap else f"as {named}"


def compression(kept: int, total: int) -> str:
    """total / kept, as ×; "∞" if no weight is kept."""
    if not kept:
        return "∞"
    ratio = total / kept
    return f"{ratio:.1f}×" if ratio < 100 else f"{ratio:,.0f}×"


def smaller(kept: int, total: int) -> str:
    """ "4.0× smaller", or "no smaller" unless kept < total."""
    return f"{compression(kept, total)} smaller" if kept < total else "no smaller"


def bytes_of(count: float) -> str:
    """A size: "812 bytes", "12.4 kB", "12.4 MB", "1.2 GB"; in powers of 1,000."""
    if count < 1000:
        return f"{count:,.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:,.1f} GB"


def index(value: float | None, digits: int = 4) -> str:
    """A PQ index."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """A count, with one decimal only if it is not whole."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return repr(value)
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def duration(value: float) -> str:
    """Seconds, as "0.80 s", "2 min 05 s" or "3 h 04 min"."""
    if not math.isfinite(value):
        return repr(value)
    if 0.095 <= value < 9.995:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s" if value >= 0.095 else f"{1000 * value:.1f} ms" if value else "0 s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def unbroken(sentence: str) -> str:
    """The sentence without line breaks between numbers and their units."""
    return re.sub(r"(?<=\d) (?=(%|ms|s|min|h|weights|epochs?|points)\b|%)", "\u00a0", sentence)


def plural(number: float, noun: str) -> str:
    """ "1 epoch", "3 epochs"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
