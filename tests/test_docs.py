"""What a reader sees is true: examples and Python blocks run, links and options exist, nothing names a machine."""

from __future__ import annotations

import contextlib
import io
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
    """The command that docs/adding-a-method.md ends with."""
    page = ROOT / "docs" / "adding-a-method.md"
    for language, rest, text in fences(page):
        title = re.search(r'title="([^"]+)"', rest)
        if language == "python" and title:
            (elsewhere / title[1]).parent.mkdir(exist_ok=True)
            (elsewhere / title[1]).write_text(text)
    (line,) = [x for x in commands(page) if "my_pkg" in x]
    assert cli.main(shlex.split(line)[1:]) == 0


# -- links -----------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of its headings, as MkDocs and the usual hosts make them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
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
    """But for rows of tables."""
    assert [line for line in prose(page).splitlines() if len(line) > 120 and not line.startswith("|")] == []


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
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main([*command, "--help"]) == 0
    return frozenset(FLAG.findall(out.getvalue()))


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks that call sparsight."""
    blocks = [text for language, _, text in fences(page) if language in ("bash", "sh", "console")]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.startswith("sparsight ")]


RECIPES = ("sap", "lottery", "oneshot")  # those that go down level by level: one table for their options
EVERY = tuple(names())
COMMANDS = (  # beside run
    "show", "report", "analyze", "certify", "pack", "unpack", "compact", "export", "ledger", "bench", "evaluate",
    "verdict", "verify", "phase", "recipes", "study",
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


def test_every_option_is_in_a_table(options):
    """Of every recipe on its own page, and of the commands that have signatures."""
    pages = {page.stem: page.read_text() for page in PAGES}
    tables = {name: page for page, text in pages.items() for _, name, _ in options["TABLE"].findall(text)}
    assert {name: page for name, page in tables.items() if " " not in name} == {
        **{name.replace("-", "_"): name.replace("-", "_") for name in EVERY},
        **dict.fromkeys(("run", "certify", "phase"), "command-line"),
        **{"study": "studies", "bench": "runtime"},
        **{name: name for name in ("compact", "export", "ledger", "evaluate", "verdict")},
    }
    assert tables[" ".join(RECIPES)] == "command-line"


@pytest.mark.parametrize(
    "name", [*EVERY, "certify", "phase", "bench", "compact", "export", "ledger", "evaluate", "verdict", "study"]
)
def test_a_table_has_the_options_of_the_help(name, options):
    table = options["table"](name.replace("-", "_"))
    command = ("run", name) if name in EVERY else (name,)
    both = set(FLAG.findall(table.replace("| --- |", ""))) | {"--help"}
    if name in EVERY:
        both |= {row.split("`")[1] for row in options["table"]("run").splitlines() if row.startswith("| `")}
    listed = {flag for flag in both if not flag.startswith("--no-")}
    assert {flag for flag in flags(*command) if not flag.startswith("--no-")} == listed


def test_a_shared_table_has_what_is_the_same(options):
    table = options["table"](" ".join(RECIPES))
    assert "| `--lr` | – | Learning rate" in table
    assert "`--rate`" not in table  # not of sap
    assert "`--carry-on`" not in table  # not of oneshot


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

    assert list(options["rows"](told)) == [
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


def test_the_walk_names_files_and_functions_that_are_there():
    stops = re.findall(r"^\d\. `([\w/]+\.py)`, `(\w+)`", part("The walk of one value"), re.MULTILINE)
    assert len(stops) == 6
    for path, function in stops:
        assert re.search(rf"^def {function}\(", (ROOT / "src" / "sparsight" / path).read_text(), re.MULTILINE)


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
