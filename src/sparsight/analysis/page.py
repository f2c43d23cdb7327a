"""One self-contained HTML page for an analysis or a path, as the report of a run: no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from importlib.resources import files

from sparsight.analysis import charts
from sparsight.analysis.records import Analysis, Measure, Summary
from sparsight.analysis.text import grid, headings, headline, meanings
from sparsight.analysis.trajectory import Trajectory
from sparsight.measure.pq import prune_count, retained_bound
from sparsight.report import format as words
from sparsight.report import markup
from sparsight.report.escape import escape

WIDE, NARROW = 960, 390
"""Pixels for which a chart is drawn: for screens, and for phones."""
ETAS, GAMMAS = (0.0, 0.001, 0.01, 0.1, 1.0), (0.5, 1.0, 2.0, 3.0)
"""What the table of removals shows beside what was asked for."""


def page(a: Analysis) -> str:
    """An analysis as one HTML file. Equal analyses give equal bytes; names are escaped, requests forbidden."""
    parts = [_headline(a)]
    if a.tensors:
        parts += [_depth(a), _keeps(a), _magnitudes(a), _removals(a), _numbers(a)]
    return _shell(f"{a.source} – Sparsight", [*parts, _listed(a)])


def path_page(path: Trajectory) -> str:
    """The path of a run as one HTML file."""
    head = (
        f'<header><p class="eyebrow">the path of a run of {escape(path.recipe)}</p>'
        f"<h1>{escape(_name(path.source))}</h1>"
        f'<p class="told">{escape(words.unbroken(path.meaning))}</p></header>'
    )
    lead = (
        "Each point is one level of the run. From left to right fewer weights are left. Below it the accuracy of the "
        "same levels."
    )
    chart = _figure(partial(charts.path, path), "path", charts.path_legend(path))
    marks = {path.minimum: "minimum" if path.confirmed else "lowest so far", path.peak: "peak"}
    rows = [
        (str(s.level), words.percent(s.density), words.index(s.index), words.accuracy(s.validation_accuracy),
         words.accuracy(s.test_accuracy), marks.get(i) or "")
        for i, s in enumerate(path.steps)
    ]  # fmt: skip
    heads = ("level", "density", f"PQ index ({path.p:g}, {path.q:g})", "validation accuracy", "test accuracy", "")
    table = markup.fold("These numbers as a table", markup.table(heads, rows, "The path"))
    body = markup.section("path", "PQ index against density", lead, chart, table)
    return _shell(f"The path of {path.source} – Sparsight", [head, body])


def _shell(title: str, body: Iterable[str]) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>{''.join(body)}</main>"
        f'<div id="tip" role="status" hidden></div><script>{script}</script></body></html>\n'
    )


def _asset(name: str) -> str:
    return (files("sparsight.report") / name).read_text(encoding="utf-8")


def _figure(draw: Callable[[str, int], str], ident: str, legend: str = "") -> str:
    """The same chart for screens and for phones; the style sheet shows one."""
    sizes = (("wide", WIDE), ("narrow", NARROW))
    drawn = "".join(f'<div class="{kind}">{draw(f"{ident}-{kind}", width)}</div>' for kind, width in sizes)
    return f"<figure>{legend}{drawn}</figure>"


# -- sections --------------------------------------------------------------------------------------------------


def _headline(a: Analysis) -> str:
    skipped = f" {words.plural(len(a.listed), 'tensor')} not analysed." if a.listed else ""
    what = f"{headline(a)}.{skipped}"
    tiles = "".join(_tile(m, a) for m in a.whole.measures) if a.whole is not None and a.whole.defined else ""
    return (
        f'<header><p class="eyebrow">how compressible is this network?</p><h1>{escape(_name(a.source))}</h1>'
        f'<p class="what">{escape(what)}</p><p class="told">{escape(words.unbroken(told(a)))}</p>'
        f"{f'<ul class=tiles>{tiles}</ul>' if tiles else ''}</header>"
    )


def _name(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source


def told(a: Analysis) -> str:
    """The answer in two sentences."""
    s = a.whole
    if s is None or not s.defined:
        return "There is nothing here that a PQ index could be taken of."
    m, k = s.measures[0], s.measures[0].keeps[0]
    said = (
        f"At (p, q) = ({m.p:g}, {m.q:g}) the PQ index of all weights{_alive(s)} together is {words.index(m.index)}: by "
        f"the bound at least {words.percent(k.share)} of them have to stay"
        f"{'' if k.eta == 0 else f' at eta {k.eta:g}'}, and one round of SAP would remove {k.prune:,}. "
    )
    best = max((t for t in a.tensors if t.summary.defined), key=lambda t: t.summary.measures[0].index)
    return said + (
        f"The most compressible tensor is {best.name} with {words.index(best.summary.measures[0].index)}. The bound "
        "is necessary, not sufficient: keeping that many may still cost accuracy."
    )


def _alive(s: Summary) -> str:
    return f" that are not 0 ({s.alive:,})" if s.zeros else ""


def _tile(m: Measure, a: Analysis) -> str:
    rows = "".join(
        f"<small>must keep at eta {k.eta:g} <b>{escape(words.percent(k.share))}</b></small>" for k in m.keeps
    )
    return f"<li><span>PQ index ({m.p:g}, {m.q:g})</span><strong>{words.index(m.index)}</strong>{rows}</li>"


def _depth(a: Analysis) -> str:
    lead = "Each point is one tensor, in the order of the file. The higher, the more unequal its weights: more can go."
    return markup.section(
        "depth", "PQ index along the depth", lead, _figure(partial(charts.depth, a), "depth", charts.depth_legend(a))
    )


def _keeps(a: Analysis) -> str:
    m = a.tensors[0].summary.measures[0]
    lead = (
        f"The share of each tensor that by the bound has to stay at ({m.p:g}, {m.q:g}); what it lets go is the rest. "
    )
    if a.sampled and any(k.eta > 0 for k in m.keeps):
        lead += (
            "Diamonds: the share that is enough to lose no more than eta, which the bound only promises not to exceed. "
        )
    lead += _some(a)
    return markup.section(
        "keeps", "What has to stay", lead, _figure(partial(charts.keeps, a), "keeps", charts.keeps_legend(a))
    )


def _some(a: Analysis) -> str:
    return f"Shown are the {charts.MOST} largest of {len(a.tensors)} tensors." if len(a.tensors) > charts.MOST else ""


def _magnitudes(a: Analysis) -> str:
    if not a.sampled:
        return ""
    lead = (
        "Where the magnitudes of each tensor lie, in powers of two: the darker, the larger the share of its weights "
        f"that are not 0. {_some(a)}"
    )
    label = "Magnitudes by tensor"
    drawn = charts.magnitudes(a, "magnitudes")
    chart = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{drawn}</div>'
    return markup.section("magnitudes", "How large the weights are", lead, f'<figure class="map">{chart}</figure>')


def _removals(a: Analysis) -> str:
    if a.whole is None or not a.whole.defined:
        return ""
    etas, gammas = sorted({*ETAS, *a.etas}), sorted({*GAMMAS, a.gamma})
    parts = []
    for m in a.whole.measures:
        rows = []
        for eta in etas:
            bound = float(retained_bound(a.whole.alive, m.index, m.p, m.q, eta))
            counts = [prune_count(a.whole.alive, bound, g, a.beta) for g in gammas]
            rows.append((f"eta {eta:g}", *(f"{words.percent(c / a.whole.alive)}" for c in counts)))
        heads = ("", *(f"gamma {g:g}" for g in gammas))
        parts.append(markup.table(heads, rows, f"At ({m.p:g}, {m.q:g})"))
    lead = (
        f"Share of all weights{_alive(a.whole)} that one round of SAP in global scope removes, never more than "
        f"beta = {a.beta:g}."
    )
    cards = f"<div>{''.join(parts)}</div>"
    return markup.section("removals", "What each (eta, gamma) would remove", lead, cards)


def _numbers(a: Analysis) -> str:
    rows = grid(a, "file")
    whole = {len(rows) - 1: "control"} if a.whole is not None else {}
    table = markup.table(headings(a), rows, "Every tensor, in the order of the file", marked=whole)
    neurons = [
        (t.name, f"{n.p:g}, {n.q:g}", f"{n.count:,}", f"{n.undefined:,}", *(words.index(v) for v in n.index),
         *(f"{c:,}" for c in n.prune))
        for t in a.tensors for n in t.neurons
    ]  # fmt: skip
    heads = ("tensor", "p, q", "neurons", "all zero", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
    heads += tuple(f"SAP prunes at eta {e:g}" for e in a.etas)
    more = markup.fold("Their neurons", markup.table(heads, neurons, "PQ index of neurons")) if neurons else ""
    notes = "".join(f"<p class=lead>{escape(x)}</p>" for x in meanings(a))
    return markup.section("numbers", "The numbers", "", table, notes, more)


def _listed(a: Analysis) -> str:
    if not a.listed:
        return ""
    rows = [(x.name, x.kind, x.dtype, "×".join(map(str, x.shape)), x.why) for x in a.listed]
    table = markup.table(("tensor", "kind", "dtype", "shape", "why"), rows, "Not analysed", words=(4,))
    return markup.section("listed", "Not analysed", "", markup.fold(f"{len(rows)} tensors", table))


__all__ = ["page", "path_page", "told"]
