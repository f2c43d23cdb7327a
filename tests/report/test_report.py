"""The page of a run: what it says, what it escapes, and that it asks nobody for anything."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pages import HOSTILE, looked_at, needs_browser, read, specs, tab
from samples import MLP, Sample, deep, sample

from sparsight import report
from sparsight.numerics import format as words
from sparsight.report.charts import span
from sparsight.report.escape import shorten
from sparsight.report.pages import asset, vega
from sparsight.types import Scope


def drawn(s: Sample) -> str:
    return report.page(*s.page_arguments)


def hostile() -> Sample:
    network = tuple((f"{HOSTILE}{i}", shape) for i, (_, shape) in enumerate(MLP))
    s = sample(4, network=network, recipe=HOSTILE, data=HOSTILE, model=HOSTILE, scope="layer")
    run = replace(
        s.run, command=HOSTILE, why_ended=HOSTILE, environment={HOSTILE: HOSTILE}, arguments={HOSTILE: [HOSTILE]}
    )
    assert run.chosen is not None
    run = replace(run, chosen=replace(run.chosen, why=HOSTILE))
    levels = [replace(x, floors=(HOSTILE,), collapsed=(HOSTILE,)) for x in s.levels]
    seen = replace(levels[1].observations[-1], reason=HOSTILE, values={HOSTILE: 1.0})
    levels[1] = replace(levels[1], observations=(*levels[1].observations[:-1], seen))
    return replace(s, run=run, levels=tuple(levels))


def broken() -> Sample:
    """Everything that may be missing or not a number, at once; the last level has no weight left."""
    s = sample(6, evaluated=False, chosen=None)
    levels = list(s.levels)
    levels[1] = replace(levels[1], observations=())
    lost = replace(
        levels[2].observations[-1], train_loss=math.nan, validation_loss=math.inf, validation_accuracy=math.nan
    )
    levels[2] = replace(levels[2], observations=(lost,), pq=(math.nan, 0.1))
    unknown = replace(levels[3].observations[-1], train_loss=None, validation_loss=None, validation_accuracy=None)
    levels[3] = replace(levels[3], observations=(unknown,), pq_pairs=(), pq=())
    empty = tuple(replace(layer, kept=0) for layer in levels[5].layers)
    levels[5] = replace(levels[5], kept=0, layers=empty, collapsed=tuple(x.name for x in empty))
    run = replace(s.run, status="interrupted", ended=None, why_ended=None, command=None)
    return Sample(run, tuple(levels), s.times[:3], None)


SAMPLES = {
    "usual": sample,
    "sixty": lambda: sample(12, network=deep(60), scope="layer"),
    "neuron": lambda: sample(4, scope="neuron"),
    "one": lambda: sample(1, control=False),
    "none": lambda: sample(0),
    "hostile": hostile,
    "broken": broken,
    "bare": lambda: replace(sample(3, evaluated=False, control=False, chosen=None), times=()),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_page_is_well_formed_and_self_contained(kind: str) -> None:
    page = drawn(SAMPLES[kind]())
    seen = read(page)
    mine = page.partition("-->")[2].replace(vega(), "").replace(asset("page.js"), "")
    assert not re.search(r"https?://|@import|url\(", mine)
    assert not {"iframe", "img", "object", "embed", "form", "base"} & set(seen.tags)
    for name, spec in specs(page).items():
        assert "NaN" not in json.dumps(spec), name
        assert f"chart-{name}" in seen.ids


def test_names_are_escaped() -> None:
    page = drawn(hostile())
    assert "<script>alert" not in page
    shown = HOSTILE.replace("\u202e", "\\u202e")  # or what follows the name would read backwards
    assert html.escape(shown).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    told = "".join(read(page).words)
    assert told.count(shown) > 20
    assert "\u202e" not in page


def test_names_that_cannot_be_encoded() -> None:
    page = drawn(sample(2, recipe="lone \ud800 surrogate\x00\x1b"))
    assert "<h1>lone \\ud800 surrogate\\u0000\\u001b</h1>" in page
    assert page.encode("utf-8")


def test_equal_records_give_equal_bytes() -> None:
    assert drawn(sample()) == drawn(sample())


def test_level_table_shows_the_numbers_of_the_records() -> None:
    s = sample()
    rows = read(drawn(s)).rows["All levels"]
    assert s.evaluation is not None
    assert len(rows) == 1 + len(s.levels)
    for row, x, tested in zip(rows[1:], s.levels, s.evaluation.entries, strict=True):
        label = {"control": "dense control"}.get(x.role, str(x.level) + (" chosen" if x.level == 10 else ""))
        assert row == [
            label,
            words.percent(x.kept / x.total),
            f"{x.kept:,}",
            f"{x.total / x.kept:.1f}×",
            f"{x.pq[0]:.4f}",
            f"{x.epochs:.0f}",
            f"{100 * (x.validation_accuracy or 0):.2f} %",
            f"{100 * tested.test_accuracy:.2f} %",
            x.reason,
        ]


def test_every_chart_has_its_table() -> None:
    s = sample()
    rows = read(drawn(s)).rows
    density = rows["Density by layer and level"]
    assert [row[0] for row in density[1:]] == [name for name, _ in MLP]
    assert density[1][1:] == [words.percent(x.layers[0].density) for x in s.levels if x.role == "level"]
    assert rows["PQ index by layer and level"][2][4] == f"{s.levels[3].layers[1].pq[0]:.4f}"
    t = s.times[1]
    parts = (t.prune, t.train, t.validate, t.measure, t.store)
    effort = rows["Epochs and time by level"]
    assert effort[2][3:] == [words.duration(t) for t in (*parts, sum(parts))]
    assert len(rows["Training by level and epoch"]) == 1 + sum(len(x.observations) for x in s.levels)
    assert rows["Accuracy, loss and PQ index by level"][1][-2:] == ["0.1180", "0.0870"]


def test_points_stand_where_the_records_say() -> None:
    s = sample()
    ours = [x for x in s.levels if x.role == "level"]
    spec = specs(drawn(s))["frontier"]
    accuracy, loss, index = (
        [(p["x"], p["y"], p["series"]) for p in spec["datasets"]["lines"] if p["panel"] == i] for i in range(3)
    )
    assert accuracy[: len(ours)] == [(x.density, x.validation_accuracy, "validation") for x in ours]
    assert loss[: len(ours)] == [(x.density, x.validation_loss, "validation") for x in ours]
    assert [p[:2] for p in index[: len(ours)]] == [(x.density, x.pq[0]) for x in ours]
    low, high = spec["vconcat"][2]["layer"][3]["encoding"]["y"]["scale"]["domain"]
    assert all(low < y < high for _, y, _ in index)
    cells = specs(drawn(s))["layers-density"]["datasets"]["cells"]
    assert [c["value"] for c in cells[: len(ours)]] == [x.layers[0].density for x in ours]


def test_what_has_no_weight_left_stands_at_the_end() -> None:
    spec = specs(drawn(broken()))
    lines = spec["frontier"]["datasets"]["lines"]
    (empty,) = {p["x"] for p in lines if not p["alive"]}
    assert empty < min(p["x"] for p in lines if p["alive"])
    assert {c["column"] for c in spec["layers-density"]["datasets"]["cells"] if c["gone"]} == {"5"}


def test_allocator_decisions_by_scope() -> None:
    def rows(scope: Scope) -> dict[str, list[list[str]]]:
        return read(drawn(sample(3, scope=scope))).rows

    group = sample(3).levels[1].groups[0]
    first = rows("global")["What was decided at each level"][1]
    assert first[:3] == ["1", "global", "135,680"]
    assert first[5] == f"{group.c:,}"
    layers = rows("layer")["Level 2, by group"]
    assert [row[0] for row in layers[1:]] == [name for name, _ in MLP]
    record = sample(3, scope="neuron").levels[2]
    neurons = rows("neuron")["Level 2, rows of each tensor"]
    assert [row[:2] for row in neurons[1:]] == [[name, str(shape[0])] for name, shape in MLP]
    assert sum(int(row[6].replace(",", "")) for row in neurons[1:]) == sum(g.c for g in record.groups)


def test_warnings_name_collapse_floors_and_losses() -> None:
    told = "".join(read(drawn(broken())).words)
    assert "The run was interrupted; it can be resumed." in told
    assert "Level 5: no weight is left in 'fc1.weight', 'fc2.weight', 'fc3.weight'." in told
    assert "Level 2: the loss was not a finite number." in told
    s = sample(3)
    levels = (s.levels[0], replace(s.levels[1], floors=tuple(f"fc1.weight[{i}]" for i in range(9))), *s.levels[2:])
    told = "".join(read(report.page(s.run, levels, s.times, s.evaluation)).words)
    assert "min_keep changed what was removed in 'fc1.weight[0]'" in told
    assert "and 5 more." in told
    assert 'class="warnings"' not in drawn(sample())


@pytest.mark.parametrize("values", [[], [0.5], [0.2, 0.3], [0.0, 1.0], [float("nan"), 0.9], [1.0]])
def test_an_axis_holds_its_values_and_stays_inside(values: list[float]) -> None:
    low, high = span(values, 0.02, 0.0, 1.0)
    assert 0.0 <= low < high <= 1.0
    assert high - low >= 0.0099
    assert all(low <= v <= high for v in values if v == v)


def test_long_names_keep_both_ends() -> None:
    name = "encoder.layers.11.attention.output.dense.weight"
    assert shorten(name, 60) == name
    short = shorten(name, 20)
    assert len(short) == 20
    assert name.startswith(short.split("…")[0])
    assert name.endswith(short.split("…")[1])


# -- in a browser ------------------------------------------------------------------------------------------------


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("kind", ["usual", "hostile", "broken"])
def test_page_in_a_browser(kind: str, tmp_path: Path) -> None:
    """Charts are drawn with no message on the console and no request; names stay text."""
    page = tmp_path / "report.html"
    page.write_text(drawn(SAMPLES[kind]()), encoding="utf-8")
    text = looked_at(page, tmp_path, dark=kind == "broken")
    assert "How far it goes" in text
    if kind == "hostile":
        assert '<script>alert("1")</script>&amp; \'ü\\u202e漢字' in text


@pytest.mark.browser
@needs_browser
def test_page_without_scripts(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(drawn(sample()), encoding="utf-8")
    text = looked_at(page, tmp_path, scripts=False)
    assert "The charts of this page need scripts." in text
    assert "These numbers as a table" in text
    assert "10 chosen" in text


@pytest.mark.browser
@needs_browser
def test_a_level_is_told_where_the_pointer_is_near(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(drawn(sample()), encoding="utf-8")
    with tab(tmp_path) as shown:
        shown.open(page)
        assert shown.run("document.querySelectorAll('#chart-frontier svg').length") == 1
        x, y, *_ = shown.box("#chart-frontier svg")
        shown.mouse((x + 80, y + 150), (x + 75, y + 150))
        shown.until("document.querySelector('#vg-tooltip-element.visible')")
        told = shown.run("document.querySelector('#vg-tooltip-element').innerText")
        assert "level 0" in told
        assert "88.30 %" in told
        wide = shown.run("document.querySelector('#chart-frontier svg').clientWidth")
        shown.resize(400, 800)
        shown.until(f"document.querySelector('#chart-frontier svg').clientWidth < {wide} - 500")
        assert shown.run("document.documentElement.scrollWidth") == 400
        assert shown.console == []


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("<main>", "<main><script>window.bad = 1</script>"), "Content Security Policy"),
        (("<main>", '<main><img src="http://pictures.invalid/a.png">'), "Content Security Policy"),
        (("ast: true", "ast: false"), "Content Security Policy"),
    ],
)
def test_the_browser_check_can_fail(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    """Another script, a request, and expressions that are compiled are each told from a page as it is."""
    page = tmp_path / "bad.html"
    page.write_text(drawn(sample(2)).replace(*change), encoding="utf-8")
    with tab(tmp_path) as shown:
        shown.open(page, drawn=False)
        shown.until("document.readyState === 'complete'")
        assert any(said in line for line in shown.console)
        assert shown.run("window.bad === undefined")
