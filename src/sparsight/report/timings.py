"""The times of a network and its rivals, as a table and as rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsight.deploy.bench.compare import Comparison
from sparsight.deploy.runtime.visit import Planned
from sparsight.numerics import format as words
from sparsight.records.record import to_json
from sparsight.report.table import grid, wrapped


def timings(found: Comparison, rounds: int, machine: Mapping[str, Any]) -> str:
    """A row per way to run it: precision, milliseconds, ratio to the runtime's time, error. At most 80 columns.

    Below the table: the ratios to the fastest rivals, and the missing rivals with reasons.
    """
    counted = "least process time" if found.threads == 1 else "least wall time"
    about = (
        f"{found.case}, density {words.percent(found.density)}; {words.plural(found.threads, 'thread')} of "
        f"{machine['processor']}; {counted} of {words.plural(rounds, 'round')}."
    )
    rows = []
    for row in found.rows:
        times = "" if row is found.ours else f"{row.seconds / found.ours.seconds:.2f}×"
        rows.append([row.name, row.precision, f"{1e3 * row.seconds:.4g}", times, f"{row.error:.0e}"])
    lines = grid(("way", "numbers", "ms", "times ours", "error"), rows, (0,), 10)
    held = f"A call of sparsight holds {words.bytes_of(found.memory)} of activations and scratch."
    if found.plan:
        sparse = sum(row.runs == "sparse" for row in found.plan)
        held = f"{sparse} of {words.plural(len(found.plan), 'layer')} run sparse, the others in PyTorch. {held}"
    under = [*_fastest(found), held, *(f"Left out: {name}: {why}." for name, why in found.missing.items())]
    return "\n".join([*wrapped(about), "", *lines, "", *wrapped(*under)])


def layers(plan: Sequence[Planned]) -> str:
    """A row per layer: density, what runs it, both times; below, why layers are not sparse. At most 80 columns."""
    rows = []
    for row in plan:
        took = (row.milliseconds.get(way) for way in ("torch", "sparse"))
        times = (words.NONE if ms is None else f"{ms:.3g}" for ms in took)
        rows.append([_short(row.name or row.kind), words.percent(row.density), row.runs, *times])
    lines = grid(("layer", "density", "runs", "torch ms", "sparse ms"), rows, (0, 2), 10)
    under = ["Layers of one part that runs sparse as a whole have its times."]
    reasons = dict.fromkeys(row.why for row in plan if row.runs == "torch")
    named = {why: ", ".join(row.name or row.kind for row in plan if row.why == why) for why in reasons}
    under += [f"In PyTorch: {names}: {why}." for why, names in named.items()]
    return "\n".join([*lines, "", *wrapped(*under)])


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def document(found: Sequence[Comparison], rounds: int, machine: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values: the machine, and all numbers of each comparison, in seconds and bytes, with the ratios."""
    comparisons = [{**to_json(one), "ratios": _ratios(one)} for one in found]
    return {"machine": dict(machine), "rounds": rounds, "comparisons": comparisons}


def rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row for each way in each comparison, with unrounded seconds and errors."""
    made = []
    for one in found:
        of = {"case": one.case, "density": one.density, "batch": one.batch, "threads": one.threads}
        for row in one.rows:
            took = {"seconds": row.seconds, "process": row.timing.process, "wall": row.timing.wall}
            ratio = {"median": row.timing.median, "times_ours": row.seconds / one.ours.seconds, "error": row.error}
            made.append({**of, "way": row.name, "precision": row.precision, **took, **ratio})
    return made


def _ratios(one: Comparison) -> dict[str, float | None]:
    """The times of the fastest rivals, all and dense ones, divided by the runtime's time."""
    return {
        "fp32": one.ratio("fp32"),
        "all": one.ratio(),
        "dense fp32": one.ratio("fp32", dense=True),
        "dense": one.ratio(dense=True),
    }


def _fastest(found: Comparison) -> Iterator[str]:
    first, best = found.fastest("fp32"), found.fastest()
    if best is None:
        yield "There is no rival to compare with."
        return
    if first is not None and first is not best:
        yield f"sparsight is {first.seconds / found.ours.seconds:.2f}× as fast as the fastest in fp32, {first.name}."
    whole = "of all" if first is not best else "rival"
    yield f"sparsight is {best.seconds / found.ours.seconds:.2f}× as fast as the fastest {whole}, {best.name}."
