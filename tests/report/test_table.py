"""The table of a run, and its summary."""

import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console
from samples import sample

from sparsight import report
from sparsight.numerics import format as words
from sparsight.records.record import Choice
from sparsight.report.table import stacked
from sparsight.train.metric import Metric
from sparsight.train.observation import Observation


def test_summary_speaks_of_chosen_dense_and_control() -> None:
    s = sample()
    levels = list(s.levels)
    for i, (record, value) in enumerate(zip(levels, [0.883] * 10 + [0.881, 0.889], strict=True)):
        seen = (*record.observations[:-1], replace(record.observations[-1], validation_accuracy=value))
        levels[i] = replace(record, observations=seen)
    levels[10] = replace(levels[10], kept=12334)
    assert s.evaluation is not None
    tests = {("level", 10): 0.875, ("level", 0): 0.879, ("control", 0): 0.889}
    entries = tuple(replace(e, test_accuracy=tests.get((e.role, e.level), 0.5)) for e in s.evaluation.entries)
    assert report.summary(s.run, levels, replace(s.evaluation, entries=entries)) == (
        "Level 10 keeps 9.1 % of 135,680 weights (11.0×) at 88.1 % validation accuracy, 0.2 points below dense "
        "(88.3 %). Test accuracy: 87.5 % against 87.9 % dense and 88.9 % for the dense control (33 epochs)."
    )


@pytest.mark.parametrize(
    ("mine", "dense", "text"),
    [
        (0.8830, 0.8830, "88.3 % validation accuracy, as dense (88.3 %)"),
        (0.8860, 0.8830, "88.6 % validation accuracy, 0.3 points above dense (88.3 %)"),
        (0.8814, 0.8826, "88.14 % validation accuracy, 0.12 points below dense (88.26 %)"),
    ],
)
def test_summary_differences_agree_with_what_is_shown(mine: float, dense: float, text: str) -> None:
    s = sample(2, evaluated=False, control=False, chosen=1)
    levels = [
        replace(x, observations=(replace(x.observations[-1], validation_accuracy=v),))
        for x, v in zip(s.levels, (dense, mine), strict=True)
    ]
    assert text in report.summary(s.run, levels, None)


def test_summary_says_what_is_missing() -> None:
    none = sample(0)
    assert report.summary(none.run, none.levels, None) == "No level has been trained yet."
    s = sample(4, evaluated=False, control=False, chosen=None)
    text = report.summary(replace(s.run, status="interrupted"), s.levels, None)
    assert text.startswith("No level has been chosen; level 3 is the last. Level 3 keeps 48.6 %")
    assert text.endswith("The run was interrupted after level 3.")
    assert "Test" not in text
    one = sample(1, evaluated=False)
    assert "is the dense network: it keeps all 135,680 weights" in report.summary(one.run, one.levels, None)
    assert "dense control (3 epochs) reaches 88.9 % validation" in report.summary(one.run, one.levels, None)


def test_json_holds_the_recorded_numbers() -> None:
    s = sample()
    assert s.evaluation is not None
    told = json.loads(report.table(s.run, s.levels, s.evaluation, format="json"))
    assert [row["level"] for row in told["rows"]] == [x.level for x in s.levels]
    for row, record, entry in zip(told["rows"], s.levels, s.evaluation.entries, strict=True):
        assert row["density"] == record.kept / record.total
        assert row["pq_index"] == record.pq[0]
        assert row["validation_accuracy"] == record.validation_accuracy
        assert row["test_accuracy"] == entry.test_accuracy
        assert row["epochs"] == record.epochs
    assert [row["level"] for row in told["rows"] if row["chosen"]] == [10]
    assert told["rows"][-1]["role"] == "control"


def test_json_spells_numbers_that_json_lacks() -> None:
    s = sample(2, evaluated=False, control=False, chosen=None)
    broken = replace(s.levels[1].observations[-1], validation_accuracy=math.nan)
    levels = (s.levels[0], replace(s.levels[1], kept=0, observations=(broken,)))
    row = json.loads(report.table(s.run, levels, None, format="json"))["rows"][1]
    assert (row["validation_accuracy"], row["compression"], row["density"]) == ("nan", "inf", 0.0)


