"""A verdict in words: one paragraph, a table of its steps, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sparsight.numerics import format as words
from sparsight.records.record import to_json
from sparsight.records.verdict import Speed, Step, Verdict
from sparsight.report.pages import Section, Table


def paragraph(v: Verdict) -> str:
    """How far the network can be pruned, and how sure that is: only what was recorded, and what was not."""
    surer = [f"to be surer, run: {'; '.join(v.surer)}"] if v.surer else []
    parts = [*_answer(v), *_evidence(v), *_worth(v), *_cost(v), *surer]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def _points(v: Verdict, value: float | None) -> str:
    """The metric's difference from dense, for a step's value (larger is better)."""
    if value is None:
        return words.NONE
    value = v.metric.worth(value)
    return words.points(value) if v.metric.share else f"{value:+.4g}"


def _answer(v: Verdict) -> Iterator[str]:
    within = f"within {words.margin(v.margin, not v.metric.share)} of dense"
    sure = f"at {100 * v.confidence:g} % confidence"
    found = next((step for step in v.steps if step.density == v.density), None)
    refused = next((step for step in v.steps if step.density == v.refused), None)
    least, low = ("at least", "low") if v.metric.better == "higher" else ("at most", "high")
    over = f"with {v.setting} ({words.plural(len(v.seeds), 'seed')})"
    if found is None:
        yield f"{over}, no pruned network can be shown to be {within} {sure}"
    else:
        named = "" if found.level is None else f", level {found.level},"
        kept = round(found.density * v.prunable)
        yield (
            f"{over}, {within} {sure}, the sparsest network{named} keeps "
            f"{words.percent(found.density)} of {v.prunable:,} weights ({words.compression(kept, v.prunable)}): its "
            f"validation {v.metric.name} is {_points(v, found.difference)} relative to dense, and {least} "
            f"{_points(v, found.lower)}"
        )
        if found.interpolated:
            yield "that density is interpolated between two levels in some runs"
    yield f"the bounds are over {v.basis}"
    if refused is not None:
        bound = "has no bound" if refused.lower is None else f"may be as {low} as {_points(v, refused.lower)}"
        which = "first" if found is None else "next"
        yield f"the {which}, at {words.percent(refused.density)}, is {_points(v, refused.difference)} and {bound}"
    elif v.steps:
        yield "no sparser network was tried"
    if v.beyond:
        yield (
            f"alone {' and '.join(map(words.percent, v.beyond))} would pass too, after denser networks did not: that "
            "may be luck"
        )


def _evidence(v: Verdict) -> Iterator[str]:
    heads = (("for", "for going further"), ("against", "against"), ("open", "undecided"))
    for says, head in heads:
        told = [each.text for each in v.evidence if each.says == says]
        if told:
            yield f"{head}: {'; '.join(told)}"


def _worth(v: Verdict) -> Iterator[str]:
    if v.density is None:
        return
    if v.packed_bytes is not None and v.dense_bytes is not None:
        gain = words.smaller(v.packed_bytes, v.dense_bytes)
        yield f"packed it takes {words.bytes_of(v.packed_bytes)}, {gain} than dense"
    yield from (_speed([x for x in v.speed if x.at == at], at) for at in dict.fromkeys(x.at for x in v.speed))
    if not v.speed:
        yield "its speed was not measured"
    if v.pays is None:
        yield "which classes pay was not measured"
    elif v.pays:
        yield f"classes that pay: {', '.join(f'{x.name} ({_points(v, x.impact)})' for x in v.pays)}"
    else:
        yield "no class is shown to pay"


def _speed(here: Sequence[Speed], at: str) -> str:
    """The runtimes in which it is faster than without zeros, and the others."""
    fast = [f"{x.ratio:.1f}× faster than without zeros in {x.runtime}" for x in here if x.faster]
    slow = [x.runtime for x in here if not x.faster]
    parts = [*fast, *([f"no faster in {', '.join(slow)}"] if slow else [])]
    return f"it is {' and '.join(parts)}, where that was measured, at {at}"


def _cost(v: Verdict) -> Iterator[str]:
    time = "" if v.seconds is None else f" and {words.duration(v.seconds)}"
    yield f"finding it took {words.plural(v.epochs, 'epoch')}, {words.plural(v.optimizer_steps, 'step')}{time}"


# -- tables --------------------------------------------------------------------------------------------------------


def _row(v: Verdict, step: Step) -> tuple[str, ...]:
    level = words.NONE if step.level is None else str(step.level)
    passed = v.density is not None and step.density >= v.density
    within = "yes" if passed else "alone" if step.density in v.beyond else "not shown"
    place = f"{words.percent(step.density)}{' (interpolated)' if step.interpolated else ''}"
    of = words.NONE if step.n is None else f"{step.n:,}"
    return place, level, _points(v, step.difference), _points(v, step.lower), of, within


def section(v: Verdict | None) -> Section | None:
    """The section of a report: the paragraph and the steps; None without a verdict."""
    if v is None:
        return None
    bound = "lower bound" if v.metric.better == "higher" else "upper bound"
    heads = ("density", "level", "vs. dense", bound, "of", "within")
    steps = Table("The way from dense to sparse", heads, [_row(v, step) for step in v.steps], words=(5,))
    return Section("verdict", "How far can I go?", paragraph(v), [steps])


def document(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Each record as JSON values, with its paragraph."""
    return [{**to_json(v), "paragraph": paragraph(v)} for v in found]
