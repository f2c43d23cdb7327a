"""The comparison page: a table, a scatter plot, a family tree, and details of picked networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sparsight.compare.flips import flips
from sparsight.compare.gather import Comparison, Network
from sparsight.compare.text import spelled
from sparsight.numerics import format as words
from sparsight.report.pages import Page, Section, asset, render

ROWS = 250
"""Rows of the table shown at first."""
PARTS_MOST = 200_000
"""At most this many numbers by layer, class and corruption go on a page; otherwise none."""

NAMED, BESIDE = 80, 300
"""The tree names its leaves if there are at most 80, in 300 pixels."""

_ASIDE = frozenset({
    "run", "kept", "status", "content id", "came from", "made by", "brier", "nll", "churn", "lost", "mce",
    "excess error", "validation loss", "test loss", "dead outputs", "effective macs", "steps so far", "role", "model",
    "data", "device", "sparsight",
})  # fmt: skip
"""Columns hidden at first."""


def page(
    found: Comparison, heading: str = "Networks side by side", about: str = "", sections: Sequence[Section] = ()
) -> str:
    """The networks as one HTML file, with its state in the address; works with the keyboard and without scripts.

    `heading`, `about` and `sections` come first.
    """
    names = [column.name for column in found.columns]
    parts, left_out = _parts(found.networks)
    runs = len({n.run for n in found.networks})
    summary = f"{words.plural(len(found.networks), 'network')} of {words.plural(runs, 'run')}."
    if found.left_out:
        summary += f" {words.plural(found.left_out, 'further network')} of these runs not shown."
    if left_out:
        summary += " Numbers by layer and class are left out: there are too many."
    same = {name: value for name, value in found.same.items() if value not in (None, "")}
    data = {
        "columns": [{"name": c.name, "kind": c.kind, "better": c.better} for c in found.columns],
        "rows": [[n.values.get(name) for name in names] for n in found.networks],
        "names": [n.name for n in found.networks],
        "settings": [n.setting for n in found.networks],
        "groups": [n.group for n in found.networks],
        "seeds": [n.values["seed"] for n in found.networks],
        "ids": [n.id[:12] for n in found.networks],
        "parts": parts,
        "shown": [i for i, name in enumerate(names) if name not in _ASIDE],
        "axes": [_axis(found, _X), _axis(found, _Y)],
        "most": ROWS,
        "flips": flips(found.networks),
        "t": stdtrit(np.arange(1, 31), 0.975).tolist(),
    }
    return render(
        Page("Compare", "Sparsight · compare", heading, list(sections), told=f"{about} {summary}".strip()),
        "compare.html", [asset("compare.js")], columns=found.columns, data=data, tree=_tree(found.networks),
        rows=[[spelled(c, n.values.get(c.name)) for c in found.columns] for n in found.networks],
        names=data["names"], most=ROWS, same=[(k, v if isinstance(v, str) else json.dumps(v)) for k, v in same.items()],
        scatter=SCATTER, detail=DETAIL, extra=asset("compare.css"),
    )  # fmt: skip


_X = ("density", "packed bytes", "kept")
_Y = ("test accuracy", "validation accuracy", "worst class accuracy")


def _axis(found: Comparison, wanted: Sequence[str]) -> int:
    """The first wanted column that exists, otherwise the first with numbers, or the first."""
    places = {c.name: i for i, c in enumerate(found.columns)}
    numbers = [c.name for c in found.columns if c.kind != "text"]
    return next((places[name] for name in (*wanted, *numbers) if name in places), 0)


def _parts(networks: Sequence[Network]) -> tuple[dict[str, Any], bool]:
    """Part names and each network's values to four digits, by kind; and whether they are left out."""
    if sum(len(of) for n in networks for of in n.parts.values()) > PARTS_MOST:
        return {}, True
    found: dict[str, Any] = {}
    for what in dict.fromkeys(what for n in networks for what in n.parts):
        names = list(dict.fromkeys(name for n in networks for name in n.parts.get(what, ())))
        values = [[_digits(of.get(name)) for name in names] if (of := n.parts.get(what)) else None for n in networks]
        found[what] = {"names": names, "values": values}
    return found, False


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


# -- charts: the page's script fills in the names between @ signs -----------------------------------------------------


def _tips(**names: str) -> list[dict[str, str]]:
    return [{"field": name, "title": title} for name, title in names.items()]


_MOVE = "[pointerdown[{}event.shiftKey], window:pointerup] > window:pointermove!"
_AXES = {
    name: {"field": name, "type": "quantitative",
           "scale": {"type": f"@{name} type@", "domain": f"@{name} domain@", "padding": 12},
           "axis": {"title": f"@{name} title@", "labelExpr": f"@{name} label@", "grid": True, "labelOverlap": True}}
    for name in ("x", "y")
}  # fmt: skip
_SETTING = {"field": "hue", "scale": {"domain": "@settings@"}, "legend": "@legend@"}
_DIAMOND = {"type": "point", "shape": "diamond", "size": 130}
_MEAN = _tips(setting="mean of", n="seeds", b="@y title@")

