"""SVG by hand: escaped elements, scales and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparsight.report.escape import escape

Point = tuple[float, float]


def number(value: float) -> str:
    """A coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def element(tag: str, *content: str, **attributes: str | float | None) -> str:
    """`<tag …>content</tag>`. Attribute values are escaped; `content` is markup already. `class_` is class."""
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(v) if not isinstance(v, str) else v)}"'
        for key, v in attributes.items()
        if v is not None
    ]
    inner = "".join(content)
    return f"<{tag}{''.join(parts)}>{inner}</{tag}>" if inner else f"<{tag}{''.join(parts)}/>"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start", tip: str | None = None) -> str:
    """Escaped text; `tip` shows on hovering."""
    title = element("title", escape(tip)) if tip else ""
    return element("text", escape(words), title, x=x, y=y, class_=kind or None, text_anchor=anchor)


def line(a: Point, b: Point, kind: str) -> str:
    return element("line", x1=a[0], y1=a[1], x2=b[0], y2=b[1], class_=kind)


def path(points: Sequence[Point], kind: str) -> str:
    """An open line through `points`; nothing where there are fewer than two."""
    if len(points) < 2:
        return ""
    steps = " ".join(f"{'L' if i else 'M'}{number(x)} {number(y)}" for i, (x, y) in enumerate(points))
    return element("path", d=steps, class_=kind)


def rect(x: float, y: float, width: float, height: float, kind: str, tip: str | None = None) -> str:
    """A rectangle; `tip` shows on hovering."""
    title = element("title", escape(tip)) if tip else ""
    return element("rect", title, x=x, y=y, width=max(width, 0), height=max(height, 0), class_=kind)


def mark(shape: str, at: Point, kind: str, r: float = 4.0) -> str:
    """A marker: "circle", "diamond", "square" or "ring"."""
    x, y = at
    if shape == "diamond":
        r *= 1.35
        corners = (
            f"M{number(x)} {number(y - r)}l{number(r)} {number(r)}l{number(-r)} {number(r)}l{number(-r)} {number(-r)}z"
        )
        return element("path", d=corners, class_=kind)
    if shape == "square":
        return element("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=kind)
    return element("circle", cx=x, cy=y, r=r, class_=kind)


def drawing(
    name: str, width: float, height: float, title: str, description: str, content: Iterable[str], kind: str = ""
) -> str:
    """A picture with a title and a description for those who cannot see it. `name` is its id on the page."""
    return element(
        "svg",
        element("title", escape(title), id=f"{name}-title"),
        element("desc", escape(description), id=f"{name}-desc"),
        *content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        class_=f"chart {kind}".strip(),
        style=f"--w:{number(width)}px",
    )


# -- scales and ticks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """From [lo, hi] to pixels [a, b], linearly or by logarithm (then lo and hi are positive)."""

    lo: float
    hi: float
    a: float
    b: float
    log: bool = False

    def __call__(self, value: float) -> float:
        f = math.log if self.log else float
        return self.a + (self.b - self.a) * (f(value) - f(self.lo)) / (f(self.hi) - f(self.lo))


def ticks(lo: float, hi: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [lo, hi], `about` of them."""
    step = _step((hi - lo) / max(about, 1))
    first, last = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9)
    digits = max(-math.floor(math.log10(step)), 0)
    return [round(i * step, digits) for i in range(first, last + 1)]


def spelled(values: Sequence[float], factor: float = 1.0) -> list[str]:
    """Ticks as text, all with as many decimals as the finest of them needs."""
    shown = [factor * v for v in values]
    digits = next(
        d for d in range(13) if d == 12 or all(abs(round(v, d) - v) <= 1e-9 * max(abs(v), 1e-9) for v in shown)
    )
    return [f"{v:,.{digits}f}" for v in shown]


def _step(rough: float) -> float:
    base = 10.0 ** math.floor(math.log10(rough))
    return next(m * base for m in (1, 2, 5, 10) if m * base >= rough * 0.999)


def log_ticks(lo: float, hi: float, most: int) -> tuple[list[float], list[float]]:
    """Ticks of a logarithmic axis over [lo, hi]: those to label (1, 2, 5 or powers of ten only), and the rest."""
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    fine = [float(f"{m}e{e}") for e in decades for m in range(1, 10)]
    fine = [v for v in fine if lo * 0.999 <= v <= hi * 1.001]
    for leading in ("125", "15", "1"):
        labelled = [v for v in fine if f"{v:e}"[0] in leading]
        if len(labelled) <= most:
            break
    else:
        labelled = labelled[:: math.ceil(len(labelled) / most)]
    return labelled, [v for v in fine if v not in labelled]


def span(values: Iterable[float], least: float, lo: float = -math.inf, hi: float = math.inf) -> tuple[float, float]:
    """An axis that holds `values` with some air, at least `least` wide, within [lo, hi]."""
    seen = [v for v in values if math.isfinite(v)] or [max(lo, 0.0)]
    low, high = min(seen), max(seen)
    air = max(0.07 * (high - low), (least - (high - low)) / 2)
    low, high = max(low - air, lo), min(high + air, hi)
    return (low, high) if high - low >= 0.5 * least else (max(high - least, lo), min(low + least, hi))
