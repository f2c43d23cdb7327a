"""The phase diagram of an activation, and a network's place in it: numbers, a table, a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsight.measure.criticality.edge import EdgeOfChaos, NoEdgeOfChaos, edge_of_chaos
from sparsight.measure.criticality.phase import NetworkPhase
from sparsight.measure.criticality.quadrature import SCAN, Activation, Grid, grid
from sparsight.report.pages import Chart, Page, Section, Table, drawn, render
from sparsight.report.table import grid as aligned

SHOWN = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The sigma_b at which the edge of chaos is listed."""


@dataclass(frozen=True)
class PhaseDiagram:
    """chi over a grid, `chi[i][j]` at `sigma_b[i]` and `sigma_w[j]`, and the edge of chaos."""

    activation: str
    sigma_b: tuple[float, ...]
    sigma_w: tuple[float, ...]
    chi: tuple[tuple[float, ...], ...]
    edge: tuple[EdgeOfChaos, ...]  # at each `sigma_b` of the grid that has one
    asked: EdgeOfChaos | None
    asked_sigma_b: float
    listed: tuple[tuple[float, EdgeOfChaos | None], ...]  # at the sigma_b in SHOWN
    network: NetworkPhase | None = None


def phase_diagram(
    name: str,
    activation: Activation | Grid,
    sigma_b: float = 0.2,
    *,
    network: NetworkPhase | None = None,
    steps: int = 25,
) -> PhaseDiagram:
    """chi on a grid of (sigma_b, sigma_w), by interpolation on 261 variances (about 1e-3); the edge exactly.

    The grid reaches from 0 as far as needed to show the edge at sigma_b and every layer of `network`. chi is taken at
    the variance that layers converge to from 1. Raises: ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a diagram needs at least 2 steps, got {steps!r}")
    found = grid(activation)
    listed = tuple((b, _edge(found, b)) for b in SHOWN)
    asked = _edge(found, sigma_b)
    layers = network.layers if network is not None else ()
    top_b = _even([0.48, 1.2 * sigma_b, *(1.1 * layer.sigma_b for layer in layers)], steps - 1)
    known = [asked, *(edge for b, edge in listed if b <= top_b)]
    top_w = _even([1.6, *(1.4 * e.sigma_w for e in known if e), *(1.1 * layer.sigma_w for layer in layers)], steps)
    rows = tuple(top_b * i / (steps - 1) for i in range(steps))
    columns = tuple(top_w * (j + 1) / steps for j in range(steps))
    edge = tuple(e for b in rows if (e := _edge(found, b)) is not None)
    chi = _chi(found, torch.tensor(rows).double(), torch.tensor(columns).double())
    table = tuple(map(tuple, chi.tolist()))
    return PhaseDiagram(name, rows, columns, table, edge, asked, sigma_b, listed, network)


def _even(needed: Sequence[float], steps: int) -> float:
    """The end of an axis that covers `needed` in this many steps, each a multiple of 0.02."""
    return 0.02 * math.ceil(max(needed) / steps / 0.02 - 1e-9) * steps


def _edge(found: Grid, sigma_b: float) -> EdgeOfChaos | None:
    try:
        return edge_of_chaos(found, sigma_b)
    except NoEdgeOfChaos:
        return None


def _chi(found: Grid, sigma_b: Tensor, sigma_w: Tensor) -> Tensor:
    """chi at the fixed points, for every pair."""
    phi_sq, dphi_sq, _ = found.scan
    drift = sigma_b[:, None, None] ** 2 + sigma_w[None, :, None] ** 2 * phi_sq - SCAN
    start = int(torch.searchsorted(SCAN, torch.tensor(1.0).double()))
    grows = drift[..., start] > 0
    n = len(SCAN)
    index = torch.arange(n)
    above = torch.where((drift <= 0) & (index > start), index, n - 1).amin(-1)  # first fixed point above the start
    below = torch.where((drift > 0) & (index < start), index, 0).amax(-1)  # last variance below it that grows
    right = torch.where(grows, above, (below + 1).clamp(max=n - 1))
    a, b = (drift.gather(-1, k[..., None])[..., 0] for k in (right - 1, right))
    part = torch.where(a * b < 0, a / (a - b), torch.where(grows, 1.0, 0.0)).clamp(0, 1)
    slope = dphi_sq[right - 1] + part * (dphi_sq[right] - dphi_sq[right - 1])
    return sigma_w[None] ** 2 * slope


# -- words -----------------------------------------------------------------------------------------------------


_PURPOSE = """\
Signals and gradients get through a deep network if its weights begin at the
edge of chaos: drawn with standard deviation sigma_w / sqrt(fan-in), biases with
sigma_b. Below it they die out (chi < 1), above it they explode (chi > 1)."""


def described(d: PhaseDiagram) -> str:
    """The diagram as text: the edge, a coarse map of chi, and the network's layers."""
    parts = [_PURPOSE, "\n".join(_about(d)), _columns("the edge of chaos", _edges(d)), _map(d)]
    if d.network is not None:
        parts.append("\n".join([_columns("the network", _layers(d.network), left=1), *_said(d.network)]))
    return "\n\n".join(parts) + "\n"