def test_text_table_is_aligned_and_marks_the_chosen_level() -> None:
    s = sample()
    lines = report.table(s.run, s.levels, s.evaluation).splitlines()
    assert lines[1].split() == ["level", "density", "(1,", "2)", "epochs", "accuracy", "accuracy"]
    assert lines[0].split() == ["PQ", "index", "validation", "test"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert [line for line in lines[:-1] if "*" in line] == [line for line in lines if line.strip().startswith("* 10")]
    assert lines[-2].split()[0] == "control"
    assert lines[-2].split()[1:] == ["100", "%", "0.1713", "33", "88.94", "%", "88.44", "%"]
    assert "\x1b" not in "\n".join(lines)


def test_text_table_without_tests_has_no_such_column() -> None:
    s = sample(evaluated=False)
    assert "test" not in report.table(s.run, s.levels, None).splitlines()[0]


def test_test_accuracy_of_another_network_is_not_shown() -> None:
    s = sample(2)
    assert s.evaluation is not None
    entries = (s.evaluation.entries[0], replace(s.evaluation.entries[1], id="other"), s.evaluation.entries[2])
    rows = json.loads(report.table(s.run, s.levels, replace(s.evaluation, entries=entries), format="json"))["rows"]
    assert [row["test_accuracy"] is None for row in rows] == [False, True, False]


def test_markdown_has_as_many_cells_in_every_row() -> None:
    s = sample()
    lines = report.table(s.run, s.levels, s.evaluation, format="markdown").split("\n\n")[0].splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert len(lines) == 2 + len(s.levels)


def test_names_cannot_steer_the_terminal() -> None:
    s = sample(2)
    run = replace(s.run, chosen=Choice(1, s.levels[1].id, "\x1b[31mred[/bold]\nnext"))
    assert "\x1b" not in report.table(run, s.levels, None)
    console = Console(width=120, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(report.rich_table(run, s.levels, None))
    assert "red[/bold] next" in console.export_text()


def test_rich_table_shows_the_same_cells() -> None:
    s = sample()
    drawn = report.rich_table(s.run, s.levels, s.evaluation)
    first = [str(cell) for cell in drawn.columns[0].cells]
    assert first == [*map(str, range(10)), "* 10", "control"]
    assert str(list(drawn.columns[1].cells)[10]) == words.percent(s.levels[10].density)


def test_unknown_format_is_refused() -> None:
    s = sample(1)
    with pytest.raises(ValueError, match="unknown format 'html', expected one of 'text', 'markdown', 'json', 'csv'"):
        report.table(s.run, s.levels, None, format="html")  # type: ignore[arg-type]


NAMES = ("accuracy", "perplexity", "mean_average_precision", "a metric of many words", "R2", "intersection_over_union")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("large", [False, True])
def test_tables_fit_80_columns_and_cut_no_word_or_number(name: str, large: bool) -> None:
    """Plain and for a terminal of 80 columns; with the largest numbers that there are too."""
    s = sample(12)
    metric = Metric(name, share=name == "accuracy")
    values = [0.123456 * 10.0**k for k in range(-8, 5)] if large else [0.5] * 13
    levels = [
        replace(x, metric=metric, kept=max(1, x.kept // 10**k), epochs=1234.5, observations=(
            Observation(1.0, 1, validation_accuracy=v, metrics={name: v}),
        ))
        for k, (x, v) in enumerate(zip(s.levels, values, strict=True))
    ]  # fmt: skip
    assert s.evaluation is not None
    entries = tuple(replace(e, metrics={name: 0.98765}) for e in s.evaluation.entries)
    parts = s.run, levels, replace(s.evaluation, entries=entries)
    plain = report.table(*parts).splitlines()[:-1]
    assert max(map(len, plain)) <= 80
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(report.rich_table(*parts))
    drawn = console.file.getvalue()
    assert "\u2026" not in drawn
    assert max(map(len, drawn.splitlines())) <= 80
    rows = json.loads(report.table(*parts, format="json"))["rows"]
    for text in ("\n".join(plain), drawn):
        for word in re.findall(r"[^ _]+", name):
            assert text.count(word) >= 2
        assert all(metric.text(x.value) in text and words.percent(x.density) in text for x in levels)
    assert len(rows) == len(levels)


@pytest.mark.parametrize(
    ("headings", "lines"),
    [
        (["level", "validation accuracy"], [["", "level"], ["validation", "accuracy"]]),
        (["PQ index (0.5, 1)", "epochs"], [["PQ index", "(0.5, 1)"], ["", "epochs"]]),
        (["level", "epochs"], [["level"], ["epochs"]]),
        (["mean_average_precision"], [["mean_", "average_", "precision"]]),
        (["unbreakableword"], [["unbreakableword"]]),
    ],
)
def test_headings_are_stacked_between_words(headings: list[str], lines: list[list[str]]) -> None:
    assert stacked(headings) == lines
