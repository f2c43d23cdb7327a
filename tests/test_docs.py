"""What a reader sees is true: examples and Python blocks run, links and options exist, nothing names a machine."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from typing_extensions import Doc

from sparsight.cli import entry as cli
from sparsight.cli.recipes import names

ROOT = Path(__file__).parents[1]
STUDIES = sorted(ROOT.glob("studies/*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
LEADING = re.compile(r"^│ (?:-\w(?: [A-Z]+)?, )?(--[a-z][a-z-]*)", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[tuple[str, str, str]]:
    """(language, rest of the first line, text) of every fenced block."""
    return FENCE.findall(page.read_text())


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty current folder from which modules are found; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in [n for n in set(sys.modules) - before if n.partition(".")[0] in ("my_pkg", "examples")]:
        del sys.modules[name]


def with_python() -> list[Path]:
    return [page for page in PAGES if any(language == "python" for language, _, _ in fences(page))]


def test_pages_with_python_are_found():
    assert ROOT / "README.md" in with_python()
    assert len(with_python()) >= 8


@pytest.mark.parametrize("page", with_python(), ids=named)
def test_python_blocks_run(page, elsewhere):
    """The blocks of a page run one after the other; one with a title is a file, written and then imported by others."""
    space: dict[str, object] = {"__name__": "__page__"}
    for language, rest, text in fences(page):
        if language != "python":
            continue
        title = re.search(r'title="([^"]+)"', rest)
        if title:
            target = elsewhere / title[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(text, named(page), "exec", dont_inherit=True), space)


@pytest.mark.parametrize("data", ["data", "loaders"])
def test_own_model_on_the_command_line(data, elsewhere, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT))
    short = ["--epochs=1", "--levels=1", "--batch-size=64", "--no-control", "--device=cpu", "--out=run"]
    words = ["run", "sap", "--model", "examples.own_model:build", "--data", f"examples.own_model:{data}", *short]
    assert cli.main(words) == 0
    assert "Report: run/report.html" in capsys.readouterr().out


def test_recipe_of_the_page_on_the_command_line(elsewhere, capsys):
    """The command of docs/own-recipe.md."""
    page = ROOT / "docs" / "own-recipe.md"
    for language, rest, text in fences(page):
        title = re.search(r'title="([^"]+)"', rest)
        if language == "python" and title:
            (elsewhere / title[1]).parent.mkdir(exist_ok=True)
            (elsewhere / title[1]).write_text(text)
    (line,) = [x for x in commands(page) if "my_pkg" in x]
    assert cli.main(shlex.split(line)[1:]) == 0


# -- links -----------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of its headings, those of the command line's reference included, as MkDocs and the usual hosts make them."""
    text = prose(page)
    if "<!-- commands -->" in text:
        text += runpy.run_path(str(ROOT / "docs" / "options.py"))["reference"]()
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{named(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{named(page)} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=named)
def test_lines_are_short(page):
    """But for rows of tables, and the marks that they are made from."""
    lines = prose(page).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "<!-- options"))] == []


@pytest.mark.parametrize("page", [*PAGES, *STUDIES], ids=named)
def test_files_that_are_named_exist(page):
    """Paths in code marks that begin with a folder of the repository."""
    for path in re.findall(r"`((?:docs|examples|benchmarks|studies|tests|src)/[\w./-]+)`", prose(page)):
        assert (ROOT / path).exists() or path.endswith(("results/", "NAME.md", "NAME.py")), (
            f"{named(page)} names {path}"
        )


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}


# -- commands --------------------------------------------------------------------------------------------------


@cache
def flags(*command: str) -> frozenset[str]:
    """The options in the help of a command."""
    return frozenset(FLAG.findall(help_of(*command)))


