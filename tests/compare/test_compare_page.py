"""`sparsight compare`: what is gathered, what the page says, and the page driven as a reader drives it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from pages import HOSTILE, Tab, looked_at, needs_browser, read, tab
from samples import sample
from synthetic import write_runs

from sparsight.cli.entry import main
from sparsight.compare import Candidate, fronts
from sparsight.compare.gather import Column, gather
from sparsight.compare.page import page
from sparsight.compare.text import spelled, text
from sparsight.records.folder import RunFolder
from sparsight.records.trials import Shared, Trial, remember


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_runs(tmp_path_factory.mktemp("runs"), 40)


def data(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


# -- gathering ---------------------------------------------------------------------------------------------------------


def test_networks_have_what_differs_and_the_rest_is_said_once(runs):
    found = gather(runs)
    names = [c.name for c in found.columns]
    assert len(found.networks) == 80
    assert {"run", "recipe", "seed", "rate", "density", "test accuracy", "validation accuracy"} <= {*names}
    assert found.same["scope"] == "global"
    assert found.same["data"] == "fashion-mnist"
    assert not {"scope", "data", "epochs"} & {*names}
    first = next(n for n in found.networks if n.key.endswith("sap-0000 level 1"))
    assert (first.setting, first.group, first.name) == ("sap, rate 0.2, level 1", "sap, rate 0.2", "sap-0000, level 1")
    assert first.values["density"] == pytest.approx(0.8, abs=0.01)
    assert first.values["chosen"] == "yes"
    assert first.values["made by"] == f"SAP to {100 * first.values['density']:.4g} %, rewind, 3 epochs"
    assert first.parent == next(n.id for n in found.networks if n.key.endswith("sap-0000 level 0"))
    again = next(n for n in found.networks if n.key.endswith("sap-0020 level 1"))
    assert (again.setting, again.values["seed"]) == (first.setting, 1)


def test_names_in_a_study_are_its_labels_and_what_tells_runs_apart(tmp_path):
    """Two models, two densities that settle the rate; a run folder's name serves only where these are not enough."""
    trials = [
        Trial(
            "lottery", {"rate": rate, "target_density": density}, seed, "zoo:small" if i else "linear", "digits", "IMP"
        )
        for seed in (0, 1)
        for i, (rate, density) in enumerate([(0.5, 0.5), (0.5, 0.5), (0.75, 0.25)])
    ]
    remember(trials, tmp_path, Shared())
    for trial in trials:
        s = sample(2, rate=trial.arguments["rate"], recipe=trial.recipe, control=False)
        run = replace(s.run, seed=trial.seed, arguments=trial.arguments, model={"spec": trial.model})
        with RunFolder.create(tmp_path / "trials" / trial.key, run) as folder:
            folder._write_levels(s.levels)
    paths = [tmp_path / "trials" / trial.key for trial in trials]
    found = [n for n in gather(paths).networks if n.values["level"] == 1]
    assert found[2].name == "IMP, small, density 0.25, seed 0, level 1"
    assert [n.group for n in found] == ["IMP, linear", "IMP, small", "IMP, small"] * 2
    assert len({n.setting for n in found}) == 3
    shutil.copytree(paths[0], tmp_path / "trials" / "again")
    twice = gather([*paths, paths[0].parent / "again"]).networks
    assert len({n.name for n in twice}) == len(twice)


@pytest.mark.parametrize("others", [{}, {"density": 0.1}])
def test_an_argument_with_the_name_of_a_fact_does_not_replace_it(tmp_path, others):
    found = gather([*write_runs(tmp_path / "a", 1, density=0.1), *write_runs(tmp_path / "b", 1, **others)])
    assert found.networks[0].values["density"] == 1.0
    assert len({n.values["density"] for n in found.networks}) > 1
    told = [found.same.get("argument density", n.values.get("argument density")) for n in found.networks]
    assert {*told} == ({0.1} if others else {0.1, ""})


