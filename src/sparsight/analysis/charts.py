"""The charts of an analysis and of the path of a run."""

from __future__ import annotations

from typing import Any

import altair as alt

from sparsight.analysis.records import Analysis, Tensor
from sparsight.analysis.trajectory import Trajectory
from sparsight.numerics import format as words
from sparsight.report.charts import SHORT, WIDE, Cell, Ramp, beside, heat, named, span, spec, tips
from sparsight.report.density import Line, Panel, over_density
from sparsight.report.pages import Chart, Table

MOST = 80
"""Most tensors in charts with a row per tensor."""


def largest(a: Analysis) -> list[Tensor]:
    """The largest tensors, in the order of the file."""
    if len(a.tensors) <= MOST:
        return list(a.tensors)
    least = sorted((t.summary.count for t in a.tensors), reverse=True)[MOST - 1]
    return [t for t in a.tensors if t.summary.count >= least][:MOST]


def tensors(a: Analysis) -> Chart:
    """PQ index of each tensor along the depth; below, the share of the selected tensors that must stay."""
    known = [(i, t) for i, t in enumerate(a.tensors) if t.summary.defined]
    points, bars = [], []
    for i, t in known:
        of = {"i": i, "name": t.name, "weights": f"{t.summary.count:,}"}
        indices = ((m.index, f"({m.p:g}, {m.q:g})") for m in t.summary.measures)
        points += [{**of, "y": y, "shown": words.index(y), "series": pair} for y, pair in indices]
        for k in t.summary.measures[0].keeps[:2]:
            told = {"eta": f"must stay at eta {k.eta:g}", "shown": words.percent(k.share), "prune": f"{k.prune:,}"}
            exact = k.exact if k.eta > 0 else None
            told |= {"count": t.summary.count, "share": k.share, "enough": exact, "more": words.percent(exact)}
            bars.append(of | told)
    brush = alt.selection_interval("brush", encodings=["x"])
    drawn = alt.vconcat(_depth(points, len(a.tensors), brush), _keeps(bars, brush), spacing=26)
    title = "Which tensors are uneven, and how much of each must stay; drag across the points to select tensors"
    made = spec(drawn.resolve_scale(color="independent"), points=points, bars=bars)
    return Chart("tensors", title, made, "numbers", side=beside(t.name for t in largest(a)) + 74)


def _depth(points: list[dict[str, Any]], count: int, brush: Any) -> Any:
    low, high = span((p["y"] for p in points), 0.05, 0.0, 1.0)
    colour = (
        alt.Color("series:N")
        .sort(None)
        .legend(alt.Legend(title="(p, q)") if len({p["series"] for p in points}) > 1 else None)
    )
    base = named("points").encode(
        x=alt.X("i:Q").axis(title="place in the file", tickMinStep=1, format="d").scale(domain=[-0.5, count - 0.5]),
        y=alt.Y("y:Q").axis(title=None, tickCount=5).scale(domain=[low, high], nice=False, zero=False),
        color=colour,
        tooltip=tips({"name": "tensor", "weights": "weights", "series": "(p, q)", "shown": "PQ index"}),
    )
    dot = base.mark_point(size=40 if count <= 60 else 16).add_params(brush)
    return alt.layer(base.mark_line(strokeWidth=1.4, opacity=0.6), dot).properties(
        width=WIDE, height=200, title="PQ index along the depth"
    )


def _keeps(bars: list[dict[str, Any]], brush: Any) -> Any:
    told = {"name": "tensor", "weights": "weights", "eta": "bar", "shown": "share", "prune": "SAP removes"}
    told |= {"more": "is enough"} if any(b["enough"] is not None for b in bars) else {}
    by: list[Any] = [alt.SortField("count", "descending"), alt.SortField("i")]
    chosen = named("bars").transform_filter(brush).transform_window(rank="dense_rank()", sort=by)
    chosen = chosen.transform_filter(f"datum.rank <= {MOST}")
    base = chosen.encode(
        y=alt.Y("name:N", sort=alt.EncodingSortField("i", op="min")).axis(
            alt.Axis(title=None, domain=False, ticks=False, labelFont="monospace", labelLimit=330, labelExpr=SHORT)
        ),
        yOffset=alt.YOffset("eta:N").sort(None),
        tooltip=tips(told),
    )
    share = alt.Axis(title=None, format="~%", orient="top", grid=True, tickCount=5)
    x = alt.X("share:Q").scale(domain=[0, 1]).axis(share)
    colour = alt.Color("eta:N").sort(None).legend(alt.Legend(columns=4))
    enough = base.transform_filter("datum.enough !== null").mark_point(shape="diamond", size=50, style="dot")
    return alt.layer(
        base.mark_bar(cornerRadiusEnd=2).encode(x=x, color=colour),
        enough.encode(x=alt.X("enough:Q")),
        base.mark_text(style="soft", align="left", dx=4, fontSize=10).encode(x=x, text="shown:N"),
    ).properties(width=WIDE, height=alt.Step(22, **{"for": "position"}), title="Share that must stay")


def magnitudes(a: Analysis) -> Chart | None:
    """A row for each tensor, a column for each power of two."""
    shown = largest(a)
    seen = sorted({e for t in shown for e, n in t.summary.octaves if n / t.summary.alive >= 1e-4})
    if not seen:
        return None
    last = seen[-1] + 1
    across = range(max(seen[0], last - 48), last)
    shares = {(t.name, e): n / t.summary.alive for t in shown for e, n in t.summary.octaves if n}
    wanted = ((t, e, shares.get((t.name, e))) for t in shown for e in across)
    cells = [Cell(t.name, f"2^{e}", of, words.percent(of)) for t, e, of in wanted if of or t is shown[0]]
    drawn = heat(cells, ("tensor", "magnitude from", "share"), Ramp(1e-4, max(shares.values()), ".2~%", log=True))
    rows = [(t.name, *(words.percent(shares.get((t.name, e), 0.0)) for e in across)) for t in shown]
    table = Table("Share of each tensor's weights by magnitude", ("tensor", *(f"2^{e}" for e in across)), rows)
    title = "Magnitudes of each tensor, in powers of two"
    return Chart("magnitudes", title, drawn, table, side=beside(t.name for t in shown))


def path(found: Trajectory, table: Table) -> Chart:
    """PQ index against density with its turning points, and the accuracy of the same levels below it."""
    marks = {s.density: found.marks[i] for i, s in enumerate(found.steps) if i in found.marks}
    index = Line(f"PQ index ({found.p:g}, {found.q:g})", [(s.density, s.index) for s in found.steps], marks=marks)
    accuracies = [
        Line(what, [(s.density, v) for s in found.steps if (v := getattr(s, field)) is not None])
        for what, field in (("validation accuracy", "validation_accuracy"), ("test accuracy", "test_accuracy"))
    ]
    panels = [Panel("PQ index", [index], height=220, least=0.05)]
    if any(line.points for line in accuracies):
        panels.append(Panel("Accuracy", [x for x in accuracies if x.points], share=True, height=140))
    names: tuple[str, ...] = ("level", "density", "PQ index", "validation accuracy", "test accuracy")
    seen: list[tuple[float, dict[str, str]]] = [
        (s.density, dict(zip(names, row, strict=False))) for s, row in zip(found.steps, table.rows, strict=True)
    ]
    return Chart("path", "Turning points of the PQ index", over_density(panels, seen), table, side=64)