def _about(d: PhaseDiagram) -> Iterator[str]:
    edge = d.asked
    if edge is None:
        yield f"{d.activation} has no edge of chaos at sigma_b = {d.asked_sigma_b:g}"
        yield from (f"  at sigma_b = {b:g} it has one: sigma_w = {e.sigma_w:.10g}" for b, e in d.listed[:1] if e)
        return
    yield f"{d.activation}, sigma_b = {edge.sigma_b:g}: edge of chaos at sigma_w = {edge.sigma_w:.10g}"
    yield f"  variance q = {edge.q:.6g}, chi = {edge.chi:.6g}, slope of the variance map {edge.slope:.4g}"
    if not edge.stable:
        yield "  unstable: layers that start at another variance drift away from q;"
        yield "  take a larger sigma_b"
    if len(edge.solutions) > 1:
        yield "  all solutions: " + ", ".join(f"sigma_w {one.sigma_w:.6g} (q {one.q:.4g})" for one in edge.solutions)


def _edges(d: PhaseDiagram) -> Table:
    rows = []
    for b, e in d.listed:
        own = (f"{e.sigma_w:.6f}", f"{e.q:.4g}", "yes" if e.stable else "no") if e else ("-", "-", "no edge")
        rows.append((f"{b:g}", *own))
    return Table("The edge of chaos", ("sigma_b", "sigma_w", "q", "stable"), rows)


