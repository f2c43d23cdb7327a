"""The page of a run: what it says, what it escapes, and that it asks nobody for anything."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pages import HOSTILE, browse, needs_browser, read, requests
from samples import MLP, Sample, deep, sample

from sparsight import report
from sparsight.report import charts, svg
from sparsight.report import format as words
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
    assert not re.search(r"https?://|@import|url\((?!#gone\))", page)
    assert seen.tags.count("script") == 1
    assert not {"iframe", "img", "object", "embed", "form", "base"} & set(seen.tags)
    for match in re.findall(r'[ "](?:x|y|x1|x2|y1|y2|cx|cy|r|width|height|d|viewBox)="([^"]*)"', page):
        assert "nan" not in match, match
        assert "inf" not in match, match


def test_names_are_escaped() -> None:
    page = drawn(hostile())
    assert "<script>alert" not in page
    shown = HOSTILE.replace("\u202e", "\\u202e")  # or what follows the name would read backwards
    assert html.escape(shown) in page
    told = "".join(read(page).words)
    assert told.count(shown) > 20
    assert "\u202e" not in page


def test_names_that_cannot_be_encoded() -> None:
    page = drawn(sample(2, recipe="lone \ud800 surrogate\x00\x1b"))
    assert "<h1>lone \\ud800 surrogate\\u0000\\u001b</h1>" in page
    assert page.encode("utf-8")


def test_equal_records_give_equal_bytes() -> None:
    assert drawn(sample()) == drawn(sample())


def test_policy_allows_our_script_alone() -> None:
    page = drawn(sample(1))
    assert "default-src &#x27;none&#x27;" in page
    assert "script-src &#x27;sha256-" in page


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
    """The picture, read back: markers of the first PQ pair against its own axis ticks."""
    s = sample()
    ours = [x for x in s.levels if x.role == "level"]
    wide = drawn(s).split('id="frontier-metric-wide-title"')[1].split("</svg>")[0]
    spots = [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4" class="dot c3"', wide)
    ]
    assert len(spots) == len(ours)
    (x0, y0), (x1, y1) = spots[0], spots[-1]
    for (x, y), record in zip(spots, ours, strict=True):
        along = math.log(record.density) / math.log(ours[-1].density)
        up = (record.pq[0] - ours[0].pq[0]) / (ours[-1].pq[0] - ours[0].pq[0])
        assert x == pytest.approx(x0 + along * (x1 - x0), abs=0.2)
        assert y == pytest.approx(y0 + up * (y1 - y0), abs=0.2)
    assert x1 > x0
    assert y1 < y0


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


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 1.0), (0.8731, 0.8912), (1e-6, 3e-6), (0.0, 12345.0), (0.1, 0.9)])
def test_ticks_are_round_and_inside(lo: float, hi: float) -> None:
    found = svg.ticks(lo, hi, 5)
    assert 2 <= len(found) <= 7
    assert lo - 1e-12 <= found[0] < found[-1] <= hi + 1e-12
    step = found[1] - found[0]
    assert f"{step:.1e}"[:3] in ("1.0", "2.0", "5.0")
    assert len(set(svg.spelled(found))) == len(found)


@pytest.mark.parametrize("lo", [0.5, 0.09, 0.004, 2.5e-4, 1e-7])
@pytest.mark.parametrize("most", [4, 6, 12])
def test_log_ticks(lo: float, most: int) -> None:
    labelled, minor = svg.log_ticks(lo, 1.0, most)
    assert 1 <= len(labelled) <= most
    assert not set(labelled) & set(minor)
    assert all(lo * 0.999 <= v <= 1.001 for v in labelled + minor)
    assert all(f"{v:e}"[0] in "125" and float(f"{v:.0e}") == v for v in labelled)


def test_long_names_keep_both_ends() -> None:
    name = "encoder.layers.11.attention.output.dense.weight"
    assert charts.shorten(name, 60) == name
    short = charts.shorten(name, 20)
    assert len(short) == 20
    assert name.startswith(short.split("…")[0])
    assert name.endswith(short.split("…")[1])


# -- in a browser ------------------------------------------------------------------------------------------------


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("kind", ["usual", "hostile", "broken"])
def test_page_in_a_browser(kind: str, tmp_path: Path) -> None:
    """Renders, with no message on the console and no request; and the script has run."""
    page, log = tmp_path / "report.html", tmp_path / "net.json"
    page.write_text(drawn(SAMPLES[kind]()), encoding="utf-8")
    done = browse(page, tmp_path, f"--log-net-log={log}", "--dump-dom")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert requests(log) == []
    assert "data-tip=" in done.stdout
    assert "<svg" in done.stdout


@pytest.mark.browser
@needs_browser
def test_the_browser_check_can_fail(tmp_path: Path) -> None:
    """A page that complains on the console and asks for a picture is told from one that does not."""
    page, log = tmp_path / "bad.html", tmp_path / "net.json"
    bad = "<img src='http://pictures.invalid/a.png'><script>console.error('so it is seen')</script>"
    page.write_text(bad, encoding="utf-8")
    done = browse(page, tmp_path, f"--log-net-log={log}", "--dump-dom")
    assert any("CONSOLE" in line and "so it is seen" in line for line in done.stderr.splitlines())
    assert "http://pictures.invalid/a.png" in requests(log)