SCATTER: dict[str, Any] = {
    "width": "container", "height": 380,
    "datasets": {"networks": "@networks@", "means": "@means@", "front": "@front@"},
    "params": [{"name": "picked", "value": []}],
    "encoding": _AXES,
    "layer": [
        {"data": {"name": "front"}, "mark": {"type": "line", "style": "soft", "interpolate": "@step@"}},
        {"data": {"name": "networks"}, "mark": {"type": "point", "size": 46, "cursor": "pointer"},
         "params": [
             {"name": "brush", "select": {"type": "interval", "on": _MOVE.format("!"), "translate": False,
                                          "zoom": False}},
             {"name": "zoom", "bind": "scales", "select": {"type": "interval", "translate": _MOVE.format(""),
                                                           "zoom": "wheel![event.ctrlKey]"}}],
         "encoding": {"color": _SETTING, "opacity": {"condition": {"param": "brush", "value": 0.75}, "value": 0.12},
                      "tooltip": _tips(name="network", setting="setting", a="@x title@", b="@y title@")}},
        {"data": {"name": "means"}, "mark": {"type": "rule", "strokeWidth": 1.6},
         "encoding": {"y": {**_AXES["y"], "field": "low"}, "y2": {"field": "high"}, "color": _SETTING}},
        {"data": {"name": "means"}, "transform": [{"filter": "!datum.behind"}], "mark": _DIAMOND,
         "encoding": {"color": _SETTING, "tooltip": _MEAN}},
        {"data": {"name": "means"}, "transform": [{"filter": "datum.behind"}], "mark": {**_DIAMOND, "filled": False},
         "encoding": {"color": _SETTING, "tooltip": [{"field": "setting", "title": "behind: mean of"}, *_MEAN[1:]]}},
        {"data": {"name": "networks"}, "transform": [{"filter": "indexof(picked, datum.i) >= 0"}],
         "mark": {"type": "point", "style": "chosen", "size": 200, "filled": False, "strokeWidth": 2.4}},
    ],
}  # fmt: skip
"""Networks by two metrics, means of settings over seeds with intervals, and their Pareto front."""

_NETWORK = {"field": "network", "scale": {"domain": "@networks@"}}
DETAIL: dict[str, Any] = {
    "width": "container", "height": {"step": 20}, "data": {"name": "rows"}, "datasets": {"rows": "@rows@"},
    "encoding": {"y": {"field": "part", "sort": None, "type": "nominal", "axis": {
        "title": None, "domain": False, "ticks": False, "grid": True, "labelLimit": 330}}},
    "layer": [
        {"mark": {"type": "rule", "style": "hover", "strokeWidth": 2}, "encoding": {
            "x": {"field": "value", "aggregate": "min", "type": "quantitative"},
            "x2": {"field": "value", "aggregate": "max"}}},
        {"mark": {"type": "point", "size": 70}, "encoding": {
            "x": {"field": "value", "type": "quantitative", "scale": {"zero": False, "padding": 12},
                  "axis": {"title": None, "labelExpr": "@label@", "orient": "top"}},
            "color": {**_NETWORK, "legend": {"columns": 3}}, "shape": _NETWORK,
            "tooltip": _tips(part="@part@", network="network", shown="@what@")}},
    ],
}  # fmt: skip
"""The picked networks by layer, class or corruption."""

TREE: dict[str, Any] = {
    "width": "container", "signals": [{"name": "state", "value": {}}, {"name": "ink", "value": "@ink@"}],
    "data": [
        {"name": "nodes", "transform": [
            {"type": "stratify", "key": "id", "parentKey": "parent"},
            {"type": "tree", "method": "cluster", "size": [{"signal": "height"}, {"signal": "width"}],
             "as": ["y", "x", "depth", "children"]},
        ]},
        {"name": "links", "source": "nodes", "transform": [
            {"type": "treelinks"}, {"type": "linkpath", "orient": "horizontal", "shape": "diagonal"},
        ]},
    ],
    "marks": [
        {"type": "path", "from": {"data": "links"}, "encode": {
            "update": {"path": {"field": "path"}, "stroke": {"signal": "ink.rule"}, "strokeWidth": {"value": 1.4}}}},
        {"type": "symbol", "from": {"data": "nodes"}, "encode": {
            "enter": {"size": {"value": 64}, "cursor": {"value": "pointer"}, "stroke": {"signal": "ink.card"},
                      "tooltip": {"signal": "{network: datum.label, made: datum.made}"}},
            "update": {"x": {"field": "x"}, "y": {"field": "y"}, "fill": {"signal":
                "state[datum.id] == 2 ? ink.chosen : state[datum.id] == 1 ? ink.accent : ink.axis"}}}},
        {"type": "text", "from": {"data": "nodes"}, "interactive": False, "encode": {
            "update": {"x": {"field": "x"}, "y": {"field": "y"}, "dx": {"value": 8}, "baseline": {"value": "middle"},
                       "text": {"field": "text"}, "fill": {"signal": "ink.soft"}, "fontSize": {"value": 11},
                       "limit": {"value": BESIDE - 12}}}},
    ],
}  # fmt: skip
"""The family tree, in Vega: from unpruned networks to their descendants."""


def _tree(networks: Sequence[Network]) -> dict[str, Any]:
    """The tree of these networks. A network without its parent among them, or in a cycle, is a root."""
    nodes: dict[str, dict[str, Any]] = {}
    for i, n in enumerate(networks):
        about = {"id": n.id[:12], "i": i, "parent": (n.parent or "")[:12], "made": n.made, "label": n.name, "text": ""}
        nodes.setdefault(n.id[:12], about)
    for node in nodes.values():
        seen = {node["id"]}
        while node["parent"] in nodes and node["parent"] not in seen:
            node = nodes[node["parent"]]
            seen.add(node["id"])
        node["parent"] = "root"
    ends = [node for node in nodes.values() if node["id"] not in {other["parent"] for other in nodes.values()}]
    for node in ends if len(ends) <= NAMED else ():
        node["text"] = node["label"]
    right = BESIDE if len(ends) <= NAMED else 12
    padding = {"left": 6, "right": right, "top": 8, "bottom": 8}
    root = {"id": "root", "parent": None, "made": "", "label": "all networks", "text": ""}
    data = [{**TREE["data"][0], "values": [root, *nodes.values()]}, *TREE["data"][1:]]
    return {**TREE, "height": max(120, 18 * len(ends)), "padding": padding, "data": data}
