"""When each level ended, why, and what its stopping rule saw until then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from sparsight.numerics import format as words
from sparsight.records.record import LevelRecord
from sparsight.report.charts import CELL, small, span
from sparsight.report.pages import Chart, Fold, Section, Table
from sparsight.report.run_tables import label, marks
from sparsight.report.run_view import Story, is_finite, key

MEMBER = re.compile(r"(?P<family>.*?\)), (?P<member>.+)", re.DOTALL)
"""A value of one of several: "gradient flow (norm), fc1.weight"."""

LINES = 5
"""Members that a picture shows; more than that are in the table alone."""


def stopping(s: Story) -> Section | None:
    """The section about stopping rules. None where every level trained its whole budget and nothing was measured."""
    early = any((saved := _saved(x)) is not None and saved > 0 for x in s.levels)
    if not early and not _names(s.levels, "distance") and not _names(s.levels, "value"):
        return None
    figures = []
    for i, name in enumerate(_names(s.levels, "distance")):
        lines = {"distance": f"distance:{name}", "threshold, below which it counts": f"threshold:{name}"}
        figures.append(_figure(s, f"distance-{i}", f"{name}: distance", lines))
    families: dict[str, dict[str, str]] = {}
    for name in _names(s.levels, "value"):
        found = MEMBER.fullmatch(name)
        family, member = (found["family"], found["member"]) if found else (name, name)
        families.setdefault(family, {})[member] = f"value:{name}"
    for i, (family, members) in enumerate(families.items()):
        figures.append(_figure(s, f"values-{i}", family, dict([*members.items()][:LINES])))
    names = list(dict.fromkeys(name for x in s.levels for o in x.observations for name in o.values))
    said = "What the stopping rules saw"
    seen = [Fold(said, [_seen_table(s, names, said)])] if any(figures) else []
    parts = [_level_table(s), *filter(None, figures), *seen]
    return Section("stopping", "When each level ended", _lead(s), parts)


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
    told += f" Measuring took {words.duration(measured)}, {words.percent(measured / trained)} of the training's "
    return f"{told}{words.duration(trained)}; validating {words.duration(judged)}."


def _level_table(s: Story) -> Table:
    rows = []
    for x in s.levels:
        epochs = [words.count(v) for v in (x.epochs, _cap(x), _saved(x))]
        rows.append((label(s, x), words.percent(x.density), *epochs, str(len(x.observations)), x.reason or words.NONE))
    heads = ("level", "density", "epochs", "at most", "saved", "evaluations", "why it ended")
    return Table("Epochs spent and saved by level", heads, rows, words=(6,), marked=marks(s))


def _seen_table(s: Story, names: Sequence[str], caption: str) -> Table:
    """Numbers that a rule saw, one row for each evaluation."""
    seen = ((x, o) for x in s.levels for o in x.observations if any(name in o.values for name in names))
    rows = [
        (str(x.level), *(words.NONE if v is None else f"{v:.4g}" for v in (o.epoch, *map(o.values.get, names))))
        for x, o in seen
    ]
    return Table(caption, ("level", "epoch", *(name.replace(":", ": ", 1) for name in names)), rows)


def _names(levels: Iterable[LevelRecord], kind: str) -> list[str]:
    """Names of one kind of number, in order of first appearance."""
    start = f"{kind}:"
    found = (name for x in levels for o in x.observations for name in o.values if name.startswith(start))
    return [name.removeprefix(start) for name in dict.fromkeys(found)]


def _figure(s: Story, ident: str, title: str, lines: Mapping[str, str]) -> Chart | None:
    """Small pictures, one for each level, of what is seen by epoch: the name of each line, and of its numbers."""
    rows = []
    for x in s.levels:
        of = f"level {x.level} · {words.percent(x.density)}"
        for o in x.observations:
            known = [(series, v) for series, line in lines.items() if is_finite(v := o.values.get(line))]
            rows += [{"of": of, "x": o.epoch, "y": v, "series": series, "shown": f"{v:.4g}"} for series, v in known]
    if not rows:
        return None
    domain = span([x["y"] for x in rows], 1e-6, min(0.0, *(x["y"] for x in rows)))
    drawn = small(rows, domain, {"of": "level", "series": "line", "x": "epoch", "shown": "value"}, series=[*lines])
    return Chart(ident, title, drawn, _seen_table(s, [*lines.values()], f"By level: {title}"), cell=CELL)
