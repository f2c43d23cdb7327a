"""Charts of an analysis, drawn with the report's SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparsight.analysis.records import Analysis, Keep, Tensor
from sparsight.analysis.trajectory import Trajectory
from sparsight.report import format as words
from sparsight.report import svg
from sparsight.report.charts import shorten
from sparsight.report.escape import escape

MOST = 80
"""Tensors that charts with a row for each of them show."""
_KINDS = ("c1", "c2", "c3", "c4", "c5")
_SHAPES = ("circle", "diamond", "square")


def largest(a: Analysis) -> list[Tensor]:
    """The largest tensors, in the order of the file."""
    if len(a.tensors) <= MOST:
        return list(a.tensors)
    least = sorted((t.summary.count for t in a.tensors), reverse=True)[MOST - 1]
    return [t for t in a.tensors if t.summary.count >= least][:MOST]


def _legend(items: Sequence[tuple[str, str]]) -> str:
    """(markup of a 26 by 14 drawing, words) as a list."""
    rows = "".join(
        f"<li>{svg.element('svg', drawn, viewBox='0 0 26 14', class_='swatch', aria_hidden='true')}{escape(said)}</li>"
        for drawn, said in items
    )
    return f'<ul class="legend">{rows}</ul>'


def _y_axis(y: svg.Scale, left: float, right: float, label: str, factor: float = 1.0) -> list[str]:
    at = svg.ticks(y.lo, y.hi, 5)
    parts = [svg.text(6, y.b - 14, label, "label")]
    for v, said in zip(at, svg.spelled(at, factor), strict=True):
        parts += [svg.line((left, y(v)), (right, y(v)), "grid"), svg.text(left - 8, y(v) + 4, said, "tick", "end")]
    return parts


# -- along the depth -------------------------------------------------------------------------------------------


def depth_legend(a: Analysis) -> str:
    if len(a.pairs) < 2:
        return ""
    items = []
    for j, (p, q) in enumerate(a.pairs):
        kind = _KINDS[j % len(_KINDS)]
        drawn = svg.line((1, 7), (25, 7), f"curve {kind}") + svg.mark(_SHAPES[j % 3], (13, 7), f"dot {kind}")
        items.append((drawn, f"({p:g}, {q:g})"))
    return _legend(items)


def depth(a: Analysis, ident: str, width: int) -> str:
    """PQ index of each tensor, in the order of the file, a line for each (p, q)."""
    left, right, top, bottom = 52, width - 12, 40, 270
    values = [m.index for t in a.tensors if t.summary.defined for m in t.summary.measures]
    y = svg.Scale(*svg.span(values, 0.05, 0.0, 1.0), bottom, top)
    n = len(a.tensors)
    slot = (right - left) / max(n, 1)
    parts = _y_axis(y, left, right, "PQ index")
    for j, (p, q) in enumerate(a.pairs):
        kind = _KINDS[j % len(_KINDS)]
        seen = [
            (left + slot * (i + 0.5), y(t.summary.measures[j].index), t)
            for i, t in enumerate(a.tensors) if t.summary.defined
        ]  # fmt: skip
        parts.append(svg.path([(x, v) for x, v, _ in seen], f"curve {kind}"))
        for x, v, t in seen:
            said = f"PQ index ({p:g}, {q:g}) {words.index(t.summary.measures[j].index)}"
            tip = f"{t.name}\n{t.summary.count:,} weights\n{said}"
            hit = svg.rect(x - min(slot, 14) / 2, v - 7, min(slot, 14), 14, "band", tip)
            dot = svg.mark(_SHAPES[j % 3], (x, v), f"dot {kind}", 4 if n <= 60 else 2.5)
            parts.append(svg.element("g", dot, hit, class_="hot"))
    parts += [
        svg.text(left, bottom + 22, "first tensor", "tick"),
        svg.text(right, bottom + 22, "last tensor", "tick", "end"),
    ]
    about = f"{words.plural(n, 'tensor')}; the numbers are in the table below."
    return svg.drawing(ident, width, bottom + 32, "PQ index along the depth", about, parts)


# -- what has to stay ------------------------------------------------------------------------------------------


def keeps_legend(a: Analysis) -> str:
    items = []
    for j, eta in enumerate(a.etas[:2]):
        items.append((svg.rect(1, 2, 24, 10, f"bar t{1 if j == 0 else 4}"), f"has to stay at eta {eta:g}"))
        if a.sampled and eta > 0:
            items.append((svg.mark("diamond", (13, 7), "dot c2"), f"is enough at eta {eta:g}"))
    return _legend(items)


def keeps(a: Analysis, ident: str, width: int) -> str:
    """A bar for each tensor: the share that has to stay at the first two eta, and what is enough."""
    tensors = largest(a)
    most = 44 if width > 600 else 16
    names = [shorten(t.name if width > 600 else t.name.removesuffix(".weight"), most) for t in tensors]
    left = 16 + 6.9 * max(map(len, names))
    right, row, top = width - 64, 20, 30
    x = svg.Scale(0.0, 1.0, left, right)
    bottom = top + row * len(tensors)
    parts = []
    for v in (0, 0.25, 0.5, 0.75, 1.0):
        parts += [svg.line((x(v), top - 4), (x(v), bottom), "grid")]
        parts += [svg.text(x(v), top - 10, f"{100 * v:g} %", "tick", "middle")]
    for i, t in enumerate(tensors):
        y = top + row * i
        parts.append(_bar(t, a, x, y, row, names[i]))
    about = f"Bars for {words.plural(len(tensors), 'tensor')}; the numbers are in the table below."
    return svg.drawing(ident, width, bottom + 10, "Share of each tensor that has to stay", about, parts)


def _bar(t: Tensor, a: Analysis, x: svg.Scale, y: float, row: float, name: str) -> str:
    kinds, parts = ("t1", "t4"), [svg.text(x.a - 10, y + row / 2 + 4, name, "mono f11", "end", t.name)]
    if not t.summary.defined:
        return svg.element("g", *parts, svg.text(x.a + 4, y + row / 2 + 4, "all zero", "tick"), class_="hot")
    found: Sequence[Keep] = t.summary.measures[0].keeps[:2]
    tip = [t.name, f"{t.summary.count:,} weights"]
    high = (row - 5) / len(found)
    for j, k in enumerate(found):
        parts.append(
            svg.rect(x.a, y + 2 + high * j, x(k.share) - x.a, high - (1 if len(found) > 1 else 0), f"bar {kinds[j]}")
        )
        tip.append(f"eta {k.eta:g}: at least {words.percent(k.share)}, SAP removes {k.prune:,}")
        if k.exact is not None and k.eta > 0:
            parts.append(svg.mark("diamond", (x(k.exact), y + 2 + high * (j + 0.45)), "dot c2", 3.2))
            tip.append(f"eta {k.eta:g}: {words.percent(k.exact)} is enough")
    parts.append(svg.text(x(1.0) + 8, y + row / 2 + 4, words.percent(t.summary.measures[0].keeps[0].share), "tick"))
    parts.append(svg.rect(x.a, y, x.b - x.a, row, "band", "\n".join(tip)))
    return svg.element("g", *parts, class_="hot")


# -- magnitudes ------------------------------------------------------------------------------------------------


def magnitudes(a: Analysis, ident: str) -> str:
    """A row for each tensor, a column for each power of two; the darker, the larger the share."""
    tensors = largest(a)
    seen = sorted({e for t in tensors for e, n in t.summary.octaves if n / t.summary.alive >= 1e-4})
    if not seen:
        return ""
    last = seen[-1] + 1
    first = max(seen[0], last - 48)
    left = 16 + 6.9 * max(len(shorten(t.name, 40)) for t in tensors)
    cell, row, top = min(max((940 - left) / (last - first), 12), 40), 18, 40
    width = left + cell * (last - first) + 16
    every = next(m for m in (1, 2, 4, 8, 16) if m * cell >= 46)
    parts = [svg.text(left, 14, "magnitude, powers of two", "label")]
    shown = [e for e in range(first, last + 1) if e % every == 0]
    parts += [svg.text(left + cell * (e - first), top - 8, f"2^{e}", "tick", "middle") for e in shown]
    for i, t in enumerate(tensors):
        y = top + row * i
        parts.append(svg.text(left - 10, y + row / 2 + 4, shorten(t.name, 40), "mono f11", "end", t.name))
        for e, n in t.summary.octaves:
            if first <= e < last and n:
                share = n / t.summary.alive
                step = min(max(int(10 + math.log2(share) * 1.25), 0), 9)
                tip = f"{t.name}\nmagnitude 2^{e} to 2^{e + 1}: {words.percent(share)}"
                box = svg.rect(left + cell * (e - first), y, cell - 1, row - 1, f"cell h{step}", tip)
                parts.append(svg.element("g", box, class_="hot"))
    about = f"{words.plural(len(tensors), 'tensor')} by powers of two."
    return svg.drawing(ident, width, top + row * len(tensors) + 8, "Magnitudes by tensor", about, parts)


# -- the path --------------------------------------------------------------------------------------------------


def path_legend(path: Trajectory) -> str:
    items = [
        (
            svg.line((1, 7), (25, 7), "curve c1") + svg.mark("circle", (13, 7), "dot c1"),
            f"PQ index ({path.p:g}, {path.q:g})",
        )
    ]
    items += [(svg.mark("circle", (13, 7), "ring", 6), "turning point")]
    for kind, said, has in (
        ("c3", "validation accuracy", any(s.validation_accuracy is not None for s in path.steps)),
        ("c2", "test accuracy", any(s.test_accuracy is not None for s in path.steps)),
    ):
        if has:
            items.append((svg.line((1, 7), (25, 7), f"curve {kind}"), said))
    return _legend(items)


def path(path: Trajectory, ident: str, width: int) -> str:
    """PQ index against density, and the accuracy of the same levels below it."""
    left, right = 58, width - 30
    alive = [s for s in path.steps if s.density > 0]
    lowest = min((s.density for s in alive), default=0.5)
    x = svg.Scale(1.0, min(lowest, 0.5), left, right, log=True)
    y = svg.Scale(*svg.span([s.index for s in alive], 0.05, 0.0, 1.0), 250, 40)
    known = [v for s in alive for v in (s.validation_accuracy, s.test_accuracy) if v is not None]
    parts = _y_axis(y, left, right, "PQ index")
    bottom = 250
    if known:
        z = svg.Scale(*svg.span(known, 0.02, 0.0, 1.0), 430, 310)
        parts += _y_axis(z, left, right, "accuracy in percent", 100.0)
        bottom = 430
        for name, kind in (("validation_accuracy", "c3"), ("test_accuracy", "c2")):
            seen = [(x(s.density), z(v)) for s in alive if (v := getattr(s, name)) is not None]
            parts += [svg.path(seen, f"curve {kind}"), *(svg.mark("circle", at, f"dot {kind}", 3) for at in seen)]
    labelled, _ = svg.log_ticks(min(lowest, 0.5), 1.0, 8 if width > 600 else 4)
    for v in labelled:
        parts.append(svg.text(x(v), bottom + 20, words.percent(v), "tick", "middle"))
    parts.append(svg.text((left + right) / 2, bottom + 40, "density", "label", "middle"))
    parts += _path_points(path, x, y, bottom)
    about = f"{words.plural(len(path.steps), 'level')}; the numbers are in the table below."
    return svg.drawing(ident, width, bottom + 50, "PQ index against density", about, parts)


def _path_points(path: Trajectory, x: svg.Scale, y: svg.Scale, bottom: float) -> list[str]:
    names = {path.minimum: "minimum" if path.confirmed else "lowest so far", path.peak: "peak"}
    alive = [(i, s) for i, s in enumerate(path.steps) if s.density > 0]
    parts = [svg.path([(x(s.density), y(s.index)) for _, s in alive], "curve c1")]
    for i, s in alive:
        at = (x(s.density), y(s.index))
        tip = f"level {s.level}, density {words.percent(s.density)}\nPQ index {words.index(s.index)}"
        if s.validation_accuracy is not None:
            tip += f"\nvalidation accuracy {words.accuracy(s.validation_accuracy)}"
        if s.test_accuracy is not None:
            tip += f"\ntest accuracy {words.accuracy(s.test_accuracy)}"
        shown = [svg.mark("circle", at, "dot c1")]
        if names.get(i):
            end = "start" if at[0] < (x.a + x.b) / 2 else "end"
            up = -14 if i == path.peak else 24
            shown += [
                svg.mark("circle", at, "ring", 8),
                svg.text(at[0], at[1] + up, names[i], "label chosen-text", end),
            ]
        parts.append(svg.element("g", *shown, svg.rect(at[0] - 9, 30, 18, bottom - 30, "band", tip), class_="hot"))
    return parts
