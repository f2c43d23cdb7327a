"""`sparsight recipes` and `sparsight run`: the names of recipes, read from their files without importing them."""

from __future__ import annotations

import ast
import json
import shlex
import sys
import textwrap
from pathlib import Path

from sparsight.cli.errors import Misuse, near

FOLDER = Path(__file__).parent.parent / "recipes"

HELP = """\
usage: sparsight recipes [--json]

List the recipes that come with sparsight. `sparsight run RECIPE --help` shows the options of one.

  --json   Print a JSON list of {"name", "description"}.
"""

RUN_HELP = """\
usage: sparsight run RECIPE [options]

Prune a network with a recipe, level by level, and keep the results in a run folder.

recipes:
{recipes}
Your own recipe: package.module:function, a function that returns a Recipe.

  sparsight run RECIPE --help   options of a recipe
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


def recipes(argv: list[str]) -> int:
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


def run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        (sys.stdout if argv else sys.stderr).write(RUN_HELP.format(recipes=textwrap.indent(table(names()), "  ")))
        return 0 if argv else 2
    name = argv[0]
    if name.startswith("-"):
        raise Misuse(f"the recipe must come before the options: sparsight run RECIPE {shlex.join(argv)}")
    known = names()
    if ":" not in name and name.replace("_", "-") not in known:
        hint = near(name, known) or f"; expected one of {', '.join(known)}, or package.module:function"
        raise Misuse(f"unknown recipe {name!r}{hint}")

    from sparsight.cli.run import run_and_tell

    return run_and_tell(name, argv[1:])


def table(found: dict[str, str]) -> str:
    """A line per recipe."""
    width = max(map(len, found), default=0)
    return "".join(f"{name:<{width}}  {line}\n" for name, line in found.items())
