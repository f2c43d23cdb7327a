"""The house: folders import one way, files and functions are short, methods are exported and documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from pruning_methods import called_with, public_classes

import sparsight.pruning
from sparsight.types import Allocator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sparsight"

# A folder imports from itself and from those before it.
ORDER = [
    "types", "numerics", "checkpoint", "model", "zoo", "measure", "pruning", "train", "records", "deploy", "report",
    "compare", "runs", "recipes", "analysis", "integrations", "cli",
]  # fmt: skip
BESIDE = {"types.py", "__init__.py", "__main__.py", "py.typed"}

FILE, FUNCTION = 300, 50  # lines at most


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def folder(path: Path) -> str:
    return relative(path).split("/")[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """What a module imports of the package, wherever it does: "train.loop", or "" for the package itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports say where from"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.partition(".")[2] for name in found if name.split(".")[0] == "sparsight"}


# -- rooms -------------------------------------------------------------------------------------------------------


def test_beside_the_folders_there_are_three_files():
    there = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in there if path.is_file()} <= BESIDE
    folders = {path.name for path in there if path.is_dir()}
    assert folders <= set(ORDER)
    assert all((PACKAGE / name / "__init__.py").exists() for name in folders)


@pytest.mark.parametrize("path", [p for p in modules() if folder(p) in ORDER], ids=relative)
def test_a_folder_imports_from_those_before_it(path):
    here, names = folder(path), imported(ast.parse(path.read_text()))
    from_top = names - {"", "__version__"} - {name for name in names if name.split(".")[0] in ORDER}
    assert not from_top, f"import {sorted(from_top)} from their folders"
    rooms = {name.split(".")[0] for name in names} & set(ORDER)
    wrong = {room for room in rooms if ORDER.index(room) > ORDER.index(here)}
    assert not wrong, f"{here} may not import from {sorted(wrong)}"


# -- sizes -------------------------------------------------------------------------------------------------------


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def sizes() -> dict[str, tuple[int, int]]:
    """Of every file and function, by name: (lines, the limit)."""
    found = {}
    for path in modules():
        text = path.read_text()
        found[relative(path)] = len(text.splitlines()), FILE
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{relative(path)}:{node.name}"
                found[name] = max(found.get(name, (0, 0))[0], body_lines(node)), FUNCTION
    return found


def test_files_and_functions_are_short():
    assert {name: lines for name, (lines, limit) in sizes().items() if lines > limit} == {}


def test_lines_of_a_body_are_counted_without_signature_and_docstring():
    text = 'def f(\n    a,\n    b,\n):\n    """One.\n\n    Two.\n    """\n    c = a\n\n    return c + b\n'
    (function,) = ast.parse(text).body
    assert body_lines(function) == 3
    (function,) = ast.parse('def f():\n    """Nothing."""\n').body
    assert body_lines(function) == 0


# -- methods -----------------------------------------------------------------------------------------------------

PARTS = {"ScoredAt", "Rescaled"}
"""Scorers and allocators that recipes are made of, and that are no methods of their own."""


def methods() -> list[str]:
    """The scorers and allocators."""
    return sorted(
        kind.__name__
        for kind in public_classes()
        if Allocator in kind.__mro__ or called_with(kind)[:3] == ["model", "masks", "batches"]
    )


def test_methods_are_found():
    assert {
        "FORCE", "IterativeSNIP", "Magnitude", "Random", "SNIP", "Global", "Uniform", "Shrink", "SAP", "SiPP",
        "SiPPDet", "SiPPRand", "SiPPHybrid", "Shuffled", *PARTS,
    } - {*methods()} == {"FORCE", "IterativeSNIP"}, "the last two are functions"  # fmt: skip


@pytest.mark.parametrize("name", sorted({*methods(), "FORCE", "IterativeSNIP"} - PARTS))
def test_every_method_is_exported_and_documented(name):
    assert name in sparsight.pruning.__all__, f"publish {name} in sparsight/pruning/__init__.py"
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert f"`{name}" in pages, f"write a docs page that names `{name}`"


@pytest.mark.parametrize("name", sorted(PARTS))
def test_parts_of_recipes_are_exported_by_their_room(name):
    import sparsight.pruning.rescale

    assert name in sparsight.pruning.rescale.__all__


def recipes() -> list[str]:
    return sorted(path.stem for path in (PACKAGE / "recipes").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_has_a_page_and_is_a_function(name):
    from sparsight import recipes as package

    assert callable(getattr(package, name)), f"import {name} in recipes/__init__.py"
    assert (ROOT / "docs" / "methods" / f"{name}.md").exists()


# -- what may not be there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["sparsight", "sparsight.cli", "sparsight.cli.entry", "sparsight.__main__", "sparsight.pruning.score"]
)
def test_what_is_imported_loads_no_more_than_it_must(module):
    heavy = ("torch", "numba", "numpy", "safetensors", "accelerate", "jaxtyping")
    code = f"import {module}, sys; print(*({{*sys.modules}} & {{*{heavy}}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = done.stdout.split()
    assert ("torch" in found) if module == "sparsight.pruning.score" else not found


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_house_rules(path):
    assert path.name not in ("utils.py", "helpers.py", "common.py", "misc.py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print() in {path.name}"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        packages = {name.split(".")[0] for name in names}
        assert "pickle" not in packages
        assert "accelerate" not in packages or path.stem == "parallel", "accelerate is known to parallel.py alone"