@cache
def help_of(*command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main([*command, "--help"]) == 0
    return out.getvalue()


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks that call sparsight."""
    blocks = [text for language, _, text in fences(page) if language in ("bash", "sh", "console")]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("sparsight ")]


EVERY = tuple(names())
COMMANDS = (  # beside run
    "show", "report", "analyze", "certify", "pack", "unpack", "compact", "export", "ledger", "bench", "evaluate",
    "compare", "verdict", "verify", "phase", "recipes", "study",
)  # fmt: skip
WRITTEN = [
    (page, line) for page in PAGES for line in commands(page) if "RECIPE" not in line and "my_pkg.rec" not in line
]


def test_commands_are_found():
    assert len(WRITTEN) >= 12


@pytest.mark.parametrize(("page", "line"), WRITTEN, ids=lambda x: x if isinstance(x, str) else named(x))
def test_commands_have_the_options_that_are_written(page, line):
    command, *rest = shlex.split(line)[1:]
    assert command in ("run", *COMMANDS)
    if command == "run":
        assert rest[0] in EVERY
    known = flags(command, rest[0]) if command == "run" else flags(command)
    assert set(FLAG.findall(line)) <= known


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_in_the_text_exist(page):
    """In code marks that hold nothing but an option (and its value), or a call of sparsight."""
    known = frozenset({"--version", "--strict", "--json", "--help"})
    known = known.union(*(flags("run", recipe) for recipe in EVERY), *(flags(c) for c in COMMANDS))
    for mark in re.findall(r"`([^`\n]+)`", prose(page)):
        if mark.startswith(("--", "sparsight ")):
            assert set(FLAG.findall(mark)) <= known, f"{named(page)}: {mark}"


# -- tables of options -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """What docs/options.py defines."""
    return runpy.run_path(str(ROOT / "docs" / "options.py"))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tables_of_options_are_up_to_date(page, options):
    text = page.read_text()
    assert options["written"](text) == text, "run python docs/options.py"


@pytest.fixture(scope="module")
def reference(options) -> dict[str, str]:
    """The sections of the command line's reference by the words that they are about."""
    parts = re.split(r"^##+ (?:sparsight )?(.+)$", options["reference"](), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_reference_has_every_command_and_recipe(reference):
    assert {*reference} == {*COMMANDS, "run", *(f"run {recipe}" for recipe in EVERY)} - {"recipes"}
    assert "<!-- commands -->" in (ROOT / "docs" / "command-line.md").read_text()


@pytest.mark.parametrize("name", [*(f"run {recipe}" for recipe in EVERY), *(c for c in COMMANDS if c != "recipes")])
def test_the_reference_has_the_options_of_the_help(name, reference):
    text = reference[name] + (reference["run"] if name.startswith("run ") else "")
    rows = re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE)
    listed = {flag for row in rows for flag in FLAG.findall(row)} | {"--help"}
    said = flags(*name.split())
    assert listed <= said
    assert {*LEADING.findall(help_of(*name.split()))} <= listed


@pytest.mark.parametrize("recipe", EVERY)
def test_a_page_of_a_recipe_has_its_own_options(recipe):
    name = recipe.replace("-", "_")
    assert f"<!-- options: {name}: " in (ROOT / "docs" / "methods" / f"{name}.md").read_text()


@pytest.mark.parametrize("room", [p.stem for p in (ROOT / "docs" / "reference").glob("[!i]*.md")])
def test_the_reference_names_modules_that_are_there(room):
    for name in re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "reference" / f"{room}.md").read_text(), re.MULTILINE):
        path = ROOT.joinpath("src", *name.split("."))
        there = path.is_dir() or path.with_suffix(".py").exists() or path.parent.with_suffix(".py").exists()
        assert there, f"docs/reference/{room}.md names {name}"


def test_every_room_has_a_page_of_reference():
    from test_architecture import ORDER

    there = {p.stem for p in (ROOT / "docs" / "reference").glob("*.md")} - {"index"}
    assert there == {room for room in ORDER if list((ROOT / "src" / "sparsight").glob(f"{room}*"))} - {"cli"}


def test_an_option_without_help_is_refused(options):
    def silent(*, rate: float = 0.5) -> None:
        """Nothing is said of rate."""

    with pytest.raises(ValueError, match="silent does not say what rate is"):
        list(options["rows"](silent))