def test_only_what_is_chosen_and_what_it_came_from(runs, tmp_path):
    found = gather(write_runs(tmp_path, 8, levels=5), "chosen")
    assert len(found.networks) == 8 + 4, "runs of one recipe and seed share their dense network"
    assert found.left_out == 8 * 5 - 12
    ids = {n.id for n in found.networks}
    assert all(n.parent in ids for n in found.networks if n.values["chosen"])
    assert {Path(n.run).parent for n in found.networks} == {tmp_path}
    assert len(data(page(found))["rows"]) == 12
    with pytest.raises(FileNotFoundError):
        gather([tmp_path / "nothing"])
    assert gather([]).networks == ()


def test_values_are_spelled_by_kind():
    assert spelled(Column("density", "share"), 0.1) == "10.0 %"
    assert spelled(Column("ece", "share"), 0.0123) == "1.23 %"
    assert spelled(Column("packed bytes", "bytes"), 52_700.0) == "52.7 kB"
    assert spelled(Column("seed", "count"), 3) == "3"
    assert spelled(Column("mce", "number"), float("nan")) == "nan"
    assert spelled(Column("mce", "number"), None) == "–"
    assert spelled(Column("recipe"), None) == ""


# -- the command -------------------------------------------------------------------------------------------------------


def test_command(runs, tmp_path, capsys):
    out, rows = tmp_path / "page.html", tmp_path / "rows.csv"
    assert main(["compare", *map(str, runs[:3]), "-o", str(out), "--csv", str(rows)]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines()[:-2])) <= 80
    assert "sap-0000" in told
    assert "3 networks (3 more networks in --csv, --json and the page)" in told
    assert rows.read_text().splitlines()[0].startswith("key,id,parent,made,run,label,recipe")
    assert len(rows.read_text().splitlines()) == 7
    assert len(read(out.read_text()).rows["Networks"]) == 7
    assert main(["compare", str(runs[0]), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["networks"]) == 2
    assert main(["compare", str(tmp_path)]) == 2
    assert "neither a run folder nor a study folder" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), "--parquet", "rows.csv"]) == 2
    parquet = tmp_path / "rows.parquet"
    assert main(["compare", *map(str, runs), "--parquet", str(parquet)]) == 0
    import pandas

    assert len(pandas.read_parquet(parquet)) == 80


def test_text_of_one_network_and_of_none_chosen(runs):
    assert "1 network (1 more network" in text(gather(runs[:1]))


def test_a_page_of_names_that_mean_harm(tmp_path):
    found = gather(write_runs(tmp_path, 2, word=HOSTILE))
    made = page(found)
    assert "<script>alert" not in made
    assert "\u202e" not in made
    read(made)
    names = {part for of in data(made)["parts"].values() for part in of["names"]}
    assert all(name.endswith(HOSTILE.replace("\u202e", "\\u202e")) for name in names)


def test_the_page_has_every_number(runs):
    found, made = gather(runs), page(gather(runs))
    values = data(made)
    assert [c["name"] for c in values["columns"]] == [c.name for c in found.columns]
    assert len(values["rows"]) == len(read(made).rows["Networks"]) - 1 == 80
    at = [c.name for c in found.columns].index("density")
    assert [row[at] for row in values["rows"]] == [n.values["density"] for n in found.networks]
    assert page(gather(runs)) == made


