"""One self-contained HTML page for a run: no request to anywhere, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Literal

from sparsight.deploy.ledger.records import Ledger
from sparsight.records.record import Evaluation, LevelRecord, LevelTimes, RunRecord
from sparsight.report import charts, markup, sections
from sparsight.report import format as words
from sparsight.report.allocations import decisions
from sparsight.report.escape import escape
from sparsight.report.frontier import frontier, legend, pq_series, series
from sparsight.report.ledger import section
from sparsight.report.run_view import Story, is_finite, story
from sparsight.report.stopping import stopping
from sparsight.report.warnings import warnings
from sparsight.train.metric import LOSS, Metric

WIDE, NARROW = 960, 390
"""Pixels for which a chart is drawn: for screens, and for phones."""

HATCH = (
    '<svg class="defs" aria-hidden="true"><defs><pattern id="gone" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6"/><path d="M-1 1l2 -2M0 6l6 -6M5 7l2 -2"/></pattern></defs></svg>'
)
"""How a layer without any weight is filled; a pattern, so that it needs no colour to be told apart."""


def page(
    run: RunRecord,
    levels: Sequence[LevelRecord],
    times: Sequence[LevelTimes],
    evaluation: Evaluation | None,
    ledger: Ledger | None = None,
) -> str:
    """The report of a run as one HTML file, computed from its records, and the ledger of the network, alone.

    Equal records give equal bytes. Anything may be missing: no level yet, no evaluation, no times, no
    control, accuracies that are None or NaN; what is missing reads "–". Names are escaped, and a content
    security policy forbids the page every request and every script but its own.
    """
    s = story(run, levels, times, evaluation)
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    title = escape(f"{run.recipe} on {run.data.get('name', 'unnamed data')} – Sparsight")
    body = (sections.headline(s), warnings(s), section(ledger), *_charts(s), decisions(s), sections.origin(s))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{style}</style></head><body>{HATCH}<main>{''.join(body)}</main>"
        f'<div id="tip" role="status" hidden></div><script>{script}</script></body></html>\n'
    )


def _asset(name: str) -> str:
    return (files("sparsight.report") / name).read_text(encoding="utf-8")


def _charts(s: Story) -> list[str]:
    if not s.levels:
        return []
    return [
        _frontier(s),
        sections.level_table(s),
        *(x for v in ("density", "pq") if (x := _heat(s, v))),
        _effort(s),
        stopping(s),
        _curves(s),
    ]


def _both(draw: Callable[[str, int], str], ident: str) -> str:
    """The same chart for screens and for phones; the style sheet shows one."""
    sizes = (("wide", WIDE), ("narrow", NARROW))
    return "".join(f'<div class="{kind}">{draw(f"{ident}-{kind}", width)}</div>' for kind, width in sizes)


def _frontier(s: Story) -> str:
    metrics = {"metric": s.metric}
    if s.metric != LOSS and any(is_finite(x.validation_loss) for x in s.levels):
        metrics["loss"] = LOSS
    switches = "".join(
        f'<input type="radio" name="metric" id="show-{key}"{" checked" if key == "metric" else ""}>'
        f'<label for="show-{key}">{escape(m.name.capitalize())}</label>'
        for key, m in metrics.items()
    )
    panels = "".join(
        f'<figure class="of-{key}">{legend([*series(s, m), *pq_series(s)], m.share)}'
        f"{_both(partial(_metric, s, m), f'frontier-{key}')}</figure>"
        for key, m in metrics.items()
    )
    lead = (
        "Each point is one level: pruned, restarted and trained. From left to right fewer weights are left. "
        "The PQ index says how unequal the weights that are left are: the higher, the more can still go."
    )
    toggle = f'<div class="toggle">{switches if len(metrics) > 1 else ""}{panels}</div>'
    table = markup.fold("These numbers as a table", sections.frontier_table(s))
    return markup.section("frontier", "How far it goes", lead, toggle, table)


def _metric(s: Story, metric: Metric, ident: str, width: int) -> str:
    return frontier(s, metric, width, ident)


def _heat(s: Story, value: Literal["density", "pq"]) -> str:
    if not charts.cells(s, value):
        return ""
    density = value == "density"
    pair = next((x.pq_pairs[0] for x in s.levels if x.pq_pairs), None)
    at = f" ({pair[0]:g}, {pair[1]:g})" if pair else ""
    title = "Density per layer" if density else f"PQ index{at} per layer"
    unit = "Percent of each layer's weights that are kept" if density else "Of each layer's alive weights"
    lead = f"{unit}, level by level. The framed column is the chosen level." if s.chosen else f"{unit}, level by level."
    drawn = charts.heat(s, value, f"heat-{value}")
    label = escape(title)
    chart = f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">{drawn}</div>'
    figure = f'<figure class="map {value}">{charts.ramp_legend(s, value)}{chart}</figure>'
    table = markup.fold("These numbers as a table", sections.layer_table(s, value))
    return markup.section(f"layers-{value}", title, lead, figure, table)


def _effort(s: Story) -> str:
    known = charts.share_of_time(s) if s.times else ""
    whole = sum(x.epochs for x in s.levels)
    lead = f"{words.plural(whole, 'epoch')} over {words.plural(len(s.levels), 'level')}"
    lead += f", and {words.plural(s.control.epochs, 'epoch')} for the dense control (not drawn)." if s.control else "."
    lead += f" All together {words.duration(sections.whole_time(s))}:" if s.times else " No times were recorded."
    figure = f"<figure>{known}{_both(lambda ident, width: charts.effort(s, ident, width), 'effort')}</figure>"
    table = markup.fold("These numbers as a table", sections.effort_table(s))
    return markup.section("effort", "What it took", lead, figure, table)


def _curves(s: Story) -> str:
    unit = " in percent" if s.metric.share else ""
    lead = f"Validation {s.metric.name}{unit} by epoch of each level, all on the same axes; beside each its density."
    figure = f'<figure class="many">{charts.curves(s, "curve")}</figure>'
    table = markup.fold("These numbers as a table", sections.curve_table(s))
    return markup.section("curves", "Training curves", lead, figure, table)
