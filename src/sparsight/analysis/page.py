"""One self-contained HTML page for an analysis or the path of a run. It makes no requests."""

from __future__ import annotations

from sparsight.analysis.records import Analysis, Measure, Summary
from sparsight.analysis.text import grid, headings, headline, meanings, path_rows
from sparsight.analysis.trajectory import Trajectory
from sparsight.measure.pq import prune_count, retained_bound
from sparsight.numerics import format as words
from sparsight.report.pages import Fold, Page, Part, Section, Table, Tile, render

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
    from sparsight.analysis import charts

    lead = (
        "Each point is a level of the run, with fewer weights from left to right. Below, the accuracy of the "
        "same levels."
    )
    heads = ("level", "density", f"PQ index ({path.p:g}, {path.q:g})", "validation accuracy", "test accuracy", "")
    chart = charts.path(path, Table("The path", heads, path_rows(path)))
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
    from sparsight.analysis import charts

    if not any(t.summary.defined for t in a.tensors):
        return None
    m = a.tensors[0].summary.measures[0]
    lead = (
        "Each point is a tensor, in the order of the file. A higher index means more unequal weights: more can go. "
        f"Below, the share of each tensor that must stay by the bound at ({m.p:g}, {m.q:g}). "
    )
    if a.sampled and any(k.eta > 0 for k in m.keeps):
        lead += "Diamonds: the smallest share that loses at most eta; it is never below the bound. "
    return Section("tensors", "Tensor by tensor", lead + _some(a), [charts.tensors(a)])


def _some(a: Analysis) -> str:
    from sparsight.analysis import charts

    return f"Shown are the {charts.MOST} largest of {len(a.tensors)} tensors." if len(a.tensors) > charts.MOST else ""


def _magnitudes(a: Analysis) -> Section | None:
    from sparsight.analysis import charts

    drawn = charts.magnitudes(a) if a.sampled else None
    if drawn is None:
        return None
    lead = f"A stronger colour means a larger share of the tensor's nonzero weights. {_some(a)}"
    return Section("magnitudes", "How large the weights are", lead, [drawn])


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
    neurons = [
        (t.name, f"{n.p:g}, {n.q:g}", f"{n.count:,}", f"{n.undefined:,}", *(words.index(v) for v in n.index),
         *(f"{c:,}" for c in n.prune))
        for t in a.tensors for n in t.neurons
    ]  # fmt: skip
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