def test_comparing_loads_no_chart_library_for_its_table(runs):
    code = (
        f"import sys; from sparsight.cli.entry import main; main(['compare', {str(runs[0])!r}])\n"
        "print(sorted({'altair', 'vl_convert'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- in a browser ------------------------------------------------------------------------------------------------------

ROWS = "[...document.querySelectorAll('#table tbody tr:not([hidden])')]"


@pytest.fixture(scope="module")
def shown(runs, tmp_path_factory):
    """The page, open in one browser for all tests; none may leave a word on the console, or ask for anything."""
    where = tmp_path_factory.mktemp("page")
    (where / "compare.html").write_text(page(gather(runs)), encoding="utf-8")
    with tab(where) as found:
        found.page = where / "compare.html"
        found.open(found.page)
        yield found
        assert found.console == []
        assert found.asked == []


def state(shown: Tab) -> dict[str, str]:
    return dict(shown.run("[...new URLSearchParams(location.hash.slice(1))]"))


def fresh(shown: Tab) -> None:
    shown.click("#clear")
    shown.until(f"{ROWS}.length === 80")


@pytest.mark.browser
@needs_browser
def test_sort_says_so_and_is_kept(shown):
    head = "#table thead th:nth-child({})"
    at = shown.run("[...document.querySelectorAll('#table thead th')].findIndex(x => x.textContent === 'density') + 1")
    values = f"{ROWS}.map(x => parseFloat(x.cells[{at - 1}].textContent))"
    for turn, (said, order) in enumerate([("ascending", 1), ("descending", -1)]):
        shown.click(f"{head.format(at)} button")
        assert shown.run(f"document.querySelector('{head.format(at)}').ariaSort") == said
        found = shown.run(values)
        assert found == sorted(found, reverse=order < 0)
        assert state(shown)["sort"] == f"{at - 1}{'-' if turn else '+'}"
    shown.click(f"{head.format(at)} button")
    assert "sort" not in state(shown)


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("worth", ["test accuracy", "validation loss"])
def test_behind_on_the_page_is_behind_in_python(tmp_path, worth):
    """Of 5 seeds, with accuracies that some settings share, and of costs that lie in two orders."""
    found = gather(write_runs(tmp_path, 100))
    (tmp_path / "compare.html").write_text(page(found), encoding="utf-8")
    names = [c.name for c in found.columns]
    with tab(tmp_path) as shown:
        shown.open(tmp_path / "compare.html", place=f"#axes={names.index('density')},{names.index(worth)}")
        shown.until("charts.scatter")
        drawn = shown.run("charts.scatter.view.data('means').map(({setting, behind}) => [setting, behind])")
    settings: dict[str, dict[int, tuple[float, float]]] = {}
    for n in found.networks:
        sign = 1 if worth == "test accuracy" else -1
        settings.setdefault(n.setting, {})[n.values["seed"]] = (n.values["density"], sign * n.values[worth])
    candidates = [
        Candidate(name, fmean(x for x, _ in of.values()), {seed: y for seed, (_, y) in of.items()})
        for name, of in settings.items()
    ]
    places = fronts(candidates)
    assert dict(drawn) == {name: place == "behind" for name, place in places.items()}
    assert 0 < sum(place == "behind" for place in places.values()) < len(places)


@pytest.mark.browser
@needs_browser
def test_filter_by_words_and_by_numbers(shown):
    shown.click("#filter")
    shown.write("lottery density<0.5 level=1")
    shown.until(f"{ROWS}.length === 6")
    assert all("lottery" in x for x in shown.run(f"{ROWS}.map(x => x.cells[0].textContent)"))
    assert shown.run("document.getElementById('count').textContent") == "6 of 80 networks"
    assert state(shown)["filter"] == "lottery density<0.5 level=1"
    fresh(shown)


@pytest.mark.browser
@needs_browser
def test_a_brush_chooses_rows_and_nodes(shown):
    x, y, width, height = shown.box("#chart-scatter svg")
    shown.mouse((x + 70, y + 10), (x + 200, y + 100), (x + width / 2, y + height - 60), press=True)
    shown.until(f"{ROWS}.length < 80 && {ROWS}.length > 0")
    left, right, *_ = (float(v) for v in state(shown)["brush"].split(","))
    at = shown.run("[...document.querySelectorAll('#table thead th')].findIndex(x => x.textContent === 'density')")
    found = shown.run(f"{ROWS}.map(x => parseFloat(x.cells[{at}].textContent))")
    low, high = sorted((100 * left, 100 * right))
    assert all(low - 0.1 <= v <= high + 0.1 for v in found)
    assert len(found) == int(shown.run("document.getElementById('count').textContent").split()[0])
    fresh(shown)


@pytest.mark.browser
@needs_browser
def test_picked_networks_stand_side_by_side_and_the_link_keeps_them(shown):
    for row in (1, 2, 4):
        shown.click(f"#table tbody tr:nth-child({row}) input")
    shown.until("document.querySelectorAll('#details figure svg').length === 2")
    told = shown.run("document.querySelector('#details table').innerText")
    assert "density" in told
    assert "points)" in told
    assert shown.run("document.querySelectorAll('#details td.better').length") > 2
    link = state(shown)["picked"]
    shown.open(shown.page, place=f"#picked={link}&filter=sap")
    shown.until(
        "document.documentElement?.dataset.drawn && document.querySelectorAll('#details figure svg').length === 2"
    )
    assert shown.run("document.querySelectorAll('#table tr.picked').length") == 3
    assert shown.run("document.getElementById('filter').value") == "sap"
    shown.box("#chart-tree")
    shown.until("document.querySelector('#chart-tree svg')")
    red = shown.run("getComputedStyle(document.documentElement).getPropertyValue('--chosen').trim()")
    shown.until(f"document.querySelectorAll('#chart-tree path[fill=\"{red}\"]').length > 0")
    fresh(shown)


@pytest.mark.browser
@needs_browser
def test_another_metric_and_other_columns(shown):
    choose = (
        "y.value = [...y.options].find(o => o.text === 'validation loss').value; y.dispatchEvent(new Event('change'))"
    )
    shown.run(f"(() => {{ const y = document.getElementById('y'); {choose} }})()")
    shown.until("document.querySelector('#chart-scatter figcaption').textContent.includes('validation loss')")
    heads = "[...document.querySelectorAll('#table thead th')].filter(x => x.offsetWidth).length"
    before = shown.run(heads)
    shown.run("document.querySelector('.tools details').open = true")
    shown.click("#columns label:nth-child(2) input")
    assert (
        shown.run("[...document.querySelectorAll('#table thead th')].filter(x => x.offsetWidth).length") == before - 1
    )
    assert {"axes", "columns"} <= state(shown).keys()
    shown.open(shown.page)


@pytest.mark.browser
@needs_browser
def test_by_keys_alone(shown):
    shown.run("document.getElementById('filter').focus()")
    shown.write("snip")
    shown.until(f"{ROWS}.length === 20")
    for _ in range(40):
        shown.key("Tab")
        if shown.run("document.activeElement.closest('thead') !== null"):
            break
    shown.key("Enter")
    assert shown.run("document.activeElement.closest('th').ariaSort") == "ascending"
    for _ in range(60):
        shown.key("Tab")
        if shown.run("document.activeElement.type === 'checkbox' && document.activeElement.closest('tbody') !== null"):
            break
    shown.key(" ", text=" ")
    shown.key("ArrowDown")
    shown.key(" ", text=" ")
    shown.until("document.querySelectorAll('#details figure svg').length === 2")
    assert len(state(shown)["picked"].split(",")) == 2
    fresh(shown)


@pytest.mark.browser
@needs_browser
def test_a_link_that_means_harm_changes_nothing(shown):
    shown.open(shown.page, place="#picked=9999,-1,x&sort=99%2B&axes=1&columns=&brush=1,a&filter=%3Cimg%20src=x%3E")
    assert shown.run(f"{ROWS}.length") == 0
    assert shown.run("document.querySelectorAll('img').length") == 0
    fresh(shown)


@pytest.mark.browser
@needs_browser
def test_without_scripts_the_table_is_whole(runs, tmp_path):
    where = tmp_path / "compare.html"
    where.write_text(page(gather(runs)), encoding="utf-8")
    told = looked_at(where, tmp_path, scripts=False)
    assert told.count("lottery-") >= 20
    assert "filter" not in told
    hostile = tmp_path / "hostile.html"
    hostile.write_text(page(gather(write_runs(tmp_path / "harm", 4, word=HOSTILE))), encoding="utf-8")
    assert "<script>alert(" in looked_at(hostile, tmp_path, dark=True)
