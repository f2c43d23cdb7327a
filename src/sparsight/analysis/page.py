"""One self-contained HTML page for an analysis or the path of a run. It makes no requests."""

from __future__ import annotations

from typing import Any

import altair as alt

from sparsight.analysis.records import Analysis, Measure, Summary, Tensor
from sparsight.analysis.text import grid, headings, headline, meanings, path_rows
from sparsight.analysis.trajectory import Trajectory
from sparsight.measure.pq import prune_count, retained_bound
from sparsight.numerics import format as words
from sparsight.report.charts import SHORT, WIDE, Cell, Ramp, beside, heat, named, span, spec, tips
from sparsight.report.density import Line, Panel, over_density
from sparsight.report.pages import Chart, Fold, Page, Part, Section, Table, Tile, render

MOST = 80
"""Most tensors shown in charts with a row per tensor."""
ETAS, GAMMAS = (0.0, 0.001, 0.01, 0.1, 1.0), (0.5, 1.0, 2.0, 3.0)
"""Values of eta and gamma in the table of removals, besides the requested ones."""


def page(a: Analysis) -> str:
    """An analysis as one HTML file. Equal analyses give equal bytes; names are escaped."""
    parts = [_tensors(a), _magnitudes(a), _removals(a), _numbers(a)] if a.tensors else []
    skipped = f" {words.plural(len(a.listed), 'tensor')} not analysed." if a.listed else ""
    return render(
        Page(
            a.source, "how compressible is this network?", _name(a.source),
            [x for x in (*parts, _listed(a)) if x is not None], about=f"{headline(a)}.{skipped}", told=told(a),
            tiles=[_tile(m) for m in a.whole.measures] if a.whole is not None and a.whole.defined else [],
        )
    )  # fmt: skip


def path_page(path: Trajectory) -> str:
    """The path of a run as one HTML file."""
    lead = (
        "Each point is a level of the run, with fewer weights from left to right. Below, the accuracy of the "
        "same levels."
    )
    heads = ("level", "density", f"PQ index ({path.p:g}, {path.q:g})", "validation accuracy", "test accuracy", "")
    chart = _path_chart(path, Table("The path", heads, path_rows(path)))
    section = Section("path", "PQ index against density", lead, [chart])
    eyebrow = f"the path of a run of {path.recipe}"
    return render(Page(f"The path of {path.source}", eyebrow, _name(path.source), [section], told=path.meaning))


