"""The colours of pages and charts, light and dark. Colour-blind readers can distinguish the series."""

from __future__ import annotations

from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
CSS = {
    "light": {
        "bg": "#fbfbfa", "card": "#ffffff", "ink": "#1a1d21", "soft": "#5c646e", "rule": "#e0e3e6", "grid": "#ebedf0",
        "axis": "#9aa2ab", "accent": "#0a66b0", "chosen": "#b3261e", "wash": "#fdf1ef", "note": "#fff6e0",
        "note-rule": "#d99a1c",
    },
    "dark": {
        "bg": "#121518", "card": "#1a1e22", "ink": "#e8eaed", "soft": "#a3abb5", "rule": "#31373e", "grid": "#282d33",
        "axis": "#6b747e", "accent": "#6cb6f5", "chosen": "#ff8a80", "wash": "#331f1e", "note": "#2e2613",
        "note-rule": "#b8831a",
    },
}  # fmt: skip
"""Custom properties of the style sheet; charts use the same colours."""

SERIES = {
    "light": ["#0a66b0", "#c94f00", "#10a37a", "#7d2a6e", "#c8ad00", "#3a3f45", "#56b4e9"],
    "dark": ["#6cb6f5", "#f28c38", "#2fae84", "#e58bd0", "#f0e070", "#e8eaed", "#3579b5"],
}
RAMP = {
    "light": ["#eaf2fa", "#c6ddef", "#a2c7e4", "#7eb2d8", "#579dcc", "#3b87bc", "#2d70a7", "#1f5a93", "#13457f"],
    "dark": ["#1b2a3a", "#203850", "#254767", "#29567f", "#2d6698", "#3f7aae", "#5e92c1", "#7caad3", "#b9dcf8"],
}
DIVERGING = {
    "light": ["#2d70a7", "#6aa5d6", "#aacbe6", "#e4eef7", "#f7f5f3", "#fae6d8", "#f3b98f", "#e08a4c", "#b9581c"],
    "dark": ["#8fc4f0", "#4d8fc4", "#2f6797", "#223f5b", "#24272b", "#57351f", "#8a4c1f", "#c46f2f", "#f4a261"],
}


def config(mode: str) -> dict[str, Any]:
    """Vega-Lite's config for a mode, "light" or "dark"."""
    css, series = CSS[mode], SERIES[mode]
    text = {"labelColor": css["soft"], "titleColor": css["ink"], "titleFontWeight": 500, "titleFontSize": 12}
    return {
        "background": None,
        "font": FONT,
        "padding": {"left": 2, "right": 6, "top": 4, "bottom": 4},
        "range": {"category": series, "ramp": RAMP[mode], "heatmap": RAMP[mode], "diverging": DIVERGING[mode]},
        "view": {"stroke": None},
        "axis": {
            **text, "labelFontSize": 11.5, "gridColor": css["grid"], "domainColor": css["axis"],
            "tickColor": css["axis"], "titlePadding": 8, "labelPadding": 5, "tickSize": 4,
        },
        "axisY": {"domain": False, "ticks": False},
        "axisX": {"grid": False},
        "legend": {
            **text, "orient": "top", "title": None, "labelColor": css["ink"], "labelFontSize": 12, "labelLimit": 320,
            "symbolStrokeWidth": 2, "columnPadding": 18, "offset": 8, "gradientLength": 160, "gradientThickness": 10,
        },
        "header": {"labelColor": css["ink"], "labelFontSize": 11.5, "labelFontWeight": 500, "title": None,
                   "labelAnchor": "start", "labelPadding": 4, "labelLimit": 170},
        "title": {"color": css["ink"], "anchor": "start", "fontSize": 12.5, "fontWeight": 500, "offset": 6},
        "mark": {"color": series[0]},
        "line": {"strokeWidth": 2, "strokeJoin": "round", "strokeCap": "round"},
        "point": {"filled": True, "size": 42, "opacity": 1},
        "text": {"color": css["ink"], "fontSize": 11},
        "style": {
            "chosen": {"color": css["chosen"]},
            "frame": {"color": css["chosen"], "strokeWidth": 2},
            "hover": {"color": css["axis"]},
            "soft": {"color": css["soft"]},
            "on-low": {"color": css["ink"], "fontSize": 10.5},
            "on-high": {"color": css["card"], "fontSize": 10.5},
            "gone": {"color": css["wash"], "stroke": css["chosen"], "strokeDash": [2, 2]},
            "ring": {"color": css["ink"], "strokeWidth": 2},
            "dot": {"color": "#ffd34d", "stroke": css["ink"], "strokeWidth": 1},
        },
    }  # fmt: skip
