"""`sparsight recipes`: the recipes there are. Their files are read, not imported, so that the answer is at once."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

from sparsight.cli.errors import Misuse, near

FOLDER = Path(__file__).parent.parent / "recipes"

HELP = """\
usage: sparsight recipes [--json]

List the recipes that come with sparsight, with one line each. `sparsight run RECIPE --help` says what one takes.

  --json   a JSON list of {"name", "description"}
"""


def names() -> dict[str, str]:
    """Name -> one line of description, of every recipe in the package: a file with a function of its own name."""
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
    sys.stdout.write(table(found) + "\nsparsight run RECIPE --help says what a recipe takes.\n")
    return 0


def table(found: dict[str, str]) -> str:
    """A line for each recipe."""
    width = max(map(len, found), default=0)
    return "".join(f"{name:<{width}}  {line}\n" for name, line in found.items())
