"""`sparsight recipes`: list the recipes. Reads their files without importing them, which is faster."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

from sparsight.cli.errors import Misuse, near

FOLDER = Path(__file__).parent.parent / "recipes"

HELP = """\
usage: sparsight recipes [--json]

List the recipes that come with sparsight. `sparsight run RECIPE --help` shows the options of one.

  --json   Print a JSON list of {"name", "description"}.
"""


def names() -> dict[str, str]:
    """The first line of every recipe's docstring, by name. A recipe is a file with a function of the same name."""
    found = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        body = ast.parse(path.read_bytes()).body
        function = next((x for x in body if isinstance(x, ast.FunctionDef) and x.name == path.stem), None)
        if function is not None:
            found[path.stem.replace("_", "-")] = (ast.get_docstring(function) or "").partition("\n")[0]
    return found


def main(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        sys.stdout.write(HELP)
        return 0
    unknown = [word for word in argv if word != "--json"]
    if unknown:
        raise Misuse(f"unknown option {unknown[0]!r}{near(unknown[0], ['--json', '--help'])}")
    found = names()
    if argv:
        listed = [{"name": name, "description": line} for name, line in found.items()]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
        return 0
    sys.stdout.write(table(found) + "\nsparsight run RECIPE --help shows the options of a recipe.\n")
    return 0


def table(found: dict[str, str]) -> str:
    """A line per recipe."""
    width = max(map(len, found), default=0)
    return "".join(f"{name:<{width}}  {line}\n" for name, line in found.items())
