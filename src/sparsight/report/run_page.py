"""The page of a run, made from its records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparsight.deploy.ledger.records import Ledger
from sparsight.model.left_out import counted, lines
from sparsight.numerics import format as words
from sparsight.records.record import Evaluation, LevelRecord, LevelTimes, RunRecord, to_json
from sparsight.records.verdict import Verdict
from sparsight.report.ledger import section
from sparsight.report.pages import Cards, Code, Fold, Page, Section, Table, Tile, render
from sparsight.report.run_tables import decisions, ids, level_table
from sparsight.report.run_view import Story, name, story
from sparsight.report.sentences import findings, told
from sparsight.report.verdict import section as how_far

_MEANING = {
    "running": "The run had not ended when this page was made.",
    "interrupted": "The run was interrupted; it can be resumed.",
    "failed": "The run failed; the levels below were complete before.",
}


def page(
    run: RunRecord,
    levels: Sequence[LevelRecord],
    times: Sequence[LevelTimes],
    evaluation: Evaluation | None,
    ledger: Ledger | None = None,
    verdict: Verdict | None = None,
) -> str:
    """The report of a run as one HTML file, from nothing but its records, the network's ledger and a verdict.

    Equal records give equal bytes. Anything may be missing: levels, evaluation, times, control, accuracies
    (None or NaN); missing values show as "–". Names are escaped, and a content security policy blocks every
    request, and every script except the page's.
    """
    from sparsight.report import run_charts

    s = story(run, levels, times, evaluation)
    parts = [section(ledger), how_far(verdict)]
    if s.levels:
        parts += [run_charts.frontier(s), Section("levels", "All levels", "", [level_table(s)])]
        parts += [run_charts.layers(s, "density"), run_charts.layers(s, "pq"), run_charts.effort(s)]
        parts += [run_charts.stopping(s), run_charts.curves(s)]
    found = (*parts, decisions(s), _origin(s))
    about = (str(run.data.get("name", "")), str(run.model.get("type", run.model.get("name", ""))), f"seed {run.seed}")
    why = run.chosen.why if run.chosen and s.chosen else None
    notes = {"Why this level": why, "Why the run ended": run.why_ended}
    return render(
        Page(
            f"{run.recipe} on {run.data.get('name', 'unnamed data')}", "Sparsight · pruning report", run.recipe,
            [x for x in found if x is not None], about=" · ".join(filter(None, about)), told=told(s),
            tiles=list(_tiles(s)), notes=[f"{what}: {said.rstrip('.')}." for what, said in notes.items() if said],
            status=run.status, warnings=list(_warnings(s)),
        )
    )  # fmt: skip


def _warnings(s: Story) -> Iterator[str]:
    """What a reader must know before trusting the numbers."""
    if s.run.status != "finished":
        yield _MEANING[s.run.status]
    if s.run.chosen is not None and s.run.chosen.missed:
        yield f"Not what was asked for: {s.run.chosen.missed}."
    if s.run.left_out:
        yield f"Not prunable: {counted(s.run.left_out)}: {', '.join(lines(s.run.left_out))}."
    yield from (f"{x}." for x in findings(s))


def _tiles(s: Story) -> Iterator[Tile]:
    subject = s.chosen or (s.levels[-1] if s.levels else None)
    if subject is None:
        return
    others = [(label, x) for label, x in (("dense", s.dense), ("control", s.control)) if x and x is not subject]
    yield Tile("Density", words.percent(subject.density), [(f"{subject.kept:,} of {subject.total:,} weights", "")])
    yield Tile("Compression", words.compression(subject.kept, subject.total), [("all weights / kept", "")])
    for split, value in (("Validation", lambda x: x.value), ("Test", s.test_value)):
        if split == "Validation" or value(subject) is not None:
            beside = [(label, s.metric.text(value(x))) for label, x in others]
            yield Tile(f"{split} {s.metric.name}", s.metric.text(value(subject)), beside)


# -- origin of the run --------------------------------------------------------------------------------------------


def _origin(s: Story) -> Section:
    """Recipe, arguments, environment and ids: all that is needed to repeat the run."""
    run = s.run
    when = {"seed": run.seed, "status": run.status, "started": run.started, "ended": run.ended or words.NONE}
    when |= {"resumed": run.resumed, "keep": run.keep, "schema": run.schema}
    facts = {"The run": when, "Arguments": run.arguments, "Data": run.data, "Model": run.model}
    facts |= {"Environment": run.environment}
    cards = [Table(title, ("name", "value"), rows, words=(0, 1)) for title, of in facts.items() if (rows := _rows(of))]
    folds = [_source("The recipe as built", run.description)]
    if s.records:
        made = {name(x): x.operation for x in s.records}
        folds += [Fold("Content ids", [ids(s)]), _source("How each level was made", made)]
    command = [Code("Command", run.command)] if run.command else []
    return Section("origin", "How it was made", "", [*command, Cards(cards), *folds])


def _source(title: str, value: Any) -> Fold:
    return Fold(title, [Code(title, json.dumps(to_json(value), indent=2, ensure_ascii=False))])


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A mapping as rows of two columns; nested mappings get dotted names."""
    flat = _flat(to_json(values))
    return [(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for key, value in flat]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