def test_what_a_row_says(options):
    def told(
        *,
        way: Annotated[Literal["a", "b"] | None, Doc("Which way | round.")] = None,
        rate: float = 5e-4,
        off: bool = False,
        on: bool = True,
    ) -> None:
        """Something.

        Args:
            rate: The rate,
                told in two lines.
            off: This.
            on: That.
        """

    assert [row for _, row in options["rows"](told)] == [
        "| `--way` | – | Which way \\| round. (`a`, `b`) |",
        "| `--rate` | 0.0005 | The rate, told in two lines. |",
        "| `--off` | off | This. |",
        "| `--on`, `--no-on` | on | That. |",
    ]


# -- architecture ----------------------------------------------------------------------------------------------


def part(head: str) -> str:
    """A part of docs/architecture.md."""
    return (ROOT / "docs" / "architecture.md").read_text().partition(f"## {head}\n")[2].partition("\n## ")[0]


def test_the_rooms_are_the_rooms():
    """In the order of the imports."""
    from test_architecture import ORDER

    named_there = [room.rstrip("/") for room in re.findall(r"^\| `([\w/]+)` \|", part("The rooms"), re.MULTILINE)]
    assert named_there == [room for room in ORDER if list((ROOT / "src" / "sparsight").glob(f"{room}*"))]


def test_the_files_of_a_sitting_are_as_long_as_the_page_says():
    """To a tenth, since files go on living."""
    text = part("Reading SAP in one sitting")
    told = {path: int(lines) for path, lines in re.findall(r"^\| `([\w/]+\.py)`[^|]*\| (\d+) \|", text, re.MULTILINE)}
    assert len(told) == 18
    for path, lines in told.items():
        there = len((ROOT / "src" / "sparsight" / path).read_text().splitlines())
        assert abs(there - lines) <= max(10, 0.1 * lines), f"{path} has {there} lines, the page says {lines}"
    (total,) = re.findall(r"That is ([\d,]+) lines", text)
    assert int(total.replace(",", "")) == sum(told.values())


def test_the_path_names_files_and_functions_that_are_there():
    stops = re.findall(r"^\d\. `([\w/]+\.py)`, `(\w+)`", part("The path of a recipe"), re.MULTILINE)
    assert len(stops) == 6
    for path, function in stops:
        assert re.search(rf"^def {function}\(", (ROOT / "src" / "sparsight" / path).read_text(), re.MULTILINE)


# -- the run of the README -------------------------------------------------------------------------------------


def test_the_numbers_of_the_readme_are_those_of_the_run():
    with (ROOT / "benchmarks" / "results" / "first-run.csv").open(newline="") as file:
        rows = {(row["role"], row["level"]): row for row in csv.DictReader(file)}
    text = (ROOT / "README.md").read_text()
    (last,) = [row for row in rows.values() if row["chosen"] == "True"]
    for row in (rows["level", "0"], last, next(row for key, row in rows.items() if key[0] == "control")):
        for name in ("validation_accuracy", "test_accuracy"):
            assert f"{float(row[name]):.2%}".replace("%", " %") in text
    ledger = json.loads((ROOT / "benchmarks" / "results" / "first-run-ledger.json").read_text())["counted"]
    assert f"{ledger['dense_bytes'] / ledger['packed_bytes']:.1f}× smaller" in text
    assert f"its {ledger['prunable']:,} prunable weights" in " ".join(text.split())


# -- machines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "examples").glob("*.py"))], ids=named)
def test_nothing_names_a_machine(page):
    assert not re.search(r"(?<![\w.])/(work|tmp|home|root|opt|Users|mnt)/", page.read_text())


# -- citation --------------------------------------------------------------------------------------------------


def test_the_citation_is_of_this_version_and_of_the_papers_that_pages_name():
    from ruamel.yaml import YAML

    import sparsight

    cited = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert (cited["cff-version"], cited["version"], cited["license"]) == ("1.2.0", sparsight.__version__, "MIT")
    pages = " ".join(" ".join(page.read_text().split()) for page in PAGES)
    for paper in cited["references"]:
        assert paper["title"] in pages
        assert paper["identifiers"][0]["value"].replace(":", " ") in pages
        assert len(paper["authors"]) >= 2