def _map(d: PhaseDiagram) -> str:
    title = "chi by sigma_w; below 1 ordered, above 1 chaotic"
    columns = range(2, len(d.sigma_w), max(1, len(d.sigma_w) // 8))
    heads = ("sigma_b", *(f"{d.sigma_w[j]:.2f}" for j in columns))
    shown = range(0, len(d.sigma_b), max(1, len(d.sigma_b) // 6))
    rows = [(f"{d.sigma_b[i]:.2f}", *(f"{d.chi[i][j]:.2f}" for j in columns)) for i in shown]
    return _columns(title, Table(title, heads, rows))


def _layers(network: NetworkPhase) -> Table:
    rows = [
        (x.name, str(x.fan_in), f"{x.sigma_w:.4f}", f"{x.sigma_b:.4f}", f"{x.q:.4g}", f"{x.chi:.4f}", x.phase)
        for x in network.layers
    ]
    return Table("The network's layers", ("layer", "fan-in", "sigma_w", "sigma_b", "q", "chi", "phase"), rows)


def _said(network: NetworkPhase) -> Iterator[str]:
    """Lines about the whole network."""
    depth = "any depth" if math.isinf(network.depth) else f"about {network.depth:.3g} layers"
    yield f"{network.phase}: chi {network.chi:.4g} on average; signals get through {depth}"
    if network.normalised:
        yield "it has norm layers, which set the variances: what is said here holds without them"
    if network.residual:
        yield "it has shortcuts, past which signals get through with any weights: what is said here holds without them"


def _columns(title: str, table: Table, left: int = 0) -> str:
    lines = aligned(table.headings, table.rows, range(left), 80, ruled=False)
    return "\n".join([title, *(f"  {line}" for line in lines)])


# -- a picture and a page --------------------------------------------------------------------------------------


def picture(d: PhaseDiagram) -> str:
    """The diagram as one SVG file: blue is ordered, orange chaotic, the line the edge, dots the network's layers."""
    return drawn(_chart(d, 640), 640)


def page(d: PhaseDiagram) -> str:
    """The diagram, its numbers and the network's layers as one self-contained HTML file."""
    rows = [(f"{b:.3g}", *(f"{v:.3f}" for v in row)) for b, row in zip(d.sigma_b, d.chi, strict=True)]
    chi = Table("chi by sigma_b (rows) and sigma_w", ("sigma_b", *(f"{w:.3g}" for w in d.sigma_w)), rows)
    title, edge = "At which scale of weights and biases signals get through", _edges(d)
    chart = Chart("phase", title, _chart(d, "container"), chi, side=64)
    lead = "Blue is ordered: signals die out. Orange is chaotic: they explode. The line between is the edge of chaos"
    lead += "; dots are the network's layers." if d.network is not None else "."
    sections = [Section("diagram", "Where signals live", lead, [chart]), Section("edge", edge.caption, "", [edge])]
    if d.network is not None:
        table = _layers(d.network)
        sections.append(Section("network", table.caption, f"{'. '.join(_said(d.network))}.", [table]))
    told = f"{' '.join(_PURPOSE.split())} {'. '.join(x.strip() for x in _about(d))}."
    return render(Page(f"Phase diagram of {d.activation}", "phase diagram", d.activation, sections, told=told))


def _chart(d: PhaseDiagram, width: int | str) -> dict[str, Any]:
    """chi as colours, the edge, its point at the requested sigma_b, and the layers."""
    import altair as alt

    from sparsight.report.charts import named, spec, tips

    half_w, half_b = d.sigma_w[0] / 2, d.sigma_b[1] / 2
    cells = (
        {"w": w - half_w, "w2": w + half_w, "b": b - half_b, "b2": b + half_b, "tone": _tone(value),
         "at": f"sigma_w {w:.3g}, sigma_b {b:.3g}", "chi": f"{value:.3g}"}
        for b, row in zip(d.sigma_b, d.chi, strict=True) for w, value in zip(d.sigma_w, row, strict=True)
    )  # fmt: skip
    shown = [e for e in d.edge if e.sigma_w <= d.sigma_w[-1]]
    asked = [e for e in (d.asked,) if e is not None and e.sigma_w <= d.sigma_w[-1]]
    layers = d.network.layers if d.network is not None else ()
    x = alt.X("w:Q", title="sigma_w").scale(domain=[half_w, d.sigma_w[-1] + half_w], nice=False)
    y = alt.Y("b:Q", title="sigma_b").scale(domain=[-half_b, d.sigma_b[-1] + half_b], nice=False)
    legend = alt.Legend(title="ordered – chaotic", values=[-1, 0, 1], titleOrient="left", labelExpr=_TONES)
    colour = alt.Color("tone:Q").scale(domain=[-1, 1], range="diverging").legend(legend)
    stroke = alt.Stroke("tone:Q").scale(domain=[-1, 1], range="diverging").legend(None)
    line = named("edge").encode(x=x, y=y)
    made = alt.layer(
        named("cells").mark_rect(strokeWidth=0.4).encode(
            x=x, y=y, x2="w2", y2="b2", color=colour, stroke=stroke, tooltip=tips({"at": "at", "chi": "chi"})
        ),
        line.mark_line(style="ring", order=False, strokeWidth=2.5).encode(order="b:Q") if len(shown) > 1
        else line.mark_point(style="ring", shape="diamond", size=90, filled=False),
        named("asked").mark_point(style="ring", size=170, filled=False, strokeWidth=2).encode(x=x, y=y),
        named("layers").mark_point(style="dot", size=70, opacity=1).encode(
            x=x, y=y, tooltip=tips({"name": "layer", "at": "at", "chi": "chi", "phase": "phase"})
        ),
    ).properties(width=width, height=420)  # fmt: skip
    return spec(
        made, cells=cells, edge=({"w": e.sigma_w, "b": e.sigma_b} for e in shown),
        asked=({"w": e.sigma_w, "b": e.sigma_b} for e in asked),
        layers=(
            {"w": x.sigma_w, "b": x.sigma_b, "name": x.name, "chi": f"{x.chi:.4g}", "phase": x.phase,
             "at": f"sigma_w {x.sigma_w:.4g}, sigma_b {x.sigma_b:.4g}"}
            for x in layers
        ),
    )  # fmt: skip


_TONES = "datum.value < 0 ? 'chi 0.37 or less' : datum.value > 0 ? 'chi 2.7 or more' : 'chi 1'"


def _tone(chi: float) -> float:
    return max(-1.0, min(1.0, math.log(chi))) if chi > 0 else -1.0
