"""Imports go one way, every method is exported and documented, and the top of the package loads nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sparsight"

# A module may import modules of earlier lines only (and its own package).
ORDER = """
types kernels resolve seeds pace bounds patches leftout
record masks clip schedules select pq files turning taps loss positive sensitivity
layout stepping
pure sizes hold
own_loop
propagation
pack identity lock survey collapse score allocate restart parallel data zoo checkpoint
criticality choose
search
residual
rescaling
flow certificate
stop
recipe evaluate feed journal
train
runfiles
runner recipes store report
analysis diagram
launch
study
commands
cli
__main__
""".strip().splitlines()
RANK = {name: rank for rank, line in enumerate(ORDER) for name in line.split()}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "sparsight" else [f"sparsight.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sparsight.")}
    return found & set(RANK)


def test_every_module_has_its_place():
    assert {top(path) for path in modules()} <= set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    me = top(path)
    wrong = {other for other in imported(path) if other != me and RANK[other] >= RANK[me]}
    assert not wrong, f"{me} may not import {sorted(wrong)}"


def methods() -> list[tuple[str, str]]:
    """(package, public class) of every scorer and allocator, found by walking the package."""
    found = []
    for package in ("score", "allocate"):
        for path in sorted((PACKAGE / package).glob("*.py")):
            callable_here: set[str] = set()
            for node in ast.parse(path.read_text()).body:
                if not isinstance(node, ast.ClassDef):
                    continue
                own = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
                if "__call__" in own or callable_here & {getattr(base, "id", None) for base in node.bases}:
                    callable_here.add(node.name)
            found += [(package, name) for name in sorted(callable_here) if not name.startswith("_")]
    return found


def test_methods_are_found():
    assert {"Magnitude", "Random", "Global", "Uniform", "Shrink", "SAP", "SiPPRand", "SiPPHybrid"} <= {
        name for _, name in methods()
    }


@pytest.mark.parametrize(("package", "name"), methods())
def test_every_method_is_exported_and_documented(package, name):
    import sparsight

    assert name in sparsight.__all__, f"publish {name} in sparsight/__init__.py"
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert f"`{name}" in pages, f"write a docs page that names `{name}`"


def recipes() -> list[str]:
    return sorted(p.stem for p in (PACKAGE / "recipes").glob("*.py") if not p.stem.startswith("_"))


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_has_a_page_and_is_a_function(name):
    from sparsight import recipes as package

    assert callable(getattr(package, name)), f"import {name} in recipes/__init__.py"
    assert (ROOT / "docs" / "methods" / f"{name}.md").exists()


def test_public_names_resolve_and_are_spelled_out_once():
    import sparsight

    for name in sparsight.__all__:
        assert getattr(sparsight, name) is not None
    modules_too = set(RANK) & set(sparsight.__all__)
    assert not modules_too, f"an imported module of the same name would hide {sorted(modules_too)}"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sparsight.nonsense


def test_importing_the_package_loads_no_torch():
    code = (
        "import sparsight, sparsight.cli.entry, sys; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_house_rules(path):
    assert path.name not in ("utils.py", "helpers.py", "common.py", "misc.py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print() in {path.name}"
        if isinstance(node, ast.Import):
            assert not {"pickle", "accelerate"} & {a.name.split(".")[0] for a in node.names} or path.stem == "parallel"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "accelerate":
            assert path.stem == "parallel", "accelerate is known to parallel.py alone"
