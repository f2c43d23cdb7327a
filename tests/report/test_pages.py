"""What all pages share: escaping, the policy, the bundle and its cache, colours, pictures without a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import torch
from jsonschema import ValidationError
from pages import HOSTILE, read, specs
from samples import sample

from sparsight import report
from sparsight.report import pages
from sparsight.report.charts import named, spec
from sparsight.report.pages import Cards, Chart, Code, Fold, Page, Section, Table, Tile, render
from sparsight.report.theme import CSS, DIVERGING, RAMP, SERIES, config


def points(name: str = "points", title: str = "What is seen") -> Chart:
    drawn = named("points").mark_point().encode(x="x:Q", y="y:Q", color="of:N").properties(width="container")
    rows = [{"x": 1, "y": float("nan"), "of": "b"}, {"x": 2, "y": 3.0, "of": HOSTILE}]
    return Chart(name, title, spec(drawn, points=rows), Table("The points", ("x", "y"), [("1", "–"), ("2", "3")]))


def everything(word: str) -> Page:
    table = Table(word, (word, word), [(word, word)], words=(0,), marked={0: "chosen"})
    parts = [word, table, Fold(word, [word, table]), Code(word, word), Cards([table, table]), points(title=word)]
    return Page(
        word, word, word, [Section("one", word, word, parts)], about=word, told=word, status="running",
        tiles=[Tile(word, word, [(word, word)])], notes=[word], warnings=[f"{i} {word}" for i in range(8)],
    )  # fmt: skip


def test_every_string_is_escaped_and_turns_nothing_around():
    text = render(everything(HOSTILE))
    assert "<script>alert" not in text
    assert "\u202e" not in text
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert "".join(read(text).words).count(shown) > 25
    (found,) = specs(text).values()
    assert found["datasets"]["points"] == [{"x": 1, "y": None, "of": "b"}, {"x": 2, "y": 3.0, "of": shown}]


def test_text_of_any_kind_can_be_encoded():
    assert render(everything("lone \ud800 surrogate\x00\x1b</script><!--")).encode("utf-8")


def test_the_policy_names_every_script_and_nothing_else():
    text = render(everything("a"), scripts=['"mine";'])
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 3
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(x.encode()).digest()).decode()}'" for x in scripts)
    assert html.unescape(policy) == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {digests}; img-src data:"
    )
    assert "University of Washington Interactive Data Lab" in text.split("<style>")[0]


def test_equal_pages_give_equal_bytes_whatever_was_drawn_before():
    first = points().spec
    hover = alt.selection_point("hover")
    for _ in range(3):
        spec(alt.vconcat(named("a").mark_point().add_params(hover)))
    assert str(points().spec) == str(first)
    one = report.page(*sample(3).page_arguments)
    report.page(*sample(5).page_arguments)
    assert report.page(*sample(3).page_arguments) == one


def test_specs_keep_to_the_schema_of_vega_lite():
    from sparsight.analysis import analyze
    from sparsight.analysis.page import page

    texts = [report.page(*sample(4, scope="layer").page_arguments), page(analyze({"a.weight": torch.eye(5)}, eta=0.1))]
    for found in (x for text in texts for x in specs(text).values()):
        assert alt.Chart.from_dict(found, validate=True).to_dict()
    with pytest.raises(ValidationError):
        alt.Chart.from_dict({**points().spec, "mark": "blob"}, validate=True)


# -- the bundle ------------------------------------------------------------------------------------------------------


BUNDLE = "(() => {a <\\/script> b\n\n})();"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = pages.vega()
    monkeypatch.setattr(pages, "user_cache_dir", lambda *_, **__: str(tmp_path / "new" / "cache"))
    made = []
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: made.append(1) or "a </script> b\n")
    pages.vega.cache_clear()
    yield tmp_path / "new" / "cache", made
    pages.vega.cache_clear()
    monkeypatch.undo()
    assert pages.vega() == script


def test_the_bundle_is_made_once_and_kept(cache):
    folder, made = cache
    assert pages.vega() == BUNDLE
    (kept,) = folder.iterdir()
    pages.vega.cache_clear()
    assert pages.vega() == BUNDLE
    assert made == [1]
    kept.write_text(kept.read_text()[:-3])
    pages.vega.cache_clear()
    assert pages.vega() == BUNDLE
    assert made == [1, 1], "a bundle that is cut short is made again"
    assert [*folder.iterdir()] == [kept]


def test_two_at_once_keep_one_whole_bundle(cache):
    folder, _ = cache
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: pages.vega.__wrapped__(), range(8))]
    assert set(found) == {BUNDLE}
    assert len([*folder.iterdir()]) == 1


def test_without_a_cache_folder_the_page_is_made_all_the_same(cache, tmp_path):
    folder, made = cache
    folder.parent.write_text("no folder")
    assert pages.vega()
    assert made == [1]


@pytest.mark.parametrize(
    "command", ["import sparsight.cli.entry as e; e.main(['show', '--help'])", "import sparsight.report"]
)
def test_nothing_is_loaded_before_a_page_is_made(command):
    code = (
        f"{command}\nimport sys; print(sorted({{'altair', 'vl_convert', 'jinja2.ext', 'pandas'}} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- colours and pictures ----------------------------------------------------------------------------------------------

# Simulation of protanopia, deuteranopia and tritanopia in linear RGB: Machado, Oliveira and Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15 (2009), severity 1.0.
SIGHT = {
    "usual": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, sight: str) -> np.ndarray:
    """CIELAB under D65 as such eyes see it."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", CSS)
def test_series_stay_apart_for_every_eye(mode, sight):
    seen = [lab(colour, sight) for colour in SERIES[mode]]
    for (i, a), (j, b) in itertools.combinations(enumerate(seen), 2):
        assert np.linalg.norm(a - b) > 10, (SERIES[mode][i], SERIES[mode][j])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", CSS)
def test_ramps_go_one_way_and_the_diverging_one_two(mode, sight):
    light = [lab(colour, sight)[0] for colour in RAMP[mode]]
    assert light in (sorted(light), sorted(light, reverse=True))
    low, *_, high = (lab(colour, sight) for colour in DIVERGING[mode])
    assert np.linalg.norm(low - high) > 30


def test_a_picture_needs_no_browser():
    svg = ElementTree.fromstring(pages.drawn(points().spec, 300))
    assert svg.tag.endswith("svg")
    text = "".join(svg.itertext())
    assert HOSTILE.replace("\u202e", "\\u202e") in text
    assert json.dumps(config("dark"))