def _name(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source


def told(a: Analysis) -> str:
    """The answer in two sentences."""
    s = a.whole
    if s is None or not s.defined:
        return "No tensor here has a PQ index."
    m, k = s.measures[0], s.measures[0].keeps[0]
    said = (
        f"The PQ index ({m.p:g}, {m.q:g}) of all weights{_alive(s)} together is {words.index(m.index)}: by the bound, "
        f"at least {words.percent(k.share)} of them must stay"
        f"{'' if k.eta == 0 else f' at eta {k.eta:g}'}, and one round of SAP would remove {k.prune:,}. "
    )
    best = max((t for t in a.tensors if t.summary.defined), key=lambda t: t.summary.measures[0].index)
    return said + (
        f"The most compressible tensor is {best.name} with {words.index(best.summary.measures[0].index)}. The bound "
        "is necessary, not sufficient: keeping that many may still cost accuracy."
    )


def _alive(s: Summary) -> str:
    return f" that are not 0 ({s.alive:,})" if s.zeros else ""


def _tile(m: Measure) -> Tile:
    beside = [(f"must keep at eta {k.eta:g}", words.percent(k.share)) for k in m.keeps]
    return Tile(f"PQ index ({m.p:g}, {m.q:g})", words.index(m.index), beside)


# -- sections --------------------------------------------------------------------------------------------------


def _tensors(a: Analysis) -> Section | None:
    if not any(t.summary.defined for t in a.tensors):
        return None
    m = a.tensors[0].summary.measures[0]
    lead = (
        "Each point is a tensor, in the order of the file. A higher index means more unequal weights: more can go. "
        f"Below, the share of each tensor that must stay by the bound at ({m.p:g}, {m.q:g}). "
    )
    if a.sampled and any(k.eta > 0 for k in m.keeps):
        lead += "Diamonds: the smallest share that loses at most eta; it is never below the bound. "
    return Section("tensors", "Tensor by tensor", lead + _some(a), [_tensor_chart(a)])


def _some(a: Analysis) -> str:
    return f"Shown are the {MOST} largest of {len(a.tensors)} tensors." if len(a.tensors) > MOST else ""


def _magnitudes(a: Analysis) -> Section | None:
    chart = _magnitude_chart(a) if a.sampled else None
    if chart is None:
        return None
    lead = f"A stronger colour means a larger share of the tensor's nonzero weights. {_some(a)}"
    return Section("magnitudes", "How large the weights are", lead, [chart])


def _removals(a: Analysis) -> Section | None:
    if a.whole is None or not a.whole.defined:
        return None
    etas, gammas = sorted({*ETAS, *a.etas}), sorted({*GAMMAS, a.gamma})
    parts: list[Part] = []
    for m in a.whole.measures:
        rows = []
        for eta in etas:
            bound = float(retained_bound(a.whole.alive, m.index, m.p, m.q, eta))
            counts = [prune_count(a.whole.alive, bound, g, a.beta) for g in gammas]
            rows.append((f"eta {eta:g}", *(f"{words.percent(c / a.whole.alive)}" for c in counts)))
        parts.append(Table(f"At ({m.p:g}, {m.q:g})", ("", *(f"gamma {g:g}" for g in gammas)), rows))
    lead = (
        f"Share of all weights{_alive(a.whole)} that one round of SAP in global scope removes, never more than "
        f"beta = {a.beta:g}."
    )
    return Section("removals", "What each (eta, gamma) would remove", lead, parts)


def _numbers(a: Analysis) -> Section:
    rows = grid(a, "file")
    whole = {len(rows) - 1: "control"} if a.whole is not None else {}
    parts: list[Part] = [Table("Every tensor, in the order of the file", headings(a), rows, marked=whole), *meanings(a)]
    neurons = []
    for t in a.tensors:
        for n in t.neurons:
            numbers = (*(words.index(v) for v in n.index), *(f"{c:,}" for c in n.prune))
            neurons.append((t.name, f"{n.p:g}, {n.q:g}", f"{n.count:,}", f"{n.undefined:,}", *numbers))
    heads = ("tensor", "p, q", "neurons", "all zero", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
    heads += tuple(f"SAP prunes at eta {e:g}" for e in a.etas)
    if neurons:
        parts.append(Fold("Their neurons", [Table("PQ index of neurons", heads, neurons)]))
    return Section("numbers", "The numbers", "", parts)


def _listed(a: Analysis) -> Section | None:
    if not a.listed:
        return None
    rows = [(x.name, x.kind, x.dtype, "×".join(map(str, x.shape)), x.why) for x in a.listed]
    table = Table("Not analysed", ("tensor", "kind", "dtype", "shape", "why"), rows, words=(4,))
    return Section("listed", "Not analysed", "", [Fold(words.plural(len(rows), "tensor"), [table])])


# -- charts -----------------------------------------------------------------------------------------------------


def _largest(a: Analysis) -> list[Tensor]:
    """The largest tensors, in the order of the file."""
    if len(a.tensors) <= MOST:
        return list(a.tensors)
    least = sorted((t.summary.count for t in a.tensors), reverse=True)[MOST - 1]
    return [t for t in a.tensors if t.summary.count >= least][:MOST]


def _tensor_chart(a: Analysis) -> Chart:
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
    return Chart("tensors", title, made, "numbers", side=beside(t.name for t in _largest(a)) + 74)


def _depth(points: list[dict[str, Any]], count: int, brush: Any) -> Any:
    low, high = span((p["y"] for p in points), 0.05, 0.0, 1.0)
    legend = alt.Legend(title="(p, q)") if len({p["series"] for p in points}) > 1 else None
    base = named("points").encode(
        x=alt.X("i:Q").axis(title="place in the file", tickMinStep=1, format="d").scale(domain=[-0.5, count - 0.5]),
        y=alt.Y("y:Q").axis(title=None, tickCount=5).scale(domain=[low, high], nice=False, zero=False),
        color=alt.Color("series:N").sort(None).legend(legend),
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


def _magnitude_chart(a: Analysis) -> Chart | None:
    """A row for each tensor, a column for each power of two."""
    shown = _largest(a)
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


def _path_chart(found: Trajectory, table: Table) -> Chart:
    """PQ index against density with its turning points, and the accuracy of the same levels below it."""
    marks = {s.density: found.marks[i] for i, s in enumerate(found.steps) if i in found.marks}
    index = Line(f"PQ index ({found.p:g}, {found.q:g})", [(s.density, s.index) for s in found.steps], marks=marks)
    lines = [
        Line(what.replace("_", " "), [(s.density, v) for s in found.steps if (v := getattr(s, what)) is not None])
        for what in ("validation_accuracy", "test_accuracy")
    ]
    accuracies = Panel("Accuracy", [line for line in lines if line.points], share=True, height=140)
    panels = [Panel("PQ index", [index], height=220, least=0.05), accuracies]
    names = ("level", "density", "PQ index", *(line.name for line in lines))
    seen = [(s.density, dict(zip(names, row, strict=False))) for s, row in zip(found.steps, table.rows, strict=True)]
    return Chart("path", "Turning points of the PQ index", over_density(panels, seen), table, side=64)
