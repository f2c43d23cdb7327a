"""When each level ended, why, and what its stopping rule saw until then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sparsight.records.record import LevelRecord
from sparsight.report import format as words
from sparsight.report import markup, svg
from sparsight.report.escape import escape
from sparsight.report.run_view import Story, is_finite, key

MEMBER = re.compile(r"(?P<family>.*?\)), (?P<member>.+)", re.DOTALL)
"""A value of one of several: "gradient flow (norm), fc1.weight"."""

LINES = 5
"""As many colours as the style sheet has for lines; more members than that are in the table alone."""


def stopping(s: Story) -> str:
    """The section about stopping rules. Nothing where every level trained its whole budget and nothing was measured."""
    early = any((saved := _saved(x)) is not None and saved > 0 for x in s.levels)
    if not early and not _names(s.levels, "distance") and not _names(s.levels, "value"):
        return ""
    figures = [_figure(s, name, i) for i, name in enumerate(_names(s.levels, "distance"))]
    families = dict.fromkeys(_split(name)[0] for name in _names(s.levels, "value"))
    figures += [_figure(s, name, i, of_values=True) for i, name in enumerate(families)]
    seen = markup.fold("These numbers as a table", _seen_table(s)) if figures else ""
    return markup.section("stopping", "When each level ended", _lead(s), _level_table(s), *figures, seen)


def _cap(x: LevelRecord) -> float | None:
    """Epochs that the level might have taken; None where that is not on record."""
    cap = x.operation.get("epochs")
    return float(cap) if isinstance(cap, (int, float)) and not isinstance(cap, bool) and is_finite(cap) else None


def _saved(x: LevelRecord) -> float | None:
    cap = _cap(x)
    return None if cap is None else cap - x.epochs


def _lead(s: Story) -> str:
    known = [x for x in s.levels if _cap(x) is not None]
    spent, cap = sum(x.epochs for x in known), sum(_cap(x) or 0.0 for x in known)
    if not known or not cap:
        return "The budgets of the levels are not on record."
    told = f"The levels took {words.count(spent)} of at most {words.plural(cap, 'epoch')}: "
    told += f"{words.count(cap - spent)} saved ({words.percent((cap - spent) / cap)})."
    times = [t for x in s.levels if (t := s.times.get(key(x))) is not None]
    trained = sum(t.train for t in times)
    if not trained:
        return told
    measured, judged = (sum(getattr(t, part) for t in times) for part in ("measure", "validate"))
    told += f" Measuring took {words.duration(measured)}, {100 * measured / trained:.1f} % of the training's "
    return f"{told}{words.duration(trained)}; validating {words.duration(judged)}."


def _level_table(s: Story) -> str:
    rows = [
        (
            f"{x.level}{' chosen' if x is s.chosen else ''}",
            words.percent(x.density),
            words.count(x.epochs),
            words.count(_cap(x)),
            words.count(_saved(x)),
            str(len(x.observations)),
            x.reason or words.NONE,
        )
        for x in s.levels
    ]
    marked = {i: "chosen" for i, x in enumerate(s.levels) if x is s.chosen}
    heads = ("level", "density", "epochs", "at most", "saved", "evaluations", "why it ended")
    return markup.table(heads, rows, "Epochs spent and saved by level", words=(6,), marked=marked)


def _seen_table(s: Story) -> str:
    """Every number that a rule saw, one row for each evaluation."""
    names = list(dict.fromkeys(name for x in s.levels for o in x.observations for name in o.values))
    rows = [
        (str(x.level), f"{o.epoch:.4g}", *(_spell(o.values.get(name)) for name in names))
        for x in s.levels
        for o in x.observations
        if o.values
    ]
    heads = ("level", "epoch", *(name.replace(":", ": ", 1) for name in names))
    return markup.table(heads, rows, "What the stopping rules saw")


def _spell(value: float | None) -> str:
    return words.NONE if value is None else f"{value:.4g}"


def _names(levels: Iterable[LevelRecord], kind: str) -> list[str]:
    """Names of one kind of number, in order of first appearance."""
    start = f"{kind}:"
    found = (name for x in levels for o in x.observations for name in o.values if name.startswith(start))
    return [name.removeprefix(start) for name in dict.fromkeys(found)]


def _split(name: str) -> tuple[str, str]:
    found = MEMBER.fullmatch(name)
    return (found["family"], found["member"]) if found else (name, "")


# -- a small picture for each level ------------------------------------------------------------------------------


def _figure(s: Story, name: str, i: int, of_values: bool = False) -> str:
    """Small pictures of one distance with its threshold, or of the values of one family, by epoch."""
    if of_values:
        lines = [f"value:{other}" for other in _names(s.levels, "value") if _split(other)[0] == name][:LINES]
        title, labels = name, [_split(line.partition(":")[2])[1] or name for line in lines]
    else:
        lines, title = [f"distance:{name}", f"threshold:{name}"], f"{name}: distance"
        labels = ["distance", "threshold, below which it counts"]
    levels = [x for x in s.levels if any(line in o.values for o in x.observations for line in lines)]
    seen = [v for x in levels for o in x.observations for line in lines if is_finite(v := o.values.get(line))]
    known = [v for v in seen if v is not None]
    if not known:
        return ""
    lo, hi = svg.span(known, 1e-6, 0.0 if min(known) >= 0 else min(known))
    last = max(o.epoch for x in levels for o in x.observations)
    x, y = svg.Scale(0.0, last or 1.0, 50, 150), svg.Scale(lo, hi, 82, 24)
    ident = f"{'values' if of_values else 'distance'}-{i}"
    pictures = "".join(_picture(s, record, lines, title, f"{ident}-{record.level}", x, y) for record in levels)
    keys = [
        svg.element("svg", svg.line((0, 6), (22, 6), f"curve c{n + 1}"), viewBox="0 0 22 12", class_="swatch")
        + f" {escape(label)}"
        for n, label in enumerate(labels)
    ]
    items = "".join(f"<li>{item}</li>" for item in keys)
    legend = f'<ul class="legend">{items}</ul>'
    return f'<h3>{escape(title)}</h3>{legend}<figure class="many">{pictures}</figure>'


def _picture(
    s: Story, record: LevelRecord, lines: Sequence[str], title: str, ident: str, x: svg.Scale, y: svg.Scale
) -> str:
    heading, chosen = f"level {record.level}", record is s.chosen
    parts = [svg.text(50, 13, heading, "label chosen-text" if chosen else "label")]
    parts += [svg.text(150, 13, words.percent(record.density), "tick", "end")]
    parts += [svg.line((50, at), (150, at), "grid") for at in (y.b, y.a)]
    parts += [svg.text(46, at + 4, f"{v:.2g}", "tick small", "end") for v, at in ((y.hi, y.b), (y.lo, y.a))]
    rows = []
    for n, line in enumerate(lines):
        seen = [(o.epoch, v) for o in record.observations if (v := o.values.get(line)) is not None and is_finite(v)]
        points = [(x(epoch), y(v)) for epoch, v in seen]
        parts += [svg.path(points, f"curve c{n + 1}")]
        if len(points) == 1 or not n:
            parts += [svg.mark("circle", at, f"dot c{n + 1}", 2.5) for at in points[-1:]]
        rows += [f"epoch {epoch:.4g}: {v:.4g}" for epoch, v in seen] if not n else []
    parts += [svg.text(50, 97, "0", "tick small", "start"), svg.text(150, 97, f"{x.hi:g}", "tick small", "end")]
    tip = "\n".join([heading, *(rows if len(rows) <= 8 else [*rows[:3], "…", *rows[-4:]])])
    parts += [svg.element("g", svg.rect(0, 0, 160, 102, "band", tip), class_="hot")]
    about = f"{words.plural(len(rows), 'point')}; the numbers are in the table below."
    return svg.drawing(ident, 160, 102, f"{title} by epoch, level {record.level}", about, parts, "small")
