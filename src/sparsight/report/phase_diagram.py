"""The phase diagram of an activation, and where a network stands in it: numbers, a table, a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsight.measure.criticality.edge import EdgeOfChaos, NoEdgeOfChaos, edge_of_chaos
from sparsight.measure.criticality.phase import NetworkPhase
from sparsight.measure.criticality.quadrature import SCAN, Activation, Grid, grid
from sparsight.report import svg
from sparsight.report.escape import escape

SHOWN = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
"""sigma_b for which the edge of chaos is listed."""


@dataclass(frozen=True)
class PhaseDiagram:
    """chi over a grid, `chi[i][j]` at `sigma_b[i]` and `sigma_w[j]`, and the edge of chaos."""

    activation: str
    sigma_b: tuple[float, ...]
    sigma_w: tuple[float, ...]
    chi: tuple[tuple[float, ...], ...]
    edge: tuple[EdgeOfChaos, ...]  # for the `sigma_b` of the grid, where there is one
    asked: EdgeOfChaos | None
    asked_sigma_b: float
    listed: tuple[tuple[float, EdgeOfChaos | None], ...]  # for the values of SHOWN
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

    The grid reaches from 0 to what is needed to show the edge at sigma_b and every layer of `network`. chi is that at
    the variance which layers started at 1 tend to. ValueError for fewer than 2 steps.
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
    """The end of an axis that reaches what is needed in so many steps of whole hundredths, an even number of them."""
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
    parts = [_PURPOSE, "\n".join(_about(d)), _listed(d), _map(d)]
    if d.network is not None:
        parts.append("\n".join(_network(d.network)))
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
        yield "  all of it: " + ", ".join(f"sigma_w {one.sigma_w:.6g} (q {one.q:.4g})" for one in edge.solutions)


def _listed(d: PhaseDiagram) -> str:
    rows: list[tuple[str, ...]] = [("sigma_b", "sigma_w", "q", "stable")]
    for b, e in d.listed:
        own = (f"{e.sigma_w:.6f}", f"{e.q:.4g}", "yes" if e.stable else "no") if e else ("-", "-", "no edge")
        rows.append((f"{b:g}", *own))
    return _columns("the edge of chaos", rows)


def _map(d: PhaseDiagram) -> str:
    columns = range(2, len(d.sigma_w), max(1, len(d.sigma_w) // 8))
    rows = [("sigma_b", *(f"{d.sigma_w[j]:.2f}" for j in columns))]
    rows += [
        (f"{d.sigma_b[i]:.2f}", *(f"{d.chi[i][j]:.2f}" for j in columns))
        for i in range(0, len(d.sigma_b), max(1, len(d.sigma_b) // 6))
    ]
    return _columns("chi by sigma_w; below 1 ordered, above 1 chaotic", rows)


def _network(network: NetworkPhase) -> Iterator[str]:
    rows = [("layer", "fan-in", "sigma_w", "sigma_b", "q", "chi", "phase")]
    rows += [
        (x.name, str(x.fan_in), f"{x.sigma_w:.4f}", f"{x.sigma_b:.4f}", f"{x.q:.4g}", f"{x.chi:.4f}", x.phase)
        for x in network.layers
    ]
    yield _columns("the network", rows, left=1)
    depth = "any depth" if math.isinf(network.depth) else f"about {network.depth:.3g} layers"
    yield f"{network.phase}: chi {network.chi:.4g} on average; signals get through {depth}"
    if network.normalised:
        yield "it has norm layers, which set the variances: what is said here holds without them"
    if network.residual:
        yield "it has shortcuts, past which signals get through with any weights: what is said here holds without them"


def _columns(title: str, rows: Sequence[Sequence[str]], left: int = 0) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = ["<" if i < left else ">" for i in range(len(widths))]
    lines = ["  ".join(f"{cell:{s}{w}}" for cell, s, w in zip(row, sides, widths, strict=True)) for row in rows]
    return "\n".join([title, *(f"  {line.rstrip()}" for line in lines)])


# -- a picture -------------------------------------------------------------------------------------------------

_STYLE = """
svg { font: 13px system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; background: #fbfbfa; }
text { fill: #1a1d21; } .soft { fill: #5c646e; } .edge { fill: none; stroke: #1a1d21; stroke-width: 2.5; }
.axis { stroke: #9aa2ab; } .asked { fill: none; stroke: #1a1d21; stroke-width: 2; }
.layer { fill: #ffd34d; stroke: #1a1d21; }
.o0 { fill: #f3f7fb; } .o1 { fill: #d5e5f3; } .o2 { fill: #aacbe6; } .o3 { fill: #77a9d3; } .o4 { fill: #4683b9; }
.k0 { fill: #fdf5f0; } .k1 { fill: #fadfcd; } .k2 { fill: #f3b98f; } .k3 { fill: #e08a4c; } .k4 { fill: #b9581c; }
"""
_STEPS = (0.02, 0.1, 0.3, 0.7)
"""|log chi| at which the colours change."""


def picture(d: PhaseDiagram, width: int = 760) -> str:
    """The diagram as one SVG file: blue is ordered, orange chaotic, the line the edge, dots the network's layers."""
    left, right, top, bottom = 64, width - 24, 52, 460
    step_w, step_b = d.sigma_w[0], d.sigma_b[1]
    x = svg.Scale(step_w / 2, d.sigma_w[-1] + step_w / 2, left, right)
    y = svg.Scale(-step_b / 2, d.sigma_b[-1] + step_b / 2, bottom, top)
    parts = [svg.text(right, 30, f"Phase diagram of {d.activation}", "title", "end")]
    for i, b in enumerate(d.sigma_b):
        for j, w in enumerate(d.sigma_w):
            value = d.chi[i][j]
            tip = f"sigma_b {b:.3g}, sigma_w {w:.3g}: chi {value:.3g}"
            corner = x(w - step_w / 2), y(b + step_b / 2)
            size = x(w + step_w / 2) - corner[0] + 0.6, y(b - step_b / 2) - corner[1] + 0.6
            parts.append(svg.rect(*corner, *size, _colour(value), tip))
    shown = [e for e in d.edge if e.sigma_w <= d.sigma_w[-1]]
    parts.append(svg.path([(x(e.sigma_w), y(e.sigma_b)) for e in shown], "edge"))
    if len(shown) == 1:
        parts.append(svg.mark("diamond", (x(shown[0].sigma_w), y(shown[0].sigma_b)), "asked", 5))
    if d.asked is not None and d.asked.sigma_w <= d.sigma_w[-1]:
        parts.append(svg.mark("circle", (x(d.asked.sigma_w), y(d.asked.sigma_b)), "asked", 7))
    for layer in d.network.layers if d.network is not None else ():
        tip = f"{layer.name}: sigma_w {layer.sigma_w:.4g}, sigma_b {layer.sigma_b:.4g}, chi {layer.chi:.4g}"
        dot = svg.mark("circle", (x(layer.sigma_w), y(layer.sigma_b)), "layer", 4.5)
        parts.append(svg.element("g", svg.element("title", escape(tip)), dot))
    parts += _axes(x, y, left, right, bottom)
    about = "chi by sigma_w and sigma_b: blue ordered, orange chaotic, the line is the edge of chaos."
    style = svg.element("style", _STYLE)
    drawn = svg.drawing("phase", width, bottom + 84, f"Phase diagram of {d.activation}", about, [style, *parts])
    return drawn.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 84}" ', 1)


def _colour(chi: float) -> str:
    size = abs(math.log(chi)) if chi > 0 else math.inf
    return f"{'o' if chi < 1 else 'k'}{sum(size > step for step in _STEPS)}"


def _axes(x: svg.Scale, y: svg.Scale, left: float, right: float, bottom: float) -> Iterator[str]:
    yield svg.line((left, bottom), (right, bottom), "axis")
    at = svg.ticks(x.lo, x.hi, 8)
    for value, said in zip(at, svg.spelled(at), strict=True):
        yield svg.text(x(value), bottom + 20, said, "soft", "middle")
    at = svg.ticks(max(y.lo, 0.0), y.hi, 6)
    for value, said in zip(at, svg.spelled(at), strict=True):
        yield svg.text(left - 8, y(value) + 4, said, "soft", "end")
    yield svg.text((left + right) / 2, bottom + 42, "sigma_w", "soft", "middle")
    yield svg.text(left - 40, y.b - 12, "sigma_b", "soft")
    place = left
    for kind, said in (("o3", "ordered"), ("k3", "chaotic"), ("layer", "layers of the network")):
        yield svg.rect(place, bottom + 56, 14, 14, kind)
        yield svg.text(place + 20, bottom + 68, said, "soft")
        place += 40 + 8 * len(said)
    yield svg.text(place, bottom + 68, "line: edge of chaos; ring: as asked", "soft")


def page(d: PhaseDiagram) -> str:
    """The picture and the text as one HTML file that asks nothing of anywhere."""
    title = escape(f"Phase diagram of {d.activation}")
    style = (
        "body{margin:32px auto;max-width:800px;font:16px system-ui,sans-serif}"
        "pre{font-size:14px;white-space:pre-wrap}svg{max-width:100%}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><h1>{title}</h1>"
        f"{picture(d)}<pre>{escape(described(d))}</pre></body></html>\n"
    )
